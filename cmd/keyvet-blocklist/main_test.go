package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyvet-blocklist": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"makeset":  makeSet,
			"exitcode": exitCode,
			"flip":     flip,
			"cut":      cut,
		},
	})
}

// makeSet writes files of made-up fingerprints and names them in SHA256SUMS:
// makeset DIR FILE...
func makeSet(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	sums, err := os.OpenFile(filepath.Join(dir, "SHA256SUMS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer sums.Close()
	for _, name := range args[1:] {
		var b []byte
		for pid := range rowsPerFile {
			row := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, pid))
			b = append(b, row[:]...)
			if strings.HasPrefix(name, "rsa") {
				b = append(b, 1, 0, 2, 0, 0, 0, 0, 0)
			}
		}
		ts.Check(os.WriteFile(filepath.Join(dir, name), b, 0o644))
		fmt.Fprintf(sums, "%x  %s\n", sha256.Sum256(b), name)
	}
}

// exitCode runs a command and holds it to its exit status: exitcode N COMMAND ARGS...
// It must say something, and on standard error one line and a hint at most.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	if lines := strings.Count(ts.ReadFile("stderr"), "\n"); want != 0 && (lines < 1 || lines > 2) {
		ts.Fatalf("%d lines on standard error", lines)
	}
}

// flip inverts a bit of the byte at an offset; negative from the end: flip FILE OFFSET
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o644))
}

// cut leaves the first N bytes of a file: cut FILE N
func cut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}
