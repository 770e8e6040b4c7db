package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program, "../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program) }

func TestScreens(t *testing.T) {
	dir := clitest.Folder(t)
	leaked := "# found in an image\n" + strings.Repeat("0f", 32) + " gateway, 2024\n"
	if err := os.WriteFile(filepath.Join(dir, "leaked.txt"), []byte(leaked), 0o600); err != nil {
		t.Fatal(err)
	}
	clitest.Commands(t, program, [][2]string{
		{"inspect", "inspect ../../blocklist/compromised.kvf"},
		{"inspect-debian", "inspect ../../blocklist/further.kvf"},
		{"inspect-missing", "inspect none.kvf"},
		{"verify", "verify ../../blocklist/compromised.kvf"},
		{"generate", "generate -set p256 -origins le64-rnd -out " + dir + "/sets"},
		{"generate-shard", "generate -set p256 -shard 3/64 -out " + dir + "/shard"},
		{"build", "build -spki-sha256 " + dir + "/leaked.txt -cite https://example.com/leak -out " + dir + "/ours.kvf"},
		{"build-no-keys", "build -out " + filepath.Join(t.TempDir(), "a.kvf")},
		{"generate-unknown", "generate -set rsa9 -out " + t.TempDir()},
		{"version", "version"},
	})
}
