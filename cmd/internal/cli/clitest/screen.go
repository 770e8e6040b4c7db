package clitest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

// Columns are the widths of the screens that are kept.
var Columns = []int{80, 160}

// Terminal is a terminal that a program writes to.
type Terminal struct {
	*os.File // what the program has
	Env      map[string]string

	lock  sync.Mutex
	wrote *sync.Cond
	text  bytes.Buffer
}

// write takes what came out of the terminal.
func (t *Terminal) write(b []byte) (int, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.wrote.Broadcast()
	return t.text.Write(b)
}

// Wait returns once the terminal shows a text.
func (t *Terminal) Wait(text string) {
	t.lock.Lock()
	defer t.lock.Unlock()
	for !bytes.Contains(t.text.Bytes(), []byte(text)) {
		t.wrote.Wait()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// environment is that of a terminal with UTF-8. Its colours are those of the
// terminal's own palette, so that they are legible on dark and on light.
func environment(color bool) map[string]string {
	return map[string]string{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NO_COLOR": map[bool]string{false: "1"}[color], "COLUMNS": ""}
}

// Folder is a new directory whose name is as long everywhere, since lines are broken
// by it. What is shown of it is steady.
func Folder(t *testing.T) string {
	t.Helper()
	dir := fmt.Sprintf("/tmp/ks-%06d", os.Getpid()%1_000_000)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Screens holds what run writes to terminals of both widths, with colours and
// without, to files below testdata/screens: see [Hold].
func Screens(name string, run func(*Terminal)) error {
	var wrong []error
	for _, columns := range Columns {
		for _, color := range []bool{false, true} {
			t := &Terminal{Env: environment(color)}
			if err := t.open(columns, run); err != nil {
				return err
			}
			wrong = append(wrong, Hold(name, columns, color, strings.ReplaceAll(t.text.String(), "\r\n", "\n")))
		}
	}
	return errors.Join(wrong...)
}

// Commands keeps screens of a program: the name of each, and the command. What it
// uses up is put there before.
func Commands(t *testing.T, p *cli.Program, screens [][2]string, before ...func()) {
	t.Helper()
	for _, screen := range screens {
		name, line := screen[0], screen[1]
		t.Run(name, func(t *testing.T) {
			err := Screens(name, func(tty *Terminal) {
				for name, value := range tty.Env {
					t.Setenv(name, value)
				}
				for _, do := range before {
					do()
				}
				p.Run(t.Context(), cli.IO{In: strings.NewReader(""), Out: tty.File, Err: tty.File}, strings.Fields(line))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Hold holds what a terminal of so many columns shows to testdata/screens/NAME.COLUMNS.txt,
// or, where it is in colours, to NAME.COLUMNS.color.txt; or it writes these with
// -update. What differs from run to run, such as times, is written as it always is.
func Hold(name string, columns int, color bool, got string) error {
	got = steady(got)
	var wrong []error
	plain := codes.ReplaceAllString(got, "")
	for line := range strings.Lines(plain) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > columns && strings.Contains(strings.TrimSpace(line), " ") && !commandLine.MatchString(line) {
			wrong = append(wrong, fmt.Errorf("%s: a line of %d columns: %s", name, n, line))
		}
	}
	for _, code := range codes.FindAllString(got, -1) {
		if !legible.MatchString(code) {
			wrong = append(wrong, fmt.Errorf("%s: %q is not legible on dark and on light", name, code))
		}
	}
	if color != (plain != got) {
		if !color {
			return fmt.Errorf("%s: colours that nobody asked for:\n%q", name, got)
		}
		return errors.Join(wrong...) // it has no colours: the other file has it all
	}
	ending := ".txt"
	if color {
		ending = ".color.txt"
	}
	file := filepath.Join("testdata", "screens", fmt.Sprint(name, ".", columns, ending))
	if *update {
		return errors.Join(append(wrong, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(got), 0o644))...)
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != got {
		wrong = append(wrong, fmt.Errorf("%s: %v\ngot\n%s\nwant\n%s", file, err, got, want))
	}
	return errors.Join(wrong...)
}

var (
	codes = regexp.MustCompile(`\x1b\[[0-9;]*[mK]`)
	// Red, green, yellow and magenta of the terminal's own palette, on its own
	// background, read on dark and on light. What a colour says a word says, too.
	legible = regexp.MustCompile(`^\x1b\[(0m|3[1235]m|K)$`)
	// A command to be copied is not broken.
	commandLine = regexp.MustCompile(`^(  \S|gotpm )`)
)

// open has run write to a terminal of a width.
func (t *Terminal) open(columns int, run func(*Terminal)) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	t.File, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetWinsize(int(t.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: uint16(columns)}); err != nil {
		return err
	}
	t.wrote = sync.NewCond(&t.lock)
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(writerFunc(t.write), master) // ends with EIO, once nobody has the terminal open
	}()
	run(t)
	t.Close()
	<-read
	return nil
}

// rewritten is what was cleared from a line before the line was written again.
var rewritten = regexp.MustCompile(`[^\n]*\r\x1b\[K`)

// steadies replace what differs from run to run by something of the same width.
var steadies = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`), "2026-01-02T03:04:05Z"},
	{regexp.MustCompile(`\bjob-\d{8}-\d{6}(-\d+)?\b`), "job-20260102-030405"},
	{regexp.MustCompile(`--input \S+`), "--input message"},
	{regexp.MustCompile(`"[A-Za-z0-9+/]{40,}={0,2}"`), `"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"`},
	{regexp.MustCompile(`\bchallenge [A-Z2-7]{26}\b`), "challenge ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
	{regexp.MustCompile(`"[A-Z2-7]{26}"`), `"ABCDEFGHIJKLMNOPQRSTUVWXYZ"`},
	{regexp.MustCompile(`(?m)^[A-Z2-7]{26}$`), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d( \d\d:\d\d:\d\d)?`), "2026-01-02$1"},
	{regexp.MustCompile(`(?m)(^| )\d\d:\d\d:\d\d\b`), "${1}03:04:05"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "01234567-89ab-4cde-8f01-23456789abcd"},
	{regexp.MustCompile(`\b(000b)?[0-9a-f]{64}\b`), "${1}" + strings.Repeat("0123456789abcdef", 4)},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "0123456789abcdef"},
	{regexp.MustCompile(`(?m)^.*\bfreshness\b.*\n(?: {10,}.*\n)*`), "(freshness, with an age that grows)\n"},
	{regexp.MustCompile(`/tmp/ks-\d{6}\b`), "/tmp/ks-000000"},
	{regexp.MustCompile(`\bline \d\d\b`), "line 11"}, // a signature has not always the same length
	{regexp.MustCompile(`localhost:\d+`), "localhost:12345"},
	{regexp.MustCompile(`\bin \d+ s:`), "in 20 s:"},
	{regexp.MustCompile(`  [ \d]{4}\.\d s  `), "     0.0 s  "},
	{regexp.MustCompile(`\b\d+\.\d s\b`), "0.0 s"},
	{regexp.MustCompile(`\b8217(\.\d+)+`), "8217.4131.22.13878"}, // of the emulator
	{regexp.MustCompile(`\bgo1\.[0-9.]+ linux/\w+`), "go1.26.0 linux/amd64"},
}

func steady(text string) string {
	text = rewritten.ReplaceAllString(text, "")
	for _, s := range steadies {
		text = s.pattern.ReplaceAllString(text, s.by)
	}
	return text
}
