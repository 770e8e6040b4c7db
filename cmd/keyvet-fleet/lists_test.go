package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/blocklist"
)

// Each list of the command line is asked, and read as a whole before that.
func TestLists(t *testing.T) {
	good := "../../blocklist/compromised.kvf"
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged.kvf")
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(args ...string) (asked int, err error) {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		tests := trustFlags(flags)
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		err = tests.load(flags)
		lists, _ := tests.env.Blocklist.(blocklist.Lists)
		return len(lists), err
	}
	builtIn, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if asked, err := load("-blocklist", good, "-blocklist", "../../blocklist/further.kvf"); err != nil || asked != builtIn+2 {
		t.Errorf("two lists: %d lists, %v", asked, err)
	}
	for _, args := range [][]string{{"-blocklist", damaged}, {"-blocklist", damaged, "-blocklist", good}} {
		if _, err := load(args...); err == nil || !strings.Contains(err.Error(), "damaged.kvf: damaged") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
