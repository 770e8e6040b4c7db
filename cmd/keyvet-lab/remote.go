package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// maxDocument bounds what is read of a document; the endpoint takes less.
const maxDocument = 1 << 20

// lab is the lab that is up, by the directory that it was given.
type lab struct{ dir *string }

func (l lab) ask(method string, args, answer any) error { return ask(*l.dir, method, args, answer) }

// remoteCommand is a command to the lab that is up.
func remoteCommand(c cli.Command, build func(f *flag.FlagSet, l lab) func(s cli.IO, args []string) error) cli.Command {
	c.New = func(f *flag.FlagSet) cli.Action {
		l := lab{f.String("dir", os.Getenv("KEYVET_LAB"), "the `DIR` of the lab that is up (default: KEYVET_LAB)")}
		do := build(f, l)
		return action(func(_ context.Context, s cli.IO, args []string) error { return do(s, args) })
	}
	return c
}

// remote are the commands to the lab that is up.
var remote = []cli.Command{
	remoteCommand(cli.Command{Name: "things", Short: "the things, and their certificates"}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		asJSON := jsonFlag(f)
		return func(s cli.IO, _ []string) error {
			var things []Thing
			if err := l.ask("Things", None{}, &things); err != nil {
				return err
			}
			return table(s.Out, *asJSON, []string{"THING", "CERTIFICATE", "STATUS", "SINCE"}, things, func(row func(...string)) {
				for _, t := range things {
					if len(t.Certificates) == 0 {
						row(t.Name, "", "", "")
					}
					for _, c := range t.Certificates {
						row(t.Name, c.ID[:16], string(c.Status), c.Made.UTC().Format(time.RFC3339))
					}
				}
			})
		}
	}),
	remoteCommand(cli.Command{
		Name: "job create", Args: "THING ...", Short: "queue a job", Least: 1, Most: -1,
		Long: "Queues a job for each THING: keyvet.check, another operation, or a document.",
	}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		id := f.String("id", "", "`ID` of the job (default: the time)")
		operation := f.String("operation", "keyvet.check", "`NAME` of the operation (default keyvet.check)")
		document := f.String("document", "", "send the document in `FILE`; \"-\" is standard input")
		asString := f.Bool("string", false, "send the document as a string")
		retries := f.Int("retries", 0, "try a failed execution `N` times again")
		return func(s cli.IO, things []string) error {
			j := localiot.Job{ID: *id, Things: things, DocumentAsString: *asString, Retries: *retries}
			var err error
			if j.Document, err = readDocument(*document, *operation, s.In); err != nil {
				return err
			}
			var made string
			if err := l.ask("CreateJob", j, &made); err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.Out, made)
			return err
		}
	}),
	remoteCommand(cli.Command{Name: "job list", Short: "the jobs, and how far they are"}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		asJSON := jsonFlag(f)
		return func(s cli.IO, _ []string) error {
			var all []localiot.Execution
			if err := l.ask("Executions", None{}, &all); err != nil {
				return err
			}
			return table(s.Out, *asJSON, []string{"JOB", "THING", "STATUS", "CHANGED", "VERSION", "EXECUTION", "DETAILS"}, all, func(row func(...string)) {
				for _, e := range all {
					row(e.Job, e.Thing, e.Status, e.UpdatedAt.UTC().Format(time.RFC3339), fmt.Sprint(e.Version), fmt.Sprint(e.Number), details(e.StatusDetails))
				}
			})
		}
	}),
	remoteCommand(cli.Command{Name: "job cancel", Args: "ID", Short: "cancel a job", Least: 1, Most: 1}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		force := f.Bool("force", false, "also where it is in progress")
		return func(_ cli.IO, args []string) error { return l.ask("CancelJob", Cancel{args[0], *force}, &None{}) }
	}),
	remoteCommand(cli.Command{
		Name: "fault set", Args: "FAULT ...", Short: "let the endpoint misbehave", Least: 1, Most: -1,
		Long: "The endpoint misbehaves in these ways and no other.", Notes: "faults:\n" + faults(),
	}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		times := f.Int("times", 0, "until they have struck `N` times")
		return func(_ cli.IO, args []string) error {
			f := localiot.Faults{Times: *times}
			for _, fault := range args {
				if err := f.Set(fault); err != nil {
					return fmt.Errorf("%w; `keyvet-lab help fault set` lists them", err)
				}
			}
			return l.ask("SetFaults", f, &None{})
		}
	}),
	remoteCommand(cli.Command{Name: "fault clear", Short: "let it behave again"}, func(_ *flag.FlagSet, l lab) func(cli.IO, []string) error {
		return func(cli.IO, []string) error { return l.ask("SetFaults", localiot.Faults{}, &None{}) }
	}),
	remoteCommand(cli.Command{Name: "fault list", Short: "the faults that are set"}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		asJSON := jsonFlag(f)
		return func(s cli.IO, _ []string) error {
			var f localiot.Faults
			if err := l.ask("Faults", None{}, &f); err != nil {
				return err
			}
			if *asJSON {
				return printJSON(s.Out, append([]string{}, f.Names()...))
			}
			for _, name := range f.Names() {
				fmt.Fprintln(s.Out, name)
			}
			return nil
		}
	}),
	remoteCommand(cli.Command{Name: "shadow", Args: "THING", Short: "print a shadow, or update it first", Least: 1, Most: 1}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		name := f.String("name", "keyvet", "`NAME` of the shadow (default keyvet)")
		update := f.String("update", "", "update it with this `JSON` first")
		return func(s cli.IO, args []string) error {
			var state []byte
			if err := l.ask("Shadow", Shadow{args[0], *name, []byte(*update)}, &state); err != nil {
				return err
			}
			if len(state) == 0 {
				return fmt.Errorf("%s has no shadow of the name %q", args[0], *name)
			}
			if cli.IsTerminal(s.Out) {
				return printJSON(s.Out, json.RawMessage(state))
			}
			_, err := fmt.Fprintf(s.Out, "%s\n", state)
			return err
		}
	}),
	remoteCommand(cli.Command{
		Name: "report", Args: "THING", Short: "the newest report of a thing", Least: 1, Most: 1,
		Long: `Prints the newest report of THING as it came, for keyvet-fleet to verify; on a
terminal, in short.`,
	}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		out := outFlag(f)
		return func(s cli.IO, args []string) error {
			var report []byte
			if err := l.ask("Report", args[0], &report); err != nil {
				return err
			}
			return write(s.Out, *out, report, summary(report)+"\n-out FILE writes the whole report, for keyvet-fleet to verify.")
		}
	}),
	remoteCommand(cli.Command{
		Name: "challenge", Args: "THING FILE", Short: "challenge a thing's TPM, and print the answer", Least: 2, Most: 2,
		Long: `Sends what "keyvet-fleet challenge" printed into FILE ("-" is standard input) to
THING, where keyvet runs, and prints the answer, for "keyvet-fleet answer"; on a
terminal, in short.`,
	}, func(f *flag.FlagSet, l lab) func(cli.IO, []string) error {
		out := outFlag(f)
		return func(s cli.IO, args []string) error {
			text, err := readFile(args[1], s.In)
			if err != nil {
				return err
			}
			var answer []byte
			if err := l.ask("Challenge", Challenge{args[0], text}, &answer); err != nil {
				return err
			}
			return write(s.Out, *out, answer, outcome(args[0], answer)+"\n-out FILE writes the answer, for keyvet-fleet to verify.")
		}
	}),
	remoteCommand(cli.Command{Name: "check", Args: "THING", Short: "ask for a check, by the shadow", Least: 1, Most: 1}, func(_ *flag.FlagSet, l lab) func(cli.IO, []string) error {
		return func(s cli.IO, args []string) error {
			var token string
			if err := l.ask("Check", args[0], &token); err != nil {
				return err
			}
			_, err := fmt.Fprintln(s.Out, token)
			return err
		}
	}),
}

