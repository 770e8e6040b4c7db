package main

import (
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program, "../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program) }

func TestScreens(t *testing.T) {
	clitest.Commands(t, program, [][2]string{
		{"inspect", "inspect ../../blocklist/compromised.kvf"},
		{"inspect-debian", "inspect ../../blocklist/further.kvf"},
		{"inspect-missing", "inspect none.kvf"},
		{"verify", "verify ../../blocklist/compromised.kvf"},
		{"build-no-keys", "build -out " + filepath.Join(t.TempDir(), "a.kvf")},
		{"generate-unknown", "generate -set rsa9 -out " + t.TempDir()},
		{"version", "version"},
	})
}
