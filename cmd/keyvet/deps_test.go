package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// denied may not be in the device binary, with the reason. A name covers what
// is below it.
var denied = map[string]string{
	"github.com/google/go-tpm-tools":                "2.5 MB, and its client writes persistent handles; it belongs to the fleet's side",
	"github.com/keyvet/keyvet/tpm/tpmtest":          "starts an emulator",
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot": "a broker",
	"github.com/mochi-mqtt/server":                  "a broker",
	"github.com/keyvet/keyvet/cmd/keyvet-lab":       "the desk",
	"github.com/google/go-tpm/tpm2/transport/tcp":   "speaks the Microsoft simulator's protocol",
	"github.com/rogpeppe/go-internal":               "of tests",
	"github.com/titanous/rocacheck":                 "of benchmarks",
	"github.com/gorilla/websocket":                  "paho's client brings it; 1.0 MB with net/http",
	"net/http":                                      "paho's client brings it; 1.0 MB with WebSocket",
	"testing":                                       "of tests",
	"regexp":                                        "0.25 MB",
	"text/template":                                 "keeps the linker from leaving out what is unused",
	"os/exec":                                       "the device runs no commands",
	"plugin":                                        "the device loads no code",
	"net/rpc":                                       "nobody calls the device",
	"runtime/cgo":                                   "no cgo",
}

// maxBinaryBytes is the budget of the stripped device binary on amd64, without
// the built-in blocklist.
const maxBinaryBytes = 9_100_000

func denies(pkg string) string {
	for name, why := range denied {
		if pkg == name || strings.HasPrefix(pkg, name+"/") {
			return why
		}
	}
	return ""
}

// TestDeniedDependencies asks go list. This package's own test binary changes
// with every dependency, so the answer cannot be an old one.
func TestDeniedDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "crypto/tls") {
		t.Fatalf("these cannot be the dependencies: %v", deps)
	}
	for _, pkg := range deps {
		if why := denies(pkg); why != "" {
			t.Errorf("the device binary has %s: %s", pkg, why)
		}
	}
	if denies("net/http/httptrace") == "" || denies("net/httpx") != "" || denies("fmt") != "" {
		t.Error("the table is not read rightly")
	}
}

func TestBinarySize(t *testing.T) {
	if size := binarySize(t); size > maxBinaryBytes {
		t.Errorf("the device binary has %d bytes, more than %d: go tool nm -size -sort size tells of what", size, maxBinaryBytes)
	}
}

// binarySize builds the stripped device binary for amd64, without the list.
func binarySize(t testing.TB) int64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyvet")
	build(t, path, "amd64", "", "-tags", "keyvet_noblocklist")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// build builds the device binary for an architecture as it is shipped; set is
// what the linker sets besides, such as "-X main.version=1".
func build(t testing.TB, path, arch, set string, flags ...string) {
	t.Helper()
	shipped, err := shippedFlags(set)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, shipped, flags, []string{"."})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// shippedFlags are those of build.flags.
func shippedFlags(set string) (flags []string, err error) {
	b, err := os.ReadFile("build.flags")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if name == "ldflags" {
			value += " " + set
		}
		if ok && name != "#" {
			flags = append(flags, "-"+name+"="+value)
		}
	}
	if len(flags) < 3 {
		return nil, fmt.Errorf("build.flags has only %q", flags)
	}
	return flags, nil
}