func jsonFlag(f *flag.FlagSet) *bool {
	return f.Bool("json", false, "one JSON document on standard output")
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// readDocument is the document in a file, or the one of an operation of keyvet's.
func readDocument(file, operation string, stdin io.Reader) (json.RawMessage, error) {
	if file == "" {
		return json.Marshal(map[string]string{"operation": operation, "version": "1.0"})
	}
	return readFile(file, stdin)
}

// readFile is what a file holds; "-" is standard input.
func readFile(file string, stdin io.Reader) ([]byte, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	return io.ReadAll(io.LimitReader(stdin, maxDocument))
}

func outFlag(f *flag.FlagSet) *string {
	return f.String("out", "", "write it to `FILE` instead of standard output")
}

// write writes text to a file, or out where none is named: to a terminal, what it
// is in short, since nobody reads a signed report there.
func write(out io.Writer, file string, text []byte, short string) (err error) {
	switch {
	case file != "":
		return os.WriteFile(file, text, 0o600)
	case cli.IsTerminal(out):
		for line := range strings.SplitSeq(short, "\n") {
			if err == nil {
				_, err = io.WriteString(out, terminal.Of(out).Text(line))
			}
		}
	default:
		_, err = fmt.Fprintf(out, "%s\n", text)
	}
	return err
}

// outcome is in short what a thing answered to a challenge.
func outcome(thing string, answer []byte) string {
	a, err := awsiot.ParseChallengeAnswer(answer)
	switch {
	case err != nil:
		return thing + ": " + err.Error()
	case a.Error != "":
		return thing + " refused the challenge: " + a.Error
	}
	return thing + " answered the challenge " + a.ID + ", with evidence on the report " + a.ReportID
}

func details(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(list, " ")
}

// table prints rows under a head, or nothing where there is nothing; or what they
// are of, as JSON.
func table[T any](out io.Writer, asJSON bool, head []string, of []T, rows func(row func(cells ...string))) error {
	if asJSON {
		return printJSON(out, append([]T{}, of...))
	}
	if len(of) == 0 {
		return nil
	}
	var lines []terminal.Line
	rows(func(cells ...string) { lines = append(lines, terminal.Line{Cells: cells}) })
	_, err := io.WriteString(out, terminal.Of(out).Table(head, lines))
	return err
}
