// Package cli gives keyvet's programs one manner: commands with flags before or
// after their arguments, help and completions made of the same table, "did you
// mean", and the same exit statuses.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agnivade/levenshtein"
)

// The exit statuses of every program.
const (
	Pass      = 0 // also with warnings
	Fail      = 1
	Usage     = 2 // wrong usage or configuration
	Undecided = 3 // something that had to be looked at could not be
)

// IO is what a command reads and writes.
type IO struct {
	In  io.Reader
	Out io.Writer // what was asked for
	Err io.Writer // what is said about it, to people

	program, command string // set by [Program.Run]
}

// Misused says what is wrong with the command line or the configuration, and
// where to read on. It returns the exit status.
func (s IO) Misused(message string) int {
	s.Say(fmt.Sprintf("%s (%s)", message, whole(strings.TrimSpace(s.program+" help "+s.command))))
	return Usage
}

// Fail says what went wrong, in a line for each of several errors.
func (s IO) Fail(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		s.Say(line)
	}
}

// Say says something to people: one line, but on a terminal as many as its width
// asks for.
func (s IO) Say(text string) { fmt.Fprintln(s.Err, Said(s.Err, s.program, text)) }

// print writes text to standard output and returns the exit status.
func (s IO) print(text string) int {
	if _, err := io.WriteString(s.Out, text); err != nil {
		s.Fail(err)
		return Undecided
	}
	return Pass
}

// Said is what a program says, in lines that fit what w is.
func Said(w any, program, text string) string {
	text = program + ": " + text
	if !IsTerminal(w) {
		return Printable(strings.ReplaceAll(text, hard, " "))
	}
	return Wrap(text, Width(w), 0, 2)
}

// Program is a table of commands.
type Program struct {
	Name     string
	About    string // one sentence
	Commands []Command
	Notes    string   // further paragraphs of the overview, such as exit statuses
	Examples []string // command lines, each with two spaces and a word on it if need be

	Version, Commit string
	// Details are further lines of `version -v`, as name and value. May be nil.
	Details func() [][2]string

	// Values are those of a flag that can be completed, by the flag's name.
	Values map[string][]string
}

// Command is one command, of one word or two ("job create").
type Command struct {
	Name  string
	Args  string // what follows the flags: "[FILE ...]"
	Short string // one line of the overview
	Long  string // what help says between the usage line and the flags
	Notes string // what help says after the flags

	// At least and at most so many arguments; Most < 0 is any number.
	Least, Most int

	// New adds the command's flags to f and returns what carries the command
	// out, once they are parsed. The words of a flag's usage in `backquotes`
	// name its value.
	New func(f *flag.FlagSet) Action
}

// Action carries out a command and returns its exit status.
type Action func(ctx context.Context, s IO, args []string) int

// Main runs the program on the arguments of the process, until it ends or is
// interrupted, and exits.
func Main(p *Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := p.Run(ctx, IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(status)
}

// Run carries out one command line and returns its exit status.
func (p *Program) Run(ctx context.Context, s IO, args []string) int {
	s.program = p.Name
	if len(args) == 0 {
		fmt.Fprint(s.Err, p.Overview())
		return Usage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return p.help(s, args[1:])
	case "-version", "--version":
		args = append([]string{"version"}, args[1:]...)
	}
	c, rest := p.find(args)
	if c == nil {
		return p.unknown(s, args)
	}
	s.command = c.Name
	f := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	action := c.New(f)
	given, err := parse(f, rest)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return s.print(p.HelpOn(c))
	case err != nil:
		return s.Misused(explain(f, err))
	case len(given) < c.Least:
		return s.Misused(fmt.Sprintf("%s needs %s", c.Name, c.Args))
	case c.Most >= 0 && len(given) > c.Most && c.Most == 0:
		return s.Misused(fmt.Sprintf("%s takes no arguments, got %q", c.Name, given[0]))
	case c.Most >= 0 && len(given) > c.Most:
		return s.Misused(fmt.Sprintf("%s takes nothing after %q, got %q", c.Name, given[c.Most-1], given[c.Most]))
	}
	return action(ctx, s, given)
}

// commands are those of the table and version.
func (p *Program) commands() []Command {
	return append(append([]Command{}, p.Commands...), Command{
		Name: "version", Short: "the version, and with -v what it was built from",
		New: func(f *flag.FlagSet) Action {
			verbose, asJSON := f.Bool("v", false, "also show what it was built from"), f.Bool("json", false, "one JSON document on standard output")
			return func(_ context.Context, s IO, _ []string) int { return p.version(s, *verbose, *asJSON) }
		},
	})
}

// find finds the command that args begin with.
func (p *Program) find(args []string) (*Command, []string) {
	all := p.commands()
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		for i := range all {
			if all[i].Name == name {
				return &all[i], args[words:]
			}
		}
	}
	return nil, nil
}

