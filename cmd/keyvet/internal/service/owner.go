package service

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/durable"
)

// account is a user as /etc/passwd and /etc/group have him.
type account struct {
	name   string
	uid    int
	gid    int
	groups []int // all of them, gid too
}

// etc is where accounts are looked up. The agent is static and asks no other
// source: a user of a directory service must be become by su.
const (
	etc             = "/etc"
	maxAccountBytes = 4 << 20 // of passwd, of group
)

// readAccount finds the user with a number in the files passwd and group of dir.
func readAccount(dir string, uid int) (account, error) {
	a := account{uid: -1}
	err := eachEntry(filepath.Join(dir, "passwd"), 7, func(f []string) {
		u, errU := strconv.ParseUint(f[2], 10, 31)
		g, errG := strconv.ParseUint(f[3], 10, 31)
		if a.uid < 0 && errU == nil && errG == nil && int(u) == uid && f[0] != "" {
			a = account{name: f[0], uid: uid, gid: int(g), groups: []int{int(g)}}
		}
	})
	if err != nil {
		return account{}, err
	}
	if a.uid < 0 {
		return account{}, fmt.Errorf("no user in %s has the number %d", filepath.Join(dir, "passwd"), uid)
	}
	err = eachEntry(filepath.Join(dir, "group"), 4, func(f []string) {
		g, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil && slices.Contains(strings.Split(f[3], ","), a.name) && !slices.Contains(a.groups, int(g)) {
			a.groups = append(a.groups, int(g))
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return a, err
}

// eachEntry reads a file of lines with so many fields; others are passed over,
// as the C library does.
func eachEntry(name string, fields int, visit func([]string)) error {
	b, err := durable.ReadBounded(name, maxAccountBytes)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxAccountBytes+1)
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) == fields {
			visit(f)
		}
	}
	return lines.Err()
}

// user names a user by what passwd says, for messages.
func user(uid int) string {
	if a, err := readAccount(etc, uid); err == nil {
		return "user " + a.name
	}
	return fmt.Sprintf("the user with the number %d", uid)
}

// Own prepares the process for writing state. A process of root becomes the
// state directory's user: it would leave files there that the service cannot
// read. Directories in which others could put a key or a mark are refused. words
// are the command line, for the message that says how to run it instead; say gets
// what people should know besides.
func Own(cfg config.Config, say func(string), words ...string) error {
	state, err := os.Stat(cfg.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		state = nil // it will be made, by this user
	} else if err != nil {
		return err
	}
	me := os.Geteuid()
	if state != nil {
		if err := closedToOthers("state_dir", cfg.StateDir, state); err != nil {
			return err
		}
		switch owner := ownerOf(state); {
		case owner == me:
		case me != 0:
			return fmt.Errorf("state_dir %s belongs to %s, and this is %s%s", cfg.StateDir, user(owner), user(me), instead(owner, words))
		default:
			if err := become(cfg, owner, say); err != nil {
				return fmt.Errorf("state_dir %s belongs to %s, which this process cannot become: %w%s", cfg.StateDir, user(owner), err, instead(owner, words))
			}
			me = owner
		}
	}
	run, err := os.Stat(cfg.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := closedToOthers("run_dir", cfg.RunDir, run); err != nil {
		return err
	}
	// Whoever owns it can say that the gate is open.
	if owner := ownerOf(run); owner != me && owner != 0 {
		return fmt.Errorf("run_dir %s belongs to %s, and keyvet is run by %s: `chown %d %s`", cfg.RunDir, user(owner), user(me), me, cfg.RunDir)
	}
	if err := syscall.Access(cfg.RunDir, accessWrite); err == syscall.EACCES {
		return fmt.Errorf("run_dir %s cannot be written by %s: `chown %d %s`", cfg.RunDir, user(me), me, cfg.RunDir)
	}
	return nil
}

// The modes of access(2).
const (
	accessWrite     = 2
	accessReadWrite = 6
)

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func closedToOthers(what, path string, info fs.FileInfo) error {
	if !info.IsDir() {
		return fmt.Errorf("%s %s is no directory", what, path)
	}
	if mode := info.Mode().Perm(); mode&0o002 != 0 {
		return fmt.Errorf("%s %s can be written by every user (mode %04o): `chmod o-w %s`", what, path, mode, path)
	}
	return nil
}

// become makes this process, all of its threads, that of the user. The mark's
// directory is made before, where only root may.
func become(cfg config.Config, uid int, say func(string)) error {
	a, err := readAccount(etc, uid)
	if err != nil {
		return err
	}
	made := os.Mkdir(cfg.RunDir, 0o755) == nil
	if made {
		if err := os.Chown(cfg.RunDir, a.uid, a.gid); err != nil {
			return err
		}
	}
	if err := a.become(); err != nil {
		return err
	}
	say(fmt.Sprintf("goes on as user %s, to whom %s belongs", a.name, cfg.StateDir))
	if path := cfg.TPM.Address; strings.HasPrefix(path, "/") {
		if err := syscall.Access(path, accessReadWrite); err == syscall.EACCES {
			say(fmt.Sprintf("%s cannot be used by user %s: add that user to the device's group", path, a.name))
		}
	}
	return nil
}

// become is for good: real, effective and saved numbers are the account's, in
// every thread.
func (a account) become() error {
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	if syscall.Setuid(0) == nil {
		return errors.New("setuid: the process could become root again")
	}
	return nil
}

// quoted reports whether the word needs quotes in a shell.
func quoted(word string) bool {
	return word == "" || strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,@%+-", r)
	})
}

// instead is the command that runs keyvet as the user, by a su that BusyBox has,
// too; "" for a user who has no name.
func instead(uid int, words []string) string {
	a, err := readAccount(etc, uid)
	if err != nil {
		return ""
	}
	if slices.ContainsFunc(words, quoted) {
		words = append(slices.Clone(words[:2]), "…")
	}
	return fmt.Sprintf("; run: `su -s /bin/sh -c '%s' %s`", strings.Join(words, " "), a.name)
}
