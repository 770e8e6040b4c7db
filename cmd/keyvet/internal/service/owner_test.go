package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

func TestReadAccount(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("passwd", `# accounts
root:x:0:0:root:/root:/bin/sh
short:x:996
keyvet:x:996:995:keyvet:/var/lib/keyvet:/usr/sbin/nologin
again:x:996:1:the same number:/:/bin/sh
:x:997:1:no name:/:/bin/sh
odd:x:-5:1::/:/bin/sh
word:x:many:1::/:/bin/sh
`)
	write("group", `root:x:0:
tss:x:111:tss,keyvet
keyvet:x:995:keyvet
keyvetish:x:112:keyvetish,notkeyvet
bad:x:many:keyvet
spi:x:113:keyvet
more:fields:x:114:keyvet
`)
	a, err := readAccount(dir, 996)
	if err != nil || a.name != "keyvet" || a.gid != 995 || !slices.Equal(a.groups, []int{995, 111, 113}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, uid := range []int{997, 5, -5, -1, 12345} {
		if a, err := readAccount(dir, uid); err == nil || a.name != "" || a.groups != nil {
			t.Errorf("%d: %+v, %v", uid, a, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "group")); err != nil {
		t.Fatal(err)
	}
	if a, err := readAccount(dir, 996); err != nil || !slices.Equal(a.groups, []int{995}) {
		t.Errorf("without group: %+v, %v", a, err)
	}
	write("group", strings.Repeat("x", maxAccountBytes+1))
	if _, err := readAccount(dir, 996); err == nil {
		t.Error("a group file without end was taken")
	}
	if _, err := readAccount(t.TempDir(), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without passwd: %v", err)
	}
}

func FuzzReadAccount(f *testing.F) {
	f.Add("keyvet:x:1:2:::", "tss:x:3:keyvet")
	f.Add("a:b:c:d:e:f:g\n\x00", ":::")
	f.Fuzz(func(t *testing.T, passwd, group string) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd), 0o600)
		os.WriteFile(filepath.Join(dir, "group"), []byte(group), 0o600)
		a, err := readAccount(dir, 1)
		if err == nil && (a.name == "" || a.uid != 1 || len(a.groups) == 0 || a.groups[0] != a.gid) {
			t.Errorf("%+v", a)
		}
	})
}

// What needs no quotes is shown as it was typed.
func TestInstead(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "; run: `su -s /bin/sh -c 'keyvet rotate' root`"},
		{[]string{"-config", "/etc/keyvet/other.toml"}, "; run: `su -s /bin/sh -c 'keyvet rotate -config /etc/keyvet/other.toml' root`"},
		{[]string{"-config", "it's mine"}, "; run: `su -s /bin/sh -c 'keyvet rotate …' root`"},
		{[]string{""}, "; run: `su -s /bin/sh -c 'keyvet rotate …' root`"},
	} {
		if got := instead(0, append([]string{"keyvet", "rotate"}, tt.args...)); got != tt.want {
			t.Errorf("%q: %s", tt.args, got)
		}
	}
	if got := instead(1<<30, []string{"keyvet", "run"}); got != "" {
		t.Errorf("a user without a name: %s", got)
	}
}

// unprivileged runs f as a user that is not root: the thread is given up after it.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody)
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

const nobody = 65534

// Directories that belong to somebody else, or that others can write, are
// refused; the message says what to do.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for the user that is not root
		must(t, os.Chmod(d, 0o755))
	}
	file := write(t, filepath.Join(dir, "file"), nil)
	made := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		must(t, os.Mkdir(path, 0o700))
		must(t, os.Chmod(path, mode))
		if os.Geteuid() == 0 {
			must(t, os.Chown(path, nobody, nobody))
		}
		return path
	}
	own, open, none := made("own", 0o700), made("open", 0o777), filepath.Join(dir, "none")
	for _, tt := range []struct{ name, state, run, want string }{
		{"nothing there", none, none, ""},
		{"its own", own, own, ""},
		{"state that everybody writes", open, none, "state_dir " + open + " can be written by every user (mode 0777): `chmod o-w " + open + "`"},
		{"run_dir that everybody writes", own, open, "run_dir " + open + " can be written by every user"},
		{"state is a file", file, none, "is no directory"},
		{"state below a file", filepath.Join(file, "x"), none, "not a directory"},
		{"run_dir is a file", own, file, "is no directory"},
		{"run_dir below a file", own, filepath.Join(file, "x"), "not a directory"},
		{"root's state", "/etc", none, "state_dir /etc belongs to user root, and this is "},
		{"root's run_dir", own, "/etc", "run_dir /etc cannot be written by "},
	} {
		c := *config.Default()
		c.StateDir, c.RunDir = tt.state, tt.run
		unprivileged(t, func() {
			err := Own(c, func(line string) { t.Errorf("%s: it says %s", tt.name, line) }, "keyvet", "run")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			if tt.name == "root's state" && !strings.Contains(err.Error(), "; run: `su -s /bin/sh -c 'keyvet run' root`") {
				t.Errorf("%v", err)
			}
		})
	}
	if os.Geteuid() != 0 { // the rest takes somebody who could become another
		return
	}
	nameless := filepath.Join(dir, "nameless")
	must(t, os.Mkdir(nameless, 0o700))
	must(t, os.Chown(nameless, 54321, 54321))
	c := *config.Default()
	c.StateDir, c.RunDir = nameless, none
	if err := Own(c, func(string) {}, "keyvet", "run"); err == nil || !strings.Contains(err.Error(), "belongs to the user with the number 54321, which this process cannot become: no user in /etc/passwd") {
		t.Errorf("%v", err)
	}
	c.StateDir, c.RunDir = filepath.Join(dir, "rootless"), own
	if err := Own(c, func(string) {}, "keyvet", "run"); err == nil || !strings.Contains(err.Error(), "run_dir "+own+" belongs to user nobody, and keyvet is run by user root: `chown 0 "+own+"`") {
		t.Errorf("%v", err)
	}
}
