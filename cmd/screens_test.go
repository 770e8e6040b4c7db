package cmd_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestScreens holds that what each command of each program shows on a terminal is
// kept, at both widths, and that no screen is left of a command that is gone. The
// tests of the programs compare them.
func TestScreens(t *testing.T) {
	bin := build(t)
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) < 4 {
		t.Fatalf("%v, %v", mains, err)
	}
	commands := 0
	for _, main := range mains {
		program := filepath.Dir(main)
		help, err := exec.Command(filepath.Join(bin, program), "help").Output()
		if err != nil {
			t.Fatalf("%s help: %v", program, err)
		}
		var names []string
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)?)  +[a-zA-Z]`).FindAllStringSubmatch(string(help), -1) {
			names = append(names, strings.ReplaceAll(m[1], " ", "-"))
		}
		if !slices.Contains(names, "version") || !slices.Contains(names, "help") {
			t.Fatalf("%s help is not read rightly: %q", program, names)
		}
		commands += len(names)
		files, err := filepath.Glob(filepath.Join(program, "testdata", "screens", "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, width := range []string{".80.txt", ".160.txt"} {
			for _, name := range names {
				if !slices.ContainsFunc(files, func(f string) bool {
					screen, ok := strings.CutSuffix(filepath.Base(f), width)
					return ok && isOf(screen, name)
				}) {
					t.Errorf("%s %s has no screen %s%s below testdata/screens", program, name, name, width)
				}
			}
		}
		for _, f := range files {
			screen, _, _ := strings.Cut(filepath.Base(f), ".")
			if !slices.ContainsFunc(names, func(name string) bool { return isOf(screen, name) }) {
				t.Errorf("%s: %s has no such command", f, program)
			}
		}
	}
	if commands < 30 {
		t.Errorf("only %d commands: the help is not read rightly", commands)
	}
}

// isOf reports whether a screen is one of a command: NAME or NAME-SITUATION.
func isOf(screen, command string) bool {
	return screen == command || strings.HasPrefix(screen, command+"-")
}
