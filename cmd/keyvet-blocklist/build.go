package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
)

func build(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	out := flags.String("out", "", "")
	data := flags.String("data", "", "")
	names := flags.String("sets", "rsa2048,p256", "")
	rate := flags.Float64("fpr", 1e-9, "")
	if err := parseFlags(flags, args, 0); err != nil {
		return err
	}
	if *out == "" || *data == "" {
		return errUsage{errors.New("build: -out FILE and -data DIR are needed")}
	}
	if !(*rate >= 1e-15 && *rate <= 0.5) {
		return errUsage{fmt.Errorf("build: -fpr %v is not between 1e-15 and 0.5", *rate)}
	}
	var wanted []kind
	for name := range strings.SplitSeq(*names, ",") {
		k, ok := kindNamed(name)
		if !ok {
			return errUsage{fmt.Errorf("build: -sets: there is no set %q", name)}
		}
		if slices.ContainsFunc(wanted, func(other kind) bool { return other.name == name }) {
			return errUsage{fmt.Errorf("build: -sets: %s is named twice", name)}
		}
		wanted = append(wanted, k)
	}

	f, err := openFolder(*data)
	if err != nil {
		return err
	}
	p := newProgress(stderr, "reading")
	defer p.end()
	var sources []blocklist.Source
	for _, k := range wanted {
		there, missing := f.origins(k)
		if len(there) == 0 {
			return fmt.Errorf("%s: SHA256SUMS names no file of set %s", f.dir, k.name)
		}
		if len(missing) > 0 {
			p.printf("%s has no files of %s for %v: the set will not cover them\n", f.dir, k.name, missing)
		}
		source := blocklist.Source{
			Name: k.name, Algorithm: k.algorithm, Bits: k.bits, Origins: there, FalsePositiveRate: *rate,
		}
		for i, o := range there {
			fingerprints, err := f.fingerprints(k, o)
			if err != nil {
				return err
			}
			source.Fingerprints = append(source.Fingerprints, fingerprints...)
			p.show("%s, %d of %d files", k.name, i+1, len(there))
		}
		sources = append(sources, source)
	}
	list, err := blocklist.Build(sources)
	if err != nil {
		return err
	}
	return writeFile(*out, list)
}

// writeFile puts a whole file in place of what is at path: it is there after
// a power cut, or what was there before is.
func writeFile(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