func (p *Program) unknown(s IO, args []string) int {
	var names []string
	group := false
	for _, c := range p.commands() {
		names = append(names, c.Name)
		group = group || strings.HasPrefix(c.Name, args[0]+" ")
	}
	name := args[0]
	switch {
	case group && len(args) > 1 && !strings.HasPrefix(args[1], "-"):
		name += " " + args[1]
	case group:
		return s.Misused(fmt.Sprintf("%s needs a second word, such as %q", name, p.first(name+" ")))
	}
	return s.Misused(fmt.Sprintf("unknown command %q%s", name, didYouMean(name, append(names, "help"))))
}

func (p *Program) first(prefix string) string {
	for _, c := range p.Commands {
		if strings.HasPrefix(c.Name, prefix) {
			return c.Name
		}
	}
	return ""
}

// parse reads flags and arguments in any order; "--" ends the flags.
func parse(f *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		left := f.Args()
		if end := len(args) - len(left); len(left) == 0 || end > 0 && args[end-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// Files defines a flag that names a file and can be given several times. It does
// not take the empty name, which an unset variable of a script is.
func Files(f *flag.FlagSet, name, usage string) *[]string {
	files := new([]string)
	f.Func(name, usage, func(file string) error {
		if file == "" {
			return errors.New("no file")
		}
		*files = append(*files, file)
		return nil
	})
	return files
}

// explain puts an error of package flag into our words.
func explain(f *flag.FlagSet, err error) string {
	text := err.Error()
	if name, unknown := strings.CutPrefix(text, "flag provided but not defined: -"); unknown {
		var names []string
		f.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
		return fmt.Sprintf("%s has no flag -%s%s", f.Name(), name, didYouMeanFlag(name, names))
	}
	if name, missing := strings.CutPrefix(text, "flag needs an argument: -"); missing {
		return fmt.Sprintf("%s: -%s needs a value", f.Name(), name)
	}
	if value, name, why, ok := invalidValue(text); ok {
		return fmt.Sprintf("%s: -%s %s: %s", f.Name(), name, value, wanted(f.Lookup(name), why))
	}
	return f.Name() + ": " + text
}

// invalidValue takes apart how package flag says that a flag does not take a
// value: the value in quotes, the flag's name, and why.
func invalidValue(text string) (value, name, why string, ok bool) {
	rest, ok := strings.CutPrefix(strings.Replace(text, "boolean ", "", 1), "invalid value ")
	if !ok {
		return "", "", "", false
	}
	value, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", "", "", false
	}
	rest = strings.Replace(rest[len(value):], " flag ", " ", 1)
	rest, ok = strings.CutPrefix(rest, " for -")
	name, why, cut := strings.Cut(rest, ": ")
	return value, name, why, ok && cut
}

// wanted says what a flag takes, where package flag only says that it did not parse
// the value.
func wanted(f *flag.Flag, why string) string {
	if getter, ok := f.Value.(flag.Getter); ok {
		switch getter.Get().(type) {
		case time.Duration:
			return "not a duration, such as 90s or 25h"
		case int:
			return "not a whole number"
		case bool:
			return "not true or false"
		}
	}
	return strings.TrimPrefix(why, "encoding/hex: ")
}

// Nearest returns the one of names that is at most two edits away from word.
func Nearest(word string, names []string) (string, bool) {
	const most = 2
	best, distance := "", most+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(word, n); d < distance && d < len([]rune(n)) {
			best, distance = n, d
		}
	}
	return best, best != ""
}

func didYouMean(word string, names []string) string {
	if n, ok := Nearest(word, names); ok {
		return fmt.Sprintf(", did you mean %q?", n)
	}
	return ""
}

func didYouMeanFlag(word string, names []string) string {
	if n, ok := Nearest(word, names); ok {
		return fmt.Sprintf(", did you mean -%s?", n)
	}
	return ""
}

// buildVersion is what `version -json` writes.
type buildVersion struct {
	Program string            `json:"program"`
	Version string            `json:"version"`
	Commit  string            `json:"commit,omitempty"`
	Go      string            `json:"go"`
	OS      string            `json:"os"`
	Arch    string            `json:"arch"`
	Details map[string]string `json:"details,omitempty"`
}

func (p *Program) version(s IO, verbose, asJSON bool) int {
	v := buildVersion{p.Name, p.Version, p.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, nil}
	var details [][2]string
	if verbose && p.Details != nil {
		details = p.Details()
	}
	if !asJSON {
		line := v.Program + " " + v.Version
		if v.Commit != "" {
			line += " (" + v.Commit + ")"
		}
		line += fmt.Sprintf(" %s %s/%s\n", v.Go, v.OS, v.Arch)
		for _, d := range details {
			line += d[0] + ": " + d[1] + "\n"
		}
		return s.print(line)
	}
	for _, d := range details {
		if v.Details == nil {
			v.Details = make(map[string]string)
		}
		v.Details[d[0]] = d[1]
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.Fail(err)
		return Undecided
	}
	return s.print(string(b) + "\n")
}
