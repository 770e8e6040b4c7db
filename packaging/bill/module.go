package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	self   = "github.com/keyvet/keyvet"
	device = "./cmd/keyvet"
)

// tools are the programs that no device has.
var tools = []string{"./cmd/keyvet-blocklist", "./cmd/keyvet-fleet", "./cmd/keyvet-lab"}

// arches are those that the device binary is built for; what is linked may
// differ between them.
var arches = []string{"386", "amd64", "arm", "arm64", "mipsle", "riscv64"}

// module is a module of which something is linked into a program.
type module struct {
	Path, Version string
	Dir           string
	Licence       string   // SPDX expression
	Texts         []string // names of the files in Dir that say so; the first decides
}

// goCommand runs the go command for the device and gives its output.
func goCommand(env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off"), env...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%v: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("go %s: %v", args[0], err)
	}
	return out, nil
}

// linkedModules are keyvet itself and the modules that programs of it take packages
// from on any architecture, in order of their paths.
func linkedModules(programs ...string) ([]module, error) {
	found := make(map[string]module)
	for _, arch := range arches {
		out, err := goCommand([]string{"GOARCH=" + arch}, append([]string{"list", "-deps", "-json=Module"}, programs...)...)
		if err != nil {
			return nil, err
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var pkg struct{ Module *module }
			if err := dec.Decode(&pkg); err == io.EOF {
				break
			} else if err != nil {
				return nil, fmt.Errorf("answer of go list: %v", err)
			}
			if pkg.Module != nil {
				found[pkg.Module.Path] = *pkg.Module
			}
		}
	}
	var modules []module
	for _, m := range found {
		var err error
		if m.Texts, err = licenceFiles(m.Dir); err != nil {
			return nil, fmt.Errorf("%s: %v", m.Path, err)
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, m.Texts[0]))
		if err != nil {
			return nil, err
		}
		if m.Licence = licence(string(text)); m.Licence == "" {
			return nil, fmt.Errorf("%s: the licence in %s is not known: see licence.go", m.Path, m.Texts[0])
		}
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}
