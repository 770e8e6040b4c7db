package durabletest_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
)

// TestContract holds the machine's file system and the one in memory to the
// same answers.
func TestContract(t *testing.T) {
	for name, disk := range map[string]durable.FS{"OS": durable.OS{}, "memory": durabletest.New()} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if name == "memory" {
				root = "/device"
				must(t, disk.Mkdir(root, 0o700))
			}
			at := func(name string) string { return filepath.Join(root, name) }
			must(t, disk.Create(at("file"), []byte("content"), 0o640))
			must(t, disk.Mkdir(at("dir"), 0o700))
			must(t, disk.Create(at("dir/inner"), []byte("inner"), 0o600))
			must(t, disk.Symlink("dir", at("link")))
			must(t, disk.Sync(at("file")))
			must(t, disk.Sync(root))

			for name, want := range map[string]string{"file": "content", "dir/inner": "inner", "link/inner": "inner"} {
				if b, err := disk.ReadFile(at(name), 7); string(b) != want {
					t.Errorf("%s: read %q: %v", name, b, err)
				}
			}
			if _, err := disk.ReadFile(at("file"), 6); err == nil {
				t.Error("a file over the bound was read")
			}
			if target, err := disk.Readlink(at("link")); target != "dir" {
				t.Errorf("link to %q: %v", target, err)
			}
			if info, err := disk.Lstat(at("link")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
				t.Errorf("lstat of a link: %v, %v", info, err)
			}
			if info, err := disk.Lstat(at("file")); err != nil || info.Mode() != 0o640 || info.Size() != 7 || info.Name() != "file" {
				t.Errorf("lstat of a file: %v, %v", info, err)
			}
			must(t, disk.Symlink("dir", at("other")))
			must(t, disk.Rename(at("other"), at("link"))) // over a link
			must(t, disk.Rename(at("dir"), at("dir2")))

			for _, tt := range []struct {
				name string
				err  error
				want error
			}{
				{"read nothing", second(disk.ReadFile(at("no"), 1)), fs.ErrNotExist},
				{"read a dangling link", second(disk.ReadFile(at("link/inner"), 9)), fs.ErrNotExist},
				{"list nothing", second(disk.ReadDir(at("no"))), fs.ErrNotExist},
				{"list a file", second(disk.ReadDir(at("file"))), syscall.ENOTDIR},
				{"lstat nothing", second(disk.Lstat(at("no"))), fs.ErrNotExist},
				{"no link", second(disk.Readlink(at("file"))), syscall.EINVAL},
				{"create over", disk.Create(at("file"), nil, 0o600), fs.ErrExist},
				{"create in nothing", disk.Create(at("no/file"), nil, 0o600), fs.ErrNotExist},
				{"make over", disk.Mkdir(at("dir2"), 0o700), fs.ErrExist},
				{"make in nothing", disk.Mkdir(at("no/dir"), 0o700), fs.ErrNotExist},
				{"make the root", disk.Mkdir("/", 0o700), fs.ErrExist},
				{"link over", disk.Symlink("x", at("link")), fs.ErrExist},
				{"rename nothing", disk.Rename(at("no"), at("no2")), fs.ErrNotExist},
				{"rename a directory to a link", disk.Rename(at("dir2"), at("link")), syscall.ENOTDIR},
				{"remove a full directory", disk.Remove(at("dir2")), syscall.ENOTEMPTY},
				{"remove nothing", disk.Remove(at("no")), fs.ErrNotExist},
				{"sync nothing", disk.Sync(at("no")), fs.ErrNotExist},
			} {
				if !errors.Is(tt.err, tt.want) {
					t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
				}
			}
			must(t, disk.Remove(at("dir2/inner")))
			must(t, disk.Remove(at("dir2")))
			must(t, disk.Remove(at("link")))
			entries, err := disk.ReadDir(root)
			if err != nil || len(entries) != 1 || entries[0].Name() != "file" || entries[0].Type() != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestCut shows what a cut leaves of a careless program and of a careful one.
func TestCut(t *testing.T) {
	outcomes := func(write func(*durabletest.Disk)) []string {
		disk := durabletest.New()
		must(t, durable.Disk{FS: disk}.WriteFile("/file", []byte("old!"), 0o600))
		write(disk)
		var all []string
		for _, left := range disk.Cut() {
			b, err := left.ReadFile("/file", 99)
			if err != nil {
				b = []byte("none")
			}
			if !slices.Contains(all, string(b)) {
				all = append(all, string(b))
			}
		}
		return all
	}
	careless := outcomes(func(d *durabletest.Disk) {
		must(t, d.Create("/new", []byte("new!"), 0o600))
		must(t, d.Rename("/new", "/file"))
	})
	if got := strings.Join(careless, ","); got != "new!,,ne,\x00\x00\x00\x00,old!" {
		t.Errorf("a careless write leaves %q", got)
	}
	careful := outcomes(func(d *durabletest.Disk) {
		must(t, durable.Disk{FS: d}.WriteFile("/file", []byte("new!"), 0o600))
	})
	if got := strings.Join(careful, ","); got != "new!" {
		t.Errorf("a durable write leaves %q", got)
	}
	removed := outcomes(func(d *durabletest.Disk) { must(t, d.Remove("/file")) })
	if got := strings.Join(removed, ","); got != "none,old!" {
		t.Errorf("a removal leaves %q", got)
	}
}

// TestDurable cuts at every point of what [durable.Disk] does.
func TestDurable(t *testing.T) {
	const old, replaced = "old", "replaced"
	points, cuts := 0, 0
	for cutAt := 1; ; cutAt++ {
		disk := durabletest.New()
		must(t, durable.Disk{FS: disk}.Dir("/a/b", 0o700))
		must(t, durable.Disk{FS: disk}.WriteFile("/a/b/file", []byte(old), 0o600))
		power := &durabletest.Power{CutAt: cutAt}
		d := durable.Disk{FS: power.FS(disk)}
		written := false
		wasCut := power.Run(func() {
			must(t, d.WriteFile("/a/b/file", []byte(replaced), 0o600))
			written = true
			must(t, d.Dir("/c/d", 0o700))
			must(t, d.Rename("/a/b", "/c/d/b"))
			must(t, d.Symlink("d", "/c/link"))
			must(t, d.Dir("/c/d/b/inner", 0o700))
			must(t, d.RemoveDir("/c/d/b"))
		})
		if !wasCut {
			points = power.Points()
			break
		}
		for _, left := range disk.Cut() {
			cuts++
			b, err := left.ReadFile("/a/b/file", 99)
			if errors.Is(err, fs.ErrNotExist) {
				b, err = left.ReadFile("/c/d/b/file", 99)
			}
			if errors.Is(err, fs.ErrNotExist) && written {
				continue // moved and removed
			}
			if err != nil || string(b) != replaced && (written || string(b) != old) {
				t.Errorf("cut at %d: %q, %v, of\n%s", cutAt, b, err, left)
			}
			must(t, durable.Disk{FS: left}.Dir("/a", 0o700))
			must(t, durable.Disk{FS: left}.Dir("/a/b", 0o700))
			if strings.Contains(left.String(), "keyvet-tmp") {
				t.Errorf("cut at %d: half-written files stay:\n%s", cutAt, left)
			}
		}
	}
	if points < 30 || cuts < points {
		t.Errorf("%d points and %d disks: the test looks in the wrong place", points, cuts)
	}
	t.Logf("%d points, %d disks", points, cuts)
}

func TestFull(t *testing.T) {
	disk := durabletest.New()
	disk.Limit = 10
	d := durable.Disk{FS: disk}
	must(t, d.WriteFile("/a", []byte("12345"), 0o600))
	if err := d.WriteFile("/a", []byte("123456"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("over the limit: %v", err)
	}
	if got := disk.String(); !strings.Contains(got, `/a "12345"`) || strings.Contains(got, "tmp") {
		t.Errorf("left:\n%s", got)
	}
}

// TestShadow leaves a real directory as the disk in memory is left.
func TestShadow(t *testing.T) {
	many := t.TempDir()
	for i := range 100 {
		must(t, durable.WriteFile(filepath.Join(many, strings.Repeat("x", i+1)), nil, 0o600))
	}
	shadow, err := durabletest.NewShadow(many)
	must(t, err)
	must(t, shadow.Leave(0))
	if entries, err := shadow.ReadDir(many); err != nil || len(entries) != 100 || strings.Count(shadow.String(), "\n") != 101 {
		t.Errorf("of 100 files, %d are left: %v", len(entries), err)
	}
	for n := range 12 {
		root, memory := t.TempDir(), durabletest.New()
		must(t, memory.Mkdir("/device", 0o700))
		must(t, memory.Sync("/"))
		must(t, durable.WriteFile(filepath.Join(root, "file"), []byte("old!"), 0o600))
		must(t, durable.Disk{FS: memory}.WriteFile("/device/file", []byte("old!"), 0o600))
		must(t, durable.Dir(filepath.Join(root, "dir"), 0o700))
		must(t, durable.Disk{FS: memory}.Dir("/device/dir", 0o700))
		shadow, err := durabletest.NewShadow(root)
		must(t, err)
		for _, disk := range []struct {
			durable.FS
			root string
		}{{shadow, root}, {memory, "/device"}} {
			at := func(name string) string { return filepath.Join(disk.root, name) }
			must(t, disk.Create(at("new"), []byte("new!"), 0o640))
			must(t, disk.Rename(at("new"), at("file")))
			must(t, disk.Symlink("file", at("link")))
			must(t, disk.Mkdir(at("more"), 0o700))
			must(t, disk.Sync(at("more")))
			must(t, disk.Remove(at("dir")))
		}
		must(t, durable.WriteFile(filepath.Join(root, "past"), []byte("past it"), 0o600))
		must(t, shadow.Leave(n*5))
		all := memory.Cut()
		left := all[n*5%len(all)]

		again, err := durabletest.NewShadow(root)
		must(t, err)
		must(t, left.Create("/device/past", []byte("past it"), 0o600))
		got, want := again.String(), strings.ReplaceAll(strings.Replace(left.String(), "drwx------ /device\n", "", 1), " /device/", " /")
		if got != want {
			t.Errorf("%d: left\n%swant\n%s", n, got, want)
		}
	}
	root := t.TempDir()
	shadow, err = durabletest.NewShadow(root)
	must(t, err)
	must(t, durable.WriteFile(filepath.Join(root, "past"), nil, 0o600))
	if shadow.Remove(filepath.Join(root, "past")) == nil {
		t.Error("what came past the shadow was not noticed")
	}
	must(t, shadow.Create(filepath.Join(t.TempDir(), "elsewhere"), nil, 0o600))
	must(t, shadow.Leave(0))
}
