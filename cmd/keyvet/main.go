// Command keyvet is what a device runs so that it vets its own keys before it
// trusts them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
)

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = ""
)

// The exit statuses of check and run -once.
const (
	exitPass      = 0
	exitFail      = 1
	exitUsage     = 2
	exitUndecided = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// streams are the standard ones, and what they are connected to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command carries out one command line and returns its exit status.
func command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := streams{stdin, stdout, stderr}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	name, args := args[0], args[1:]
	switch name {
	case "check":
		return checkCommand(ctx, s, args)
	case "run":
		return runCommand(ctx, s, args)
	case "status":
		return statusCommand(s, args)
	case "rotate":
		return rotateCommand(ctx, s, args)
	case "version", "-version", "--version":
		return versionCommand(s, args)
	case "help", "-h", "-help", "--help":
		return helpCommand(s, args)
	}
	return s.usageError(fmt.Sprintf("unknown command %q, did you mean %q?", name, config.Nearest(name, commandNames)), "")
}

var commandNames = []string{"check", "run", "status", "rotate", "version", "help"}

func helpCommand(s streams, args []string) int {
	switch {
	case len(args) == 0:
		fmt.Fprint(s.out, usage)
	case len(args) > 1:
		return s.usageError("help takes one command", "")
	case helpTexts[args[0]] != "":
		fmt.Fprint(s.out, helpTexts[args[0]])
	case slices.Contains(commandNames, args[0]):
		fmt.Fprint(s.out, usage)
	default:
		return s.usageError(fmt.Sprintf("no help on %q, did you mean %q?", args[0], config.Nearest(args[0], commandNames)), "")
	}
	return exitPass
}

// usageError tells what was wrong with a command line, and where to read on.
func (s streams) usageError(message, about string) int {
	fmt.Fprintf(s.err, "keyvet: %s (keyvet help%s)\n", message, strings.TrimRight(" "+about, " "))
	return exitUsage
}

// say says something to people, in one line.
func (s streams) say(line string) { fmt.Fprintf(s.err, "keyvet: %s\n", line) }

// fail tells what went wrong in one line.
func (s streams) fail(err error) {
	fmt.Fprintf(s.err, "keyvet: %s\n", printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
}

// parse reads flags and arguments in any order; "--" ends the flags. ok is
// false if the exit status is settled, by a mistake or by -h.
func (s streams) parse(fs *flag.FlagSet, args []string) (rest []string, status int, ok bool) {
	fs.SetOutput(io.Discard)
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(s.out, helpTexts[fs.Name()])
			return nil, exitPass, false
		}
		if err != nil {
			return nil, s.usageError(fs.Name()+": "+err.Error(), fs.Name()), false
		}
		left := fs.Args()
		if end := len(args) - len(left); len(left) == 0 || end > 0 && args[end-1] == "--" {
			return append(rest, left...), 0, true
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func versionCommand(s streams, args []string) int {
	fs := flag.NewFlagSet("version", flag.ContinueOnError)
	verbose := fs.Bool("v", false, "")
	rest, status, ok := s.parse(fs, args)
	if !ok {
		return status
	}
	if len(rest) > 0 {
		return s.usageError("version takes no arguments", "version")
	}
	fmt.Fprintln(s.out, versionLine())
	if *verbose {
		fmt.Fprintln(s.out, "clock floor", device.ClockFloor().Format(time.RFC3339))
	}
	return exitPass
}

func versionLine() string {
	line := "keyvet " + version
	if commit != "" {
		line += " (" + commit + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", line, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// exitStatus is the exit status that a verdict asks for.
func exitStatus(v device.Status) int {
	switch v {
	case device.Pass, device.Warn:
		return exitPass
	case device.Fail:
		return exitFail
	}
	return exitUndecided
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
