package cmd_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for a command that says nothing; what ends or speaks ends the wait.
const patience = 2 * time.Minute

// A desk is what a reader sits at: the source with the programs in bin/, one
// shell, and terminals in which something stays.
type desk struct {
	dir, bin  string
	shell     *shell
	terminals map[string]*terminal
}

func newDesk(t *testing.T, bin string) *desk {
	t.Helper()
	d := &desk{dir: t.TempDir(), bin: bin, terminals: make(map[string]*terminal)}
	// What a command writes stays out of the source.
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name != ".git" && name != "bin" && name != "dist" {
			if err := os.Symlink(filepath.Join(source, name), filepath.Join(d.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(bin, filepath.Join(d.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.turnPage()
		for name, terminal := range d.terminals {
			if err := terminal.interrupt(); err != nil {
				t.Errorf("terminal %s: %v", name, err)
			}
		}
	})
	return d
}

// command is a program at the desk: its output has the width of a terminal.
func (d *desk) command(args ...string) *exec.Cmd {
	c := exec.Command("/bin/sh", args...)
	c.Dir = d.dir
	c.Env = append(os.Environ(), "HOME="+d.dir, "COLUMNS=80", "LC_ALL=C.UTF-8", "TZ=UTC",
		"KEYVET_LAB="+filepath.Join(d.dir, "lab"), "PATH="+d.bin+":"+os.Getenv("PATH"))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// turnPage has the next page begin with a new shell.
func (d *desk) turnPage() {
	if d.shell != nil {
		d.shell.end()
		d.shell = nil
	}
}

// run runs the commands of a block and compares the output.
func (d *desk) run(block *fence, list []command) error {
	if name := block.marks["terminal"]; name != "" {
		return d.stay(name, list)
	}
	if d.shell == nil {
		shell, err := newShell(d.command())
		if err != nil {
			return err
		}
		d.shell = shell
	}
	for i, c := range list {
		want := 0
		if i == len(list)-1 {
			want, _ = strconv.Atoi(block.marks["exit"])
		}
		out, status, err := d.shell.do(c.line)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w: %s", c.line, err, out)
		case status != want:
			return fmt.Errorf("%s: exit status %d, want %d: %s", c.line, status, want, out)
		case c.want != nil && !d.pattern(c.want, true).MatchString(d.plain(out)):
			return fmt.Errorf("%s\n--- the page ---\n%s\n--- it says ---\n%s", c.line, strings.Join(c.want, "\n"), out)
		}
	}
	return nil
}

// stay starts the commands in a terminal of that name, after a Ctrl-C if something
// runs in it, and waits until it has said what the page shows.
func (d *desk) stay(name string, list []command) error {
	if old := d.terminals[name]; old != nil {
		if err := old.interrupt(); err != nil {
			return err
		}
		delete(d.terminals, name)
	}
	if len(list) != 1 || list[0].want == nil {
		return errors.New("a block of a terminal has one command, and what it says when it is ready")
	}
	t, err := newTerminal(d.command("-c", list[0].line))
	if err != nil {
		return err
	}
	d.terminals[name] = t
	pattern := d.pattern(list[0].want, false)
	if !t.wait(func(out string) bool { return pattern.MatchString(d.plain(out)) }) {
		return fmt.Errorf("%s\n--- the page ---\n%s\n--- it says ---\n%s", list[0].line, strings.Join(list[0].want, "\n"), t.text())
	}
	return nil
}

// variable are the parts of an output that differ from run to run.
var variable = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?Z?)?`), "DATE"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\bjob-\d{8}-\d{6}\b`), "JOB"},
	{regexp.MustCompile(`\b[0-9a-f]{8,}(-[0-9a-f]{4,})*\b`), "HEX"},
	{regexp.MustCompile(`\b[A-Z2-7]{26}\b|\br[a-z2-7]{26}\b`), "ID"},
	{regexp.MustCompile(`\blocalhost:\d+`), "ENDPOINT"},
	{regexp.MustCompile(`\bfirmware [\d.]+`), "FIRMWARE"},
	{regexp.MustCompile(`\b[\d.,]+ ?(ms|s|seconds|bytes)\b`), "AMOUNT"},
}

// plain is an output without what differs from run to run, on one line: a page
// may break lines elsewhere than a path of another length does.
func (d *desk) plain(out string) string {
	out = strings.ReplaceAll(out, d.dir, "/home/you/keyvet")
	for _, v := range variable {
		out = v.pattern.ReplaceAllString(out, v.name)
	}
	return strings.Join(strings.Fields(out), " ")
}

