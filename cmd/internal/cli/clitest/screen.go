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
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Environment is that of a terminal with colours and UTF-8. Its colours are those of
// the terminal's own palette, so that they are legible on dark and on light.
var Environment = map[string]string{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NO_COLOR": "", "COLUMNS": ""}

// Columns are the widths of the screens that are kept.
var Columns = []int{80, 160}

// Screens holds what run writes to terminals of both widths to the files
// testdata/screens/NAME.WIDTH.txt, or writes these with -update. What differs from
// run to run, such as times, is written as it always is.
func Screens(name string, run func(tty *os.File)) error {
	var wrong []error
	for _, columns := range Columns {
		got, err := onTerminal(columns, run)
		if err != nil {
			return err
		}
		got = steady(got)
		file := filepath.Join("testdata", "screens", fmt.Sprintf("%s.%d.txt", name, columns))
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(codes.ReplaceAllString(strings.TrimSuffix(line, "\n"), "")); n > columns && !strings.HasPrefix(strings.TrimSpace(line), "keyvet") && strings.Contains(strings.TrimSpace(line), " ") { // errors and examples are one line
				wrong = append(wrong, fmt.Errorf("%s: a line of %d columns: %s", file, n, line))
			}
		}
		if *update {
			wrong = append(wrong, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(got), 0o644))
			continue
		}
		if want, err := os.ReadFile(file); err != nil || string(want) != got {
			wrong = append(wrong, fmt.Errorf("%s: %v\ngot\n%s\nwant\n%s", file, err, got, want))
		}
	}
	return errors.Join(wrong...)
}

var codes = regexp.MustCompile(`\x1b\[[0-9;]*[mK]`)

// onTerminal returns what run writes to a terminal of a width.
func onTerminal(columns int, run func(tty *os.File)) (string, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return "", err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return "", err
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: uint16(columns)}); err != nil {
		return "", err
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&out, master) // ends with EIO, once nobody has the terminal open
	}()
	run(tty)
	tty.Close()
	<-read
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), nil
}

// steadies replace what differs from run to run by something of the same width.
var steadies = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`), "2026-01-02T03:04:05Z"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d( \d\d:\d\d:\d\d)?`), "2026-01-02$1"},
	{regexp.MustCompile(` \d\d:\d\d:\d\d\b`), " 03:04:05"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "01234567-89ab-4cde-8f01-23456789abcd"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), strings.Repeat("0123456789abcdef", 4)},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "0123456789abcdef"},
	{regexp.MustCompile(`(?m)^.*\bfreshness\b.*\n(?: {10,}.*\n)*`), "(freshness, with an age that grows)\n"},
	{regexp.MustCompile(`/tmp/ks-\d{6}\b`), "/tmp/ks-000000"},
	{regexp.MustCompile(`\bline \d\d\b`), "line 11"}, // a signature has not always the same length
	{regexp.MustCompile(`localhost:\d+`), "localhost:12345"},
	{regexp.MustCompile(`  [ \d]{4}\.\d s  `), "     0.0 s  "},
	{regexp.MustCompile(`\b\d+\.\d s\b`), "0.0 s"},
	{regexp.MustCompile(`\b8217(\.\d+)+`), "8217.4131.22.13878"}, // of the emulator
	{regexp.MustCompile(`\bgo1\.[0-9.]+ linux/\w+`), "go1.26.0 linux/amd64"},
}

func steady(text string) string {
	for _, s := range steadies {
		text = s.pattern.ReplaceAllString(text, s.by)
	}
	return text
}
