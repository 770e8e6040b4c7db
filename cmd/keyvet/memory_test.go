package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

// TestIdleMemory runs the program as a release builds it, with its list.
func TestIdleMemory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "keyvet")
	build(t, program, runtime.GOARCH, "")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/memory",
		Setup: func(env *testscript.Env) error {
			env.Setenv("KEYVET", program)
			env.Values["desk"] = &desk{}
			env.Defer(func() { env.Values["desk"].(*desk).close() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"tpm": tpmCommand, "cloud": cloudCommand, "device": deviceCommand, "resident": residentCommand,
		},
	})
}

// residentCommand holds the program in the background to the memory that may be
// resident, its own and that of its file: resident MB
func residentCommand(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", ts.BackgroundCmds()[0].Process.Pid))
	ts.Check(err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes int // of 1,024 bytes
	_, err = fmt.Sscan(after, &kilobytes)
	ts.Check(err)
	ts.Logf("%d kB are resident", kilobytes)
	if kilobytes*1024 > most*1_000_000 {
		ts.Fatalf("%d kB are resident, more than %d MB", kilobytes, most)
	}
	_, after, _ = strings.Cut(string(status), "Threads:")
	var threads int
	_, err = fmt.Sscan(after, &threads)
	ts.Check(err)
	ts.Logf("%d threads", threads)
	if threads > 32 { // half of TasksMax= in keyvet.service
		ts.Fatalf("%d threads", threads)
	}
}

// A list is mapped for as long as its vet lasts: the service makes many.
func TestListIsUnmapped(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list.kvf")
	b, err := os.ReadFile("../../blocklist/embedded.kvf")
	if err == nil {
		err = os.WriteFile(list, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if status := command(t.Context(), []string{"check", "-blocklist", list, "testdata/good.pem"}, strings.NewReader(""), &out, &out); status != cli.Pass {
		t.Fatalf("exit status %d: %s", status, out.String())
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(maps), "[stack]") || strings.Contains(string(maps), list) {
		t.Errorf("the list is still mapped:\n%s", maps)
	}
}
