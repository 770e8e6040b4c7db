package main

import (
	"os"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program, "../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program) }

// TestScreens keeps what inspect shows on terminals.
func TestScreens(t *testing.T) {
	for name, value := range clitest.Environment {
		t.Setenv(name, value)
	}
	for screen, args := range map[string][]string{"inspect-missing": {"none.kvf"}} {
		err := clitest.Screens(screen, func(tty *os.File) {
			program.Run(t.Context(), cli.IO{Out: tty, Err: tty}, append([]string{"inspect"}, args...))
		})
		if err != nil {
			t.Error(err)
		}
	}
}
