package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyvet/keyvet/mqtt/localiot"
)

// maxDocument bounds what is read of a job document; the endpoint takes less.
const maxDocument = 1 << 20

// remote is a command to the lab that is up.
func remote(name string, fs *flag.FlagSet, stdin io.Reader, out io.Writer) (a action, known bool) {
	dir := fs.String("dir", os.Getenv("KEYVET_LAB"), "")
	ask := func(method string, args, answer any) error { return ask(*dir, method, args, answer) }
	switch name {
	case "things":
		a.do = func([]string) error {
			var things []Thing
			if err := ask("Things", None{}, &things); err != nil {
				return err
			}
			return table(out, "THING\tCERTIFICATE\tSTATUS\tSINCE", things, func(row func(...string)) {
				for _, t := range things {
					if len(t.Certificates) == 0 {
						row(t.Name, "", "", "")
					}
					for _, c := range t.Certificates {
						row(t.Name, c.ID[:16], string(c.Status), c.Made.Format(time.DateTime))
					}
				}
			})
		}
	case "job create":
		id := fs.String("id", "job-"+time.Now().UTC().Format("20060102-150405"), "")
		operation := fs.String("operation", "keyvet.check", "")
		document := fs.String("document", "", "")
		asString := fs.Bool("string", false, "")
		retries := fs.Int("retries", 0, "")
		a = action{1, -1, func(things []string) error {
			j := localiot.Job{ID: *id, Things: things, DocumentAsString: *asString, Retries: *retries}
			var err error
			if j.Document, err = readDocument(*document, *operation, stdin); err != nil {
				return err
			}
			if err := ask("CreateJob", j, &None{}); err != nil {
				return err
			}
			fmt.Fprintln(out, *id)
			return nil
		}}
	case "job list":
		a.do = func([]string) error {
			var all []localiot.Execution
			if err := ask("Executions", None{}, &all); err != nil {
				return err
			}
			return table(out, "JOB\tTHING\tSTATUS\tVERSION\tEXECUTION\tCHANGED\tDETAILS", all, func(row func(...string)) {
				for _, e := range all {
					row(e.Job, e.Thing, e.Status, fmt.Sprint(e.Version), fmt.Sprint(e.Number), e.UpdatedAt.Format(time.DateTime), details(e.StatusDetails))
				}
			})
		}
	case "job cancel":
		force := fs.Bool("force", false, "")
		a = action{1, 1, func(args []string) error { return ask("CancelJob", Cancel{args[0], *force}, &None{}) }}
	case "fault set":
		times := fs.Int("times", 0, "")
		a = action{1, -1, func(args []string) error {
			f := localiot.Faults{Times: *times}
			for _, fault := range args {
				if err := f.Set(fault); err != nil {
					return fmt.Errorf("%w; keyvet-lab help lists them", err)
				}
			}
			return ask("SetFaults", f, &None{})
		}}
	case "fault clear":
		a.do = func([]string) error { return ask("SetFaults", localiot.Faults{}, &None{}) }
	case "fault list":
		a.do = func([]string) error {
			var f localiot.Faults
			if err := ask("Faults", None{}, &f); err != nil {
				return err
			}
			for _, name := range f.Names() {
				fmt.Fprintln(out, name)
			}
			return nil
		}
	case "shadow":
		shadow := fs.String("name", "keyvet", "")
		update := fs.String("update", "", "")
		a = action{1, 1, func(args []string) error {
			var state []byte
			if err := ask("Shadow", Shadow{args[0], *shadow, []byte(*update)}, &state); err != nil {
				return err
			}
			if len(state) == 0 {
				return fmt.Errorf("%s has no shadow of the name %q", args[0], *shadow)
			}
			fmt.Fprintf(out, "%s\n", state)
			return nil
		}}
	case "check":
		a = action{1, 1, func(args []string) error {
			var token string
			if err := ask("Check", args[0], &token); err != nil {
				return err
			}
			fmt.Fprintln(out, token)
			return nil
		}}
	default:
		return action{}, false
	}
	return a, true
}

// readDocument is the document in a file, or the one of an operation of keyvet's.
func readDocument(file, operation string, stdin io.Reader) (json.RawMessage, error) {
	switch file {
	case "":
		return json.Marshal(map[string]string{"operation": operation, "version": "1.0"})
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	return io.ReadAll(io.LimitReader(stdin, maxDocument))
}

func details(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(list, " ")
}

// table prints rows under a head, or nothing where there is nothing.
func table[T any](out io.Writer, head string, of []T, rows func(row func(cells ...string))) error {
	if len(of) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) })
	return w.Flush()
}
