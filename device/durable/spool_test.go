package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
)

func memorySpool() (*durable.Spool, *durabletest.Disk) {
	disk := durabletest.New()
	return &durable.Spool{Dir: "/spool", Disk: durable.Disk{FS: disk}}, disk
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Of each fault the first report and the last are kept, however many there are:
// a device that fails and restarts for ever does not fill its disk.
func TestSpoolFolds(t *testing.T) {
	s, disk := memorySpool()
	big := make([]byte, 128<<10)
	for i := range 1000 {
		fault := "roca"
		if i%3 == 1 {
			fault = "expired"
		}
		must(t, s.Put(fmt.Sprint(i), fault, big))
		if size := disk.Size(); size > 4*len(big) {
			t.Fatalf("%d bytes after %d reports", size, i+1)
		}
	}
	if got := ids(t, s); got != "0 1 997 999" {
		t.Errorf("it holds %q", got)
	}
	// 667 reports on ROCA and 333 on a certificate that expired: what is not there is counted.
	entries, err := s.List()
	must(t, err)
	for i, want := range []int{0, 0, 331, 665} {
		if got := entries[i].Folded; got != want {
			t.Errorf("%s stands for %d more, want %d", entries[i].ID, got, want)
		}
	}
	must(t, s.Put("999", "roca", big)) // once is enough
	if got := ids(t, s); got != "0 1 997 999" {
		t.Errorf("it holds %q", got)
	}
}

// Faults that are all different are bounded in number, and in bytes.
func TestSpoolOfManyFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes int64
		kept  int
		size  int
		want  string
	}{
		{"number", 0, 3, 1, "pass 27 28 29"},
		{"bytes", 2 * block, 0, 1, "28 29"},
		{"neither", 0, 0, 1, "pass 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29"},
		{"less room than one takes", block, 0, 2 * block, "29"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := memorySpool()
			s.MaxBytes, s.MaxKept = tt.bytes, tt.kept
			must(t, s.Put("pass", "", []byte("{}")))
			for i := range 30 {
				must(t, s.Put(fmt.Sprint(i), fmt.Sprint("fault ", i), make([]byte, tt.size)))
			}
			if got := ids(t, s); got != tt.want {
				t.Errorf("it holds %q, want %q", got, tt.want)
			}
		})
	}
	s, _ := memorySpool()
	for i := range 1000 {
		must(t, s.Put(fmt.Sprint(i), fmt.Sprint(i), []byte("{}")))
	}
	if n := len(strings.Fields(ids(t, s))); n != 64 {
		t.Errorf("%d failing reports", n)
	}
}

// Where there is no room for all, a repeat goes before a first.
func TestSpoolDropsRepeatsFirst(t *testing.T) {
	s, _ := memorySpool()
	s.MaxBytes = 3 * block
	for _, e := range []struct{ id, fault string }{{"1", "roca"}, {"2", "roca"}, {"3", "expired"}, {"4", "revoked"}, {"5", "revoked"}} {
		must(t, s.Put(e.id, e.fault, []byte("{}")))
	}
	if got := ids(t, s); got != "3 4 5" { // 2 for 4, and 1 for 5, which has just come
		t.Errorf("it holds %q", got)
	}
}

// What an earlier version kept, one file for each start, goes as there is need.
func TestSpoolOfAnEarlierVersion(t *testing.T) {
	s, disk := memorySpool()
	must(t, s.Disk.Dir(s.Dir, 0o700))
	for i := range 200 {
		must(t, disk.Create(fmt.Sprintf("/spool/%020d-keep-old-%d.json", i, i), []byte("{}"), 0o600))
		must(t, disk.Sync("/spool"))
	}
	must(t, s.Put("new", "roca", []byte("{}")))
	got := strings.Fields(ids(t, s))
	if len(got) != 64 || got[0] != "old-137" || got[63] != "new" {
		t.Errorf("it holds %v", got)
	}
}

