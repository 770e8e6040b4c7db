package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// world is a place that every user can reach, with a configuration.
type ownedWorld struct{ dir, config, state, run string }

func newOwnedWorld(t *testing.T) ownedWorld {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyvet-owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := ownedWorld{dir: dir, config: filepath.Join(dir, "keyvet.toml"), state: filepath.Join(dir, "state"), run: filepath.Join(dir, "run")}
	tpm := filepath.Join(dir, "tpm")
	text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\nthing.name = \"gw\"\ntpm.address = %q\ntpm.wait = \"0s\"\nmqtt.endpoints = [\"127.0.0.1:1\"]\nrotate.template = \"t\"\n", w.state, w.run, tpm)
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(w.state, 0o700), os.WriteFile(w.config, []byte(text), 0o644), os.WriteFile(tpm, nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// as runs the real program as a user; the program is this test, whose own path
// others may not be able to reach.
func (w ownedWorld) as(t *testing.T, uid int, args ...string) (status int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = slices.Concat([]string{"keyvet"}, args, []string{"-config", w.config})
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stderr = &out
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if _, exited := errors.AsType[*exec.ExitError](cmd.Run()); !exited && cmd.ProcessState == nil {
		t.Fatalf("%v did not run", cmd.Args)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// owners are the numbers of all who own a file below the directories.
func owners(t *testing.T, dirs ...string) []int {
	t.Helper()
	var all []int
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err == nil && !slices.Contains(all, ownerOf(info)) {
				all = append(all, ownerOf(info))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Directories in which somebody else could put a key, or a mark, are refused,
// to whoever runs keyvet.
func TestOwnedRefuses(t *testing.T) {
	me := os.Geteuid()
	for _, tt := range []struct {
		name    string
		prepare func(w ownedWorld) error
		want    string
	}{
		{"state that everybody writes", func(w ownedWorld) error { return os.Chmod(w.state, 0o777) }, "state_dir .* can be written by every user \\(mode 0777\\): `chmod o-w "},
		{"run_dir that everybody writes", func(w ownedWorld) error { return errors.Join(os.Mkdir(w.run, 0o755), os.Chmod(w.run, 0o777)) }, "run_dir .* can be written by every user"},
		{"state is a file", func(w ownedWorld) error { return errors.Join(os.Remove(w.state), os.WriteFile(w.state, nil, 0o600)) }, "state_dir .* is no directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"run", "rotate"} {
				w := newOwnedWorld(t)
				if err := tt.prepare(w); err != nil {
					t.Fatal(err)
				}
				status, stderr := w.as(t, me, command)
				if status != cli.Usage || !matches(tt.want, stderr) || strings.Count(stderr, "\n") != 1 {
					t.Errorf("%s: exit status %d: %s", command, status, stderr)
				}
				if _, err := os.Stat(filepath.Join(w.run, "trusted")); err == nil {
					t.Error("the gate is open")
				}
			}
		})
	}
}

// TestOwned has most to say to root, who alone can be somebody else.
func TestOwned(t *testing.T) {
	if os.Geteuid() != 0 {
		// A user who is not root can own nothing else; root's directory he is told of.
		w := newOwnedWorld(t)
		text := strings.ReplaceAll(string(readFile(t, w.config)), w.state, "/etc")
		if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, stderr := w.as(t, os.Geteuid(), "rotate"); status != cli.Usage || !matches("state_dir /etc belongs to user root, and this is .*; run: `su -s /bin/sh -c 'keyvet rotate .*' root`", stderr) {
			t.Errorf("exit status %d: %s", status, stderr)
		}
		return
	}
	const nobody, daemon = 65534, 1
	chown := func(t *testing.T, uid int, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, command := range [][]string{{"run", "-once"}, {"rotate"}} {
		t.Run(command[0]+" as root", func(t *testing.T) {
			w := newOwnedWorld(t)
			chown(t, nobody, w.state)
			status, stderr := w.as(t, 0, command...)
			if status != cli.Undecided || !strings.Contains(stderr, "goes on as user nobody, to whom "+w.state+" belongs") ||
				!strings.Contains(stderr, "tpm cannot be used by user nobody") {
				t.Errorf("exit status %d: %s", status, stderr)
			}
			if got := owners(t, w.state, w.run); !slices.Equal(got, []int{nobody}) {
				t.Errorf("files belong to %v", got)
			}
			if entries, err := os.ReadDir(w.state); err != nil || len(entries) < 2 {
				t.Errorf("there are %v, %v", entries, err)
			}
			if _, stderr := w.as(t, nobody, command...); strings.Contains(stderr, "denied") && !strings.Contains(stderr, "tpm") {
				t.Errorf("the user cannot use what root left: %s", stderr)
			}
		})
	}
	t.Run("root's own", func(t *testing.T) {
		w := newOwnedWorld(t)
		if status, stderr := w.as(t, 0, "run", "-once"); status != cli.Undecided || strings.Contains(stderr, "goes on as") {
			t.Errorf("exit status %d: %s", status, stderr)
		}
	})
	for _, tt := range []struct {
		name    string
		as      int
		prepare func(t *testing.T, w ownedWorld)
		want    string
	}{
		{"a third user's state", daemon, func(t *testing.T, w ownedWorld) { chown(t, nobody, w.state) },
			"state_dir .* belongs to user nobody, and this is user daemon; run: `su -s /bin/sh -c 'keyvet rotate -config .*' nobody`\n"},
		{"a user without a name", 0, func(t *testing.T, w ownedWorld) { chown(t, 54321, w.state) },
			"belongs to the user with the number 54321, which this process cannot become: no user in /etc/passwd has the number 54321\n"},
		{"a third user's run_dir", 0, func(t *testing.T, w ownedWorld) {
			chown(t, nobody, w.state)
			os.Mkdir(w.run, 0o755)
			chown(t, daemon, w.run)
		}, "run_dir .* belongs to user daemon, and keyvet is run by user nobody: `chown 65534 "},
		{"root's run_dir", 0, func(t *testing.T, w ownedWorld) {
			chown(t, nobody, w.state)
			os.Mkdir(w.run, 0o755)
		}, "run_dir .* cannot be written by user nobody: `chown 65534 "},
		{"somebody's run_dir under root's state", 0, func(t *testing.T, w ownedWorld) {
			os.Mkdir(w.run, 0o755)
			chown(t, daemon, w.run)
		}, "run_dir .* belongs to user daemon, and keyvet is run by user root: `chown 0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newOwnedWorld(t)
			tt.prepare(t, w)
			if status, stderr := w.as(t, tt.as, "rotate"); status != cli.Usage || !matches(tt.want, stderr) {
				t.Errorf("exit status %d: %s", status, stderr)
			}
			if entries, err := os.ReadDir(w.state); err != nil || len(entries) != 0 {
				t.Errorf("it wrote %v, %v", entries, err)
			}
		})
	}
	t.Run("root who may not", func(t *testing.T) {
		w := newOwnedWorld(t)
		chown(t, nobody, w.state)
		program := filepath.Join(w.dir, "keyvet")
		if err := os.Symlink(fmt.Sprintf("/proc/%d/exe", os.Getpid()), program); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "setpriv", "--bounding-set=-setgid,-setuid", program, "rotate", "-config", w.config).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != cli.Usage ||
			!matches("belongs to user nobody, which this process cannot become: setg.*: operation not permitted; run: `su -s /bin/sh -c 'keyvet rotate ", string(out)) {
			t.Errorf("%v: %s", err, out)
		}
		if entries, err := os.ReadDir(w.state); err != nil || len(entries) != 0 {
			t.Errorf("it wrote %v, %v", entries, err)
		}
	})
	// Every thread is the user's, for good.
	t.Run("threads", func(t *testing.T) {
		w := newOwnedWorld(t)
		chown(t, nobody, w.state)
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Args = []string{"keyvet", "run", "-config", w.config}
		cmd.Dir = "/"
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { cmd.Process.Kill(); cmd.Wait() }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for { // until it has vetted itself
			if _, err := os.Stat(filepath.Join(w.state, "last.json")); err == nil {
				break
			}
			<-tick.C
		}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
		if err != nil || len(tasks) < 3 {
			t.Fatalf("threads %v, %v", tasks, err)
		}
		for _, task := range tasks {
			got := map[string]string{}
			for line := range strings.Lines(string(readFile(t, task))) {
				name, value, _ := strings.Cut(line, ":")
				got[name] = strings.Join(strings.Fields(value), " ")
			}
			same := "65534 65534 65534 65534"
			if got["Uid"] != same || got["Gid"] != same || got["Groups"] != "65534" || got["CapEff"] != "0000000000000000" || got["CapPrm"] != "0000000000000000" {
				t.Errorf("%s: Uid %s, Gid %s, groups %s, capabilities %s", task, got["Uid"], got["Gid"], got["Groups"], got["CapPrm"])
			}
		}
	})
}
