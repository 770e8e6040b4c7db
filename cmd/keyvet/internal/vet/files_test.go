package vet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
)

func noTPM() config.Config {
	cfg := *config.Default()
	cfg.TPM.Address = ""
	return cfg
}

// TestDirectory searches a directory with everything in it that is no key.
func TestDirectory(t *testing.T) {
	c := newCA(t)
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "a", "b", "ca.pem"), c.pem)
	write(t, filepath.Join(dir, "notes.txt"), []byte("nothing\n"))
	write(t, filepath.Join(dir, ".hidden", "empty"), nil)
	write(t, filepath.Join(dir, "cut.pem"), c.pem[:len(c.pem)/2])
	write(t, filepath.Join(dir, "large.txt"), []byte(strings.Repeat("nothing\n", 200_000)))
	write(t, filepath.Join(outside, "secret.pem"), c.pem)
	must(t, os.Symlink(filepath.Join(outside, "secret.pem"), filepath.Join(dir, "leaves.pem")))
	must(t, os.Symlink(outside, filepath.Join(dir, "leaves")))
	must(t, os.Symlink(".", filepath.Join(dir, "round")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangles")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	named := filepath.Join(outside, "link")
	must(t, os.Symlink(dir, named))

	for _, name := range []string{dir, dir + "/", named} {
		r := (&Check{Config: noTPM(), Files: []string{name}}).Report(t.Context(), device.TriggerManual)
		want := device.Searched{Dir: name, Files: 5, Keyed: 2, Large: 1, Links: 4, Last: 1}
		if len(r.Searched) != 1 || r.Searched[0] != want {
			t.Errorf("%s: searched %+v, want %+v", name, r.Searched, want)
		}
		if at := filepath.Join(name, "a/b/ca.pem"); len(r.Keys) != 1 || r.Keys[0].ID != at || r.Keys[0].Status != device.Pass && r.Keys[0].Status != device.Warn {
			t.Errorf("%s: keys %+v", name, r.Keys)
		}
		if len(r.Gaps) != 1 || gapOn(r, "cut.pem") == nil || r.Verdict() != device.Undecided {
			t.Errorf("%s: gaps %v", name, r.Gaps)
		}
		for _, f := range r.Findings {
			if f.Status == device.Pass {
				t.Fatalf("%s: kept what passed: %+v", name, f)
			}
		}
	}
	t.Chdir(filepath.Join(dir, ".hidden"))
	r := (&Check{Config: noTPM(), Files: []string{".", ".."}, Verbose: true}).Report(t.Context(), device.TriggerManual)
	if len(r.Searched) != 2 || r.Searched[0].Files != 1 || r.Searched[1].Keyed != 2 || len(r.Keys) != 1 || r.Keys[0].ID != "../a/b/ca.pem" {
		t.Errorf("searched %+v, keys %+v", r.Searched, r.Keys)
	}
	if !slices.ContainsFunc(r.Findings, func(f device.Finding) bool { return f.Status == device.Pass }) {
		t.Error("what passed was not kept")
	}
	r = (&Check{Config: noTPM(), Files: []string{"."}}).Report(t.Context(), device.TriggerManual)
	if r.Verdict() != device.Undecided {
		t.Errorf("a directory without a key is %v", r.Verdict())
	}
}

// Directories that cannot be read are gaps.
func TestUnreadableDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), newCA(t).pem)
	must(t, os.Mkdir(filepath.Join(dir, "shut"), 0))
	if os.Geteuid() != 0 { // root may read it all the same
		r := (&Check{Config: noTPM(), Files: []string{dir}}).Report(t.Context(), device.TriggerManual)
		if g := gapOn(r, "shut"); g == nil || g.Why != "permission denied" || len(r.Keys) != 1 {
			t.Errorf("gaps %v", r.Gaps)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r := (&Check{Config: noTPM(), Files: []string{dir}}).Report(ended, device.TriggerManual)
	if gapOn(r, dir) == nil || r.Verdict() != device.Undecided {
		t.Errorf("a search that was interrupted: gaps %v", r.Gaps)
	}
	r = (&Check{Config: noTPM(), Files: []string{"/proc"}}).Report(t.Context(), device.TriggerManual)
	if len(r.Searched) != 1 || r.Searched[0].Files != 0 {
		t.Errorf("searched the kernel's files: %+v", r.Searched)
	}
}

// check.files may name directories, and a pattern has to fit something.
func TestConfiguredFiles(t *testing.T) {
	c := newCA(t)
	cfg := configOn(t, c, "", nil)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keys", "ca.pem"), c.pem)
	write(t, filepath.Join(dir, "keys", "README"), []byte("nothing\n"))
	write(t, filepath.Join(dir, "one.pem"), c.pem)
	cfg.Check.Files = []string{filepath.Join(dir, "*"), filepath.Join(dir, "nothinghere", "*.pem"), filepath.Join(dir, "none")}
	r := (&Check{Config: cfg}).Report(t.Context(), device.TriggerManual)
	for _, name := range []string{"keys/ca.pem", "one.pem"} {
		if keyOf(r, filepath.Join(dir, name)) == nil {
			t.Errorf("no key %s: %+v", name, r.Keys)
		}
	}
	if g := gapOn(r, "nothinghere"); g == nil || g.Minor || g.Why != "no file fits" {
		t.Errorf("a pattern that fits nothing: %v", r.Gaps)
	}
	if gapOn(r, "none") == nil || gapOn(r, "README") != nil {
		t.Errorf("gaps %v", r.Gaps)
	}
}

// Many files of a command line are tested as those of a directory are.
func TestManyFiles(t *testing.T) {
	c := newCA(t)
	dir := t.TempDir()
	var names []string
	for i := range maxWhole + 2 {
		names = append(names, write(t, filepath.Join(dir, fmt.Sprint(i)), c.pem))
	}
	names = append(names, names[0], filepath.Join(dir, "none"))
	r := (&Check{Config: noTPM(), Files: names, Only: []string{"size"}}).Report(t.Context(), device.TriggerManual)
	if len(r.Keys) != maxWhole+3 || r.Keys[len(r.Keys)-1].ID != names[0]+" (2)" || len(r.Searched) != 0 || gapOn(r, "none") == nil {
		t.Errorf("%d keys, gaps %v", len(r.Keys), r.Gaps)
	}
}
