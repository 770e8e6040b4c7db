package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, content := range []string{"one", "two, longer", ""} {
		if err := durable.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("read %q, want %q", got, content)
		}
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", fi.Mode())
	}
	if err := durable.WriteFile(filepath.Join(dir, "no", "x"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("files left behind: %v", left)
	}
	if err := durable.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := durable.Remove(path); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestDirRemovesTornFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.Dir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
	torn, other := filepath.Join(dir, ".keyvet-tmp-123"), filepath.Join(dir, "other")
	os.WriteFile(torn, []byte("half"), 0o600)
	os.WriteFile(other, []byte("whole"), 0o600)
	if err := durable.Dir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the torn file is still there: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

const block = 4 << 10 // what a file counts for at least

func removeID(t *testing.T, s *durable.Spool, id string) {
	t.Helper()
	entries, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.ID == id {
			if err := s.Remove(e); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func ids(t *testing.T, s *durable.Spool) string {
	t.Helper()
	entries, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.ID)
	}
	return strings.Join(all, " ")
}

func TestSpool(t *testing.T) {
	s := &durable.Spool{Dir: filepath.Join(t.TempDir(), "spool"), MaxBytes: 10 * block}
	if got := ids(t, s); got != "" {
		t.Fatalf("a new spool holds %q", got)
	}
	put := func(id, fault string, size int) {
		t.Helper()
		if err := s.Put(id, fault, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "", 4*block)
	put("b", "weak", 4*block)
	put("a", "", 4*block) // once is enough
	if got := ids(t, s); got != "a b" {
		t.Errorf("spool holds %q, want a b", got)
	}
	put("c-with-dashes", "", 3*block+1)
	if got := ids(t, s); got != "b c-with-dashes" {
		t.Errorf("over the bound it holds %q: the oldest passing report goes first", got)
	}
	put("d", "revoked", 9*block)
	if got := ids(t, s); got != "d" {
		t.Errorf("it holds %q: the bound is that of failing reports, too", got)
	}
	entries, _ := s.List()
	if b, err := s.Read(entries[0]); err != nil || len(b) != 9*block {
		t.Errorf("read %d bytes: %v", len(b), err)
	}
	if err := s.Remove(entries[0]); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s); got != "" {
		t.Errorf("after removing d it holds %q", got)
	}
	for id, size := range map[string]int{"../evil": 0, "": 0, "huge": 1<<20 + 1} {
		if err := s.Put(id, "weak", make([]byte, size)); err == nil {
			t.Errorf("%d bytes under the id %q were taken", size, id)
		}
	}
}

// Files that are small count as blocks, so that there are never many.
func TestSpoolCount(t *testing.T) {
	s := &durable.Spool{Dir: filepath.Join(t.TempDir(), "spool"), MaxBytes: 8 * block}
	for i := range 30 {
		if err := s.Put(fmt.Sprint(i), map[int]string{3: "weak"}[i], []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(t, s); got != "3 23 24 25 26 27 28 29" {
		t.Errorf("it holds %q", got)
	}
}

// A clock that is set back makes no old entry of the newest.
func TestSpoolClock(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "04102444800000000000-drop-2100.json"), []byte("{}"), 0o600)
	os.WriteFile(filepath.Join(dir, "notes-on-it.json"), []byte("somebody's"), 0o600)
	s := &durable.Spool{Dir: dir, MaxBytes: 2 * block}
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		for _, id := range []string{"a", "b"} {
			if err := s.Put(id, "", []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got := ids(t, s); got != "a b" {
		t.Errorf("it holds %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes-on-it.json")); err != nil {
		t.Error(err)
	}
}

// What is not the fault of a full disk drops nothing.
func TestSpoolUnwritable(t *testing.T) {
	s := &durable.Spool{Dir: filepath.Join(t.TempDir(), "spool")}
	if err := s.Put("a", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(strings.Repeat("x", 300), "weak", nil); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("a name that is too long: %v", err)
	}
	if got := ids(t, s); got != "a" {
		t.Errorf("it holds %q", got)
	}
}

// TestFullDisk keeps a spool on a disk of 64 KiB.
func TestFullDisk(t *testing.T) {
	full := durabletest.New()
	full.Limit = 64 << 10
	disk := durable.Disk{FS: full}
	s := &durable.Spool{Disk: disk, Dir: "/spool"}
	big := bytes.Repeat([]byte("x"), 24<<10)
	for _, id := range []string{"pass1", "pass2"} {
		if err := s.Put(id, "", big); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("pass3", "", big); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a passing report on a full disk: %v", err)
	}
	if got := ids(t, s); got != "pass1 pass2" {
		t.Errorf("the spool holds %q: what was there must stay", got)
	}
	if err := s.Put("fail", "weak", big); err != nil {
		t.Errorf("a failing report must find room: %v", err)
	}
	if got := ids(t, s); got != "pass2 fail" {
		t.Errorf("the spool holds %q", got)
	}
	for i := range 100 {
		if err := s.Put(fmt.Sprintf("small%d", i), fmt.Sprint(i), big[:4<<10]); err != nil {
			break
		}
	}
	if got := ids(t, s); !strings.HasPrefix(got, "fail small0") || strings.Contains(got, "small99") {
		t.Errorf("the spool holds %q: failing ones push out passing ones, never each other", got)
	}
	for _, id := range strings.Fields(ids(t, s))[1:] {
		removeID(t, s, id)
	}
	const state = "/state"
	if err := disk.WriteFile(state, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(state, bytes.Repeat(big, 3), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write past the end of the disk: %v", err)
	}
	if got, _ := disk.ReadFile(state, 1<<10); string(got) != "old" {
		t.Errorf("the old content is gone: %q", got)
	}
}
