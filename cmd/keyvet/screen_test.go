package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

// screenCommand holds what a command shows on a terminal to testdata/screens:
// screen NAME COMMAND ARGS... First, "screen folder" gives the script's folder a name
// of the same length everywhere, $SCREENS, since lines are broken by it.
func screenCommand(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "folder" {
		link := fmt.Sprintf("/tmp/ks-%06d", os.Getpid()%1_000_000)
		ts.Check(os.Symlink(ts.MkAbs("."), link))
		ts.Defer(func() { os.Remove(link) })
		ts.Setenv("SCREENS", link)
		return
	}
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if info, err := os.Stat(filepath.Join(dir, args[1])); program == "" && err == nil && info.Mode().IsRegular() {
			program = filepath.Join(dir, args[1])
		}
	}
	ts.Check(clitest.Screens(args[0], func(tty *clitest.Terminal) {
		cmd := exec.Command(program, args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Stdout, cmd.Stderr = tty.File, tty.File
		cmd.Env = os.Environ()
		for name, value := range tty.Env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Run() // its exit status is what another script is about
	}))
}