func TestSpoolOnAFullDisk(t *testing.T) {
	s, disk := memorySpool()
	disk.Limit = 10
	put := func(id, fault string, size int, want error, holds string) {
		t.Helper()
		if err := s.Put(id, fault, make([]byte, size)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
		if got := ids(t, s); got != holds {
			t.Errorf("after %s it holds %q, want %q", id, got, holds)
		}
		if disk.Size() > disk.Limit {
			t.Errorf("after %s there are %d bytes", id, disk.Size())
		}
	}
	put("p1", "", 4, nil, "p1")
	put("p2", "", 4, nil, "p1 p2")
	put("p3", "", 4, syscall.ENOSPC, "p1 p2") // one that passes pushes out nothing
	put("r1", "roca", 4, nil, "p2 r1")        // one that fails pushes out one that passes
	put("r2", "roca", 4, nil, "r1 r2")
	put("r3", "roca", 4, nil, "r1 r3") // and the one that it takes the place of
	put("e1", "expired", 4, syscall.ENOSPC, "r1 r3")
	put("r4", "roca", 7, syscall.ENOSPC, "r1")
	put("e2", "expired", 4, nil, "r1 e2")
	for range 100 { // a restart loop on a full disk
		s.Put("again", "revoked", make([]byte, 9))
	}
	put("p4", "", 9, syscall.ENOSPC, "r1 e2")
}

// Power that is cut at any point of a Put costs no report that was there, but
// those that it drops, and leaves a spool that can be used.
func TestSpoolCut(t *testing.T) {
	prepare := func() (*durable.Spool, *durabletest.Disk) {
		s, disk := memorySpool()
		s.MaxBytes = 4 * block
		for _, e := range []struct{ id, fault string }{{"p", ""}, {"r1", "roca"}, {"r2", "roca"}, {"e", "expired"}} {
			must(t, s.Put(e.id, e.fault, []byte(e.id)))
		}
		return s, disk
	}
	points, cuts := 0, 0
	for cutAt := 1; ; cutAt++ {
		s, disk := prepare()
		power := &durabletest.Power{CutAt: cutAt}
		s.Disk.FS = power.FS(disk)
		wasCut := power.Run(func() { must(t, s.Put("r3", "roca", []byte("r3"))) })
		if !wasCut {
			points = power.Points()
			if got := ids(t, s); got != "p r1 e r3" {
				t.Errorf("without a cut it holds %q", got)
			}
			break
		}
		for _, left := range disk.Cut() {
			cuts++
			s := &durable.Spool{Dir: "/spool", MaxBytes: 4 * block, Disk: durable.Disk{FS: left}}
			got := strings.Fields(ids(t, s))
			for _, id := range []string{"p", "r1", "e"} {
				if !slices.Contains(got, id) {
					t.Errorf("cut at %d: %s is lost: %v", cutAt, id, got)
				}
			}
			if !slices.Contains(got, "r2") && !slices.Contains(got, "r3") {
				t.Errorf("cut at %d: the last report on the fault is lost: %v", cutAt, got)
			}
			entries, err := s.List()
			must(t, err)
			for _, e := range entries {
				if b, err := s.Read(e); err != nil || string(b) != e.ID {
					t.Errorf("cut at %d: %s holds %q, %v", cutAt, e.ID, b, err)
				}
			}
			must(t, s.Put("r4", "roca", []byte("r4")))
			if got := ids(t, s); got != "p r1 e r4" {
				t.Errorf("cut at %d, then another: it holds %q", cutAt, got)
			}
			if strings.Contains(left.String(), "keyvet-tmp") {
				t.Errorf("cut at %d: half-written files stay:\n%s", cutAt, left)
			}
		}
	}
	if points < 10 || cuts < points {
		t.Errorf("%d points and %d disks: the test looks in the wrong place", points, cuts)
	}
}

// broken is a file system of which one operation fails.
type broken struct {
	durable.FS
	op string
}

var errBroken = errors.New("broken")

func (b broken) ReadDir(name string) ([]fs.DirEntry, error) {
	if b.op == "ReadDir" {
		return nil, errBroken
	}
	return b.FS.ReadDir(name)
}

func (b broken) ReadFile(name string, most int64) ([]byte, error) {
	if b.op == "ReadFile" {
		return nil, errBroken
	}
	return b.FS.ReadFile(name, most)
}

func (b broken) Remove(name string) error {
	if b.op == "Remove" {
		return errBroken
	}
	return b.FS.Remove(name)
}

func (b broken) Sync(name string) error {
	if b.op == "Sync" {
		return errBroken
	}
	return b.FS.Sync(name)
}

// TestSpoolErrors has each error come through, and drops nothing for it.
func TestSpoolErrors(t *testing.T) {
	s, disk := memorySpool()
	for _, id := range []string{"r1", "r2"} {
		must(t, s.Put(id, "roca", []byte("{}")))
	}
	entries, err := s.List()
	must(t, err)
	for op, try := range map[string]func() error{
		"ReadDir":  func() error { _, err := s.List(); return err },
		"ReadFile": func() error { _, err := s.Read(entries[0]); return err },
		"Remove":   func() error { return s.Remove(entries[0]) },
		"Sync":     func() error { return s.Put("x", "roca", nil) },
	} {
		s.Disk.FS = broken{disk, op}
		if err := try(); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", op, err)
		}
	}
	s.Disk.FS = broken{disk, "Remove"}
	if err := s.Put("r3", "roca", []byte("{}")); !errors.Is(err, errBroken) {
		t.Errorf("a repeat that cannot be dropped: %v", err)
	}
	s.Disk.FS = disk
	if got := ids(t, s); got != "r1 r2 r3" {
		t.Errorf("it holds %q", got)
	}
	huge := filepath.Join(t.TempDir(), "spool")
	real := &durable.Spool{Dir: huge}
	must(t, real.Put("a", "", []byte("{}")))
	files, err := os.ReadDir(huge)
	must(t, err)
	must(t, os.Truncate(filepath.Join(huge, files[0].Name()), 2<<20))
	entries, err = real.List()
	must(t, err)
	if _, err := real.Read(entries[0]); err == nil {
		t.Error("2 MiB were read")
	}
}
