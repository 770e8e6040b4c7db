package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
)

// TestDisk goes through all that a Disk does, on the machine's file system.
func TestDisk(t *testing.T) {
	var d durable.Disk
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, d.Dir(at("a/b"), 0o700))
	must(t, d.WriteFile(at("a/b/file"), []byte("text"), 0o600))
	must(t, d.Symlink("file", at("a/b/link")))
	if target, err := d.Readlink(at("a/b/link")); err != nil || target != "file" {
		t.Errorf("the link points to %q, %v", target, err)
	}
	if info, err := d.Lstat(at("a/b/link")); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is %v, %v", info, err)
	}
	if b, err := d.ReadFile(at("a/b/link"), 4); err != nil || string(b) != "text" {
		t.Errorf("through the link: %q, %v", b, err)
	}
	if _, err := d.ReadFile(at("a/b/file"), 3); err == nil {
		t.Error("a file that is too long was read")
	}
	must(t, d.Dir(at("c"), 0o700))
	must(t, d.Rename(at("a/b"), at("c/d")))
	must(t, d.Dir(at("c/d/inner"), 0o700))
	if entries, err := d.ReadDir(at("c/d")); err != nil || len(entries) != 3 {
		t.Errorf("there are %v, %v", entries, err)
	}
	must(t, d.RemoveDir(at("c")))
	must(t, d.RemoveDir(at("c")))
	if _, err := os.Lstat(at("c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("c is there: %v", err)
	}
}

// Every error names what is not there, and can be told apart.
func TestDiskErrors(t *testing.T) {
	var d durable.Disk
	root := t.TempDir()
	no := filepath.Join(root, "no", "file")
	must(t, d.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for name, err := range map[string]error{
		"ReadFile": second(d.ReadFile(no, 1)), "ReadDir": second(d.ReadDir(no)), "Lstat": second(d.Lstat(no)),
		"Readlink": second(d.Readlink(no)), "WriteFile": d.WriteFile(no, nil, 0o600), "Rename": d.Rename(no, no+"2"),
		"Symlink": d.Symlink("x", no),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	inFile := filepath.Join(root, "file", "below")
	if err := d.Dir(inFile, 0o700); err == nil {
		t.Error("a directory in a file")
	}
	if err := d.RemoveDir(filepath.Join(root, "file")); err == nil {
		t.Error("a file was removed as a directory")
	}
	if err := d.Remove(root); err == nil {
		t.Error("a directory with a file in it was removed")
	}
}

// A change that cannot be synced is an error: a power cut may take it back.
func TestUnsynced(t *testing.T) {
	disk := durabletest.New()
	good := durable.Disk{FS: disk}
	must(t, good.Dir("/dir", 0o700))
	for _, name := range []string{"/dir/a", "/dir/b", "/dir/c"} {
		must(t, good.WriteFile(name, nil, 0o600))
	}
	must(t, good.Dir("/other", 0o700))
	d := durable.Disk{FS: broken{disk, "Sync"}}
	for name, err := range map[string]error{
		"WriteFile": d.WriteFile("/dir/x", nil, 0o600), "Remove": d.Remove("/dir/a"), "Rename": d.Rename("/dir/b", "/other/b"),
		"Symlink": d.Symlink("c", "/dir/link"), "Dir": d.Dir("/dir/new", 0o700), "RemoveDir": d.RemoveDir("/dir/new"),
	} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.FS = broken{disk, "Remove"}
	must(t, disk.Create("/dir/.keyvet-tmp-1", nil, 0o600))
	for name, err := range map[string]error{"Dir": d.Dir("/dir", 0o700), "RemoveDir": d.RemoveDir("/dir"), "Remove": d.Remove("/dir/c")} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s of what cannot be removed: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