// pattern matches what a page shows: "…" stands for anything.
func (d *desk) pattern(want []string, whole bool) *regexp.Regexp {
	text := regexp.QuoteMeta(d.plain(strings.Join(want, "\n")))
	text = strings.ReplaceAll(" "+text+" ", " … ", `( .*)? `)
	text = strings.ReplaceAll(strings.TrimSpace(text), "…", ".*")
	if strings.HasPrefix(text, `( .*)? `) {
		text = `(.* )?` + strings.TrimPrefix(text, `( .*)? `)
	}
	if whole {
		text += "$"
	}
	return regexp.MustCompile("^" + text)
}

// A shell takes one command after the other, and keeps its variables.
type shell struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func newShell(c *exec.Cmd) (*shell, error) {
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.Stderr = c.Stdout
	return &shell{c, in, bufio.NewReader(out)}, c.Start()
}

const prompt = "\x01status "

func (s *shell) do(line string) (out string, status int, err error) {
	quoted := "'" + strings.ReplaceAll(line, "'", `'\''`) + "'"
	stuck := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL) })
	defer stuck.Stop()
	if _, err := fmt.Fprintf(s.in, "eval %s </dev/null; printf '\\001status %%d\\n' $?\n", quoted); err != nil {
		return "", 0, err
	}
	var text strings.Builder
	for {
		l, err := s.out.ReadString('\n')
		if before, after, found := strings.Cut(l, prompt); found && err == nil {
			text.WriteString(before)
			status, err := strconv.Atoi(strings.TrimSpace(after))
			return text.String(), status, err
		}
		text.WriteString(l)
		if err != nil {
			return text.String(), 0, err
		}
	}
}

func (s *shell) end() {
	_ = s.in.Close()
	_ = s.process.Wait()
}

// A terminal has one command that stays.
type terminal struct {
	process *exec.Cmd
	ended   chan struct{}
	mu      sync.Mutex
	out     bytes.Buffer
	said    chan struct{} // has room for one: something was said
}

func newTerminal(c *exec.Cmd) (*terminal, error) {
	t := &terminal{process: c, ended: make(chan struct{}), said: make(chan struct{}, 1)}
	c.Stdout, c.Stderr = t, t
	if err := c.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.Wait()
		close(t.ended)
	}()
	return t, nil
}

func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.said <- struct{}{}:
	default:
	}
	return t.out.Write(b)
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.String()
}

// wait waits until what was said is enough.
func (t *terminal) wait(enough func(string) bool) bool {
	late := time.After(patience)
	for !enough(t.text()) {
		select {
		case <-t.said:
		case <-t.ended:
			return enough(t.text())
		case <-late:
			return false
		}
	}
	return true
}

// interrupt is Ctrl-C.
func (t *terminal) interrupt() error {
	_ = syscall.Kill(-t.process.Process.Pid, syscall.SIGINT)
	select {
	case <-t.ended:
		return nil
	case <-time.After(patience):
		_ = syscall.Kill(-t.process.Process.Pid, syscall.SIGKILL)
		return errors.New("it does not end at Ctrl-C")
	}
}

// TestDesk has pages that do not agree with what happens.
func TestDesk(t *testing.T) {
	bin := t.TempDir()
	for what, tt := range map[string]struct {
		text  string
		wrong string
	}{
		"as it is":             {"```console\n$ echo a; echo b\na\nb\n```", ""},
		"another output":       {"```console\n$ echo a\nb\n```", "the page"},
		"more output":          {"```console\n$ echo a; echo b\na\n```", "the page"},
		"cut":                  {"```console\n$ echo a; echo b; echo c\na\n…\n```", ""},
		"cut in a line":        {"```console\n$ echo /tmp/x/y is there\n…/y is there\n```", ""},
		"cut, and another end": {"```console\n$ echo a; echo b; echo c\n…\nb\n```", "the page"},
		"another day":          {"```console\n$ echo until 2031-01-02, in 3 s\nuntil 2029-09-09, in 15 s\n```", ""},
		"no output is shown":   {"```console\n$ echo a\n```", ""},
		"fails":                {"```console\n$ false\n```", "exit status 1"},
		"fails as it says":     {"```console exit=3\n$ sh -c 'exit 3'\n```", ""},
		"passes":               {"```console exit=3\n$ true\n```", "exit status 0"},
		"variables stay":       {"```console\n$ export A=1\n$ echo $A\n1\n```", ""},
		"standard input":       {"```console\n$ cat\n$ echo 'it'\"'s\"\nit's\n```", ""},
		"several lines":        {"```console\n$ echo a \\\n>   b\na b\n```", ""},
		"stays":                {"```console terminal=x\n$ echo ready; exec sleep 1000\nready\n```", ""},
		"never ready":          {"```console terminal=x\n$ echo no\nready\n```", "the page"},
	} {
		blocks, err := fences("page.md", tt.text)
		if err != nil {
			t.Fatal(err)
		}
		list, err := blocks[0].commands()
		if err != nil {
			t.Fatal(err)
		}
		err = newDesk(t, bin).run(&blocks[0], list)
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %v, want %q", what, err, tt.wrong)
		}
	}
}
