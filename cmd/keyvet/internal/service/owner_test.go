package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		{nil, "; run: su -s /bin/sh -c 'keyvet rotate' root"},
		{[]string{"-config", "/etc/keyvet/other.toml"}, "; run: su -s /bin/sh -c 'keyvet rotate -config /etc/keyvet/other.toml' root"},
		{[]string{"-config", "it's mine"}, "; run: su -s /bin/sh -c 'keyvet rotate …' root"},
		{[]string{""}, "; run: su -s /bin/sh -c 'keyvet rotate …' root"},
	} {
		if got := instead(0, append([]string{"keyvet", "rotate"}, tt.args...)); got != tt.want {
			t.Errorf("%q: %s", tt.args, got)
		}
	}
	if got := instead(1<<30, []string{"keyvet", "run"}); got != "" {
		t.Errorf("a user without a name: %s", got)
	}
}
