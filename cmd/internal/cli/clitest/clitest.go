// Package clitest holds what is made of a program's table of commands to the
// table.
package clitest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

var update = flag.Bool("update", false, "write the completions and the man page")

// Texts holds the program's completions and its man page to its table, or writes
// them with -update; and its help to a terminal of 80 columns. What stands around the
// commands in the man page is in testdata of the test; root is the module's.
func Texts(t *testing.T, p *cli.Program, root string) {
	t.Helper()
	around, err := os.ReadFile(filepath.Join("testdata", p.Name+".1"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]string{filepath.Join(root, "docs", "man", p.Name+".1"): p.Man(string(around))}
	for _, shell := range cli.Shells {
		made[filepath.Join(root, "packaging", "completions", p.Name+"."+shell)] = p.Completion(shell)
	}
	for file, text := range made {
		want := []byte(text)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Error(err)
			}
			continue
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the table of commands says: make documents (%v)", file, err)
		}
	}
	texts := p.Overview()
	for i := range p.Commands {
		texts += p.HelpOn(&p.Commands[i])
	}
	for line := range strings.Lines(texts) {
		if slices.Contains(p.Examples, strings.TrimSpace(line)) {
			continue // a command to run has the length that it needs
		}
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}

// Help keeps the screens of a program's help.
func Help(t *testing.T, p *cli.Program) {
	t.Helper()
	err := Screens("help", func(tty *Terminal) {
		for name, value := range tty.Env {
			t.Setenv(name, value)
		}
		io := cli.IO{Out: tty.File, Err: tty.File}
		p.Run(t.Context(), io, []string{"help"})
		for _, c := range p.Commands {
			fmt.Fprintf(tty.File, "\n$ %s %s -h\n", p.Name, c.Name)
			p.Run(t.Context(), io, append(strings.Fields(c.Name), "-h"))
		}
		for _, wrong := range [][]string{{"frobnicate"}, {p.Commands[0].Name[:2] + "x"}, append(strings.Fields(p.Commands[0].Name), "-jsn")} {
			fmt.Fprintf(tty.File, "\n$ %s %s\n", p.Name, strings.Join(wrong, " "))
			p.Run(t.Context(), io, wrong)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
