package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program(os.Getenv), "../../../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program(os.Getenv)) }

// TestScreens keeps what is said of an image; where all is well, nothing is.
func TestScreens(t *testing.T) {
	dir, before := t.TempDir(), config.Root
	t.Cleanup(func() { config.Root = before })
	for i, build := range []struct {
		name string
		set  []string
	}{
		{"-partial", append([]string{"PARTIAL=1", "ENDPOINTS="}, good[0], good[2])},
		{"-wrong", append([]string{"GATE=maybe", "ROTATE_BEFORE=720h"}, good...)},
	} {
		image := filepath.Join(dir, fmt.Sprint(i))
		if err := put(image, "usr/bin/keyvet", ""); err != nil {
			t.Fatal(err)
		}
		clitest.Commands(t, program(env(build.set...)), [][2]string{{"write" + build.name, "write " + image}, {"check" + build.name, "check " + image}})
	}
}
