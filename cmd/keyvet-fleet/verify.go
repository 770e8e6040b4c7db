package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/cmd/keyvet-fleet/internal/baseline"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// maxReports bounds the reports of one command line.
const maxReports = 1_000_000

func verifyCommand(f *flag.FlagSet) cli.Action {
	t := trustFlags(f)
	t.acceptFlag(f)
	t.policyFlag(f)
	asJSON := f.Bool("json", false, "one JSON document on standard output")
	asCSV := f.Bool("csv", false, "a table in CSV on standard output, one line a report")
	nonce, name := nonceFlag(), nameFlag()
	f.Var(nonce, "nonce", "the report must carry this nonce in `HEX`, which you gave the device")
	f.Var(name, "ak-name", "the attestation key must be the one of this name in `HEX`, which answered a challenge before")
	maxAge := f.Duration("max-age", 0, "the report must not be older than `D`, such as 25h")
	require := f.String("require", "", "these `LEVELS`, separated by commas, must pass: what they do not show is undecided")
	first := f.String("baseline", "", "keep in `FILE` what is first seen of a device's boot; a later report on which it changed fails, and says what changed")
	renew := f.Bool("renew", false, "with -baseline: keep what these reports show from now on")
	return action(func(s cli.IO, args []string) (device.Status, error) {
		if *renew && *first == "" {
			return 0, errUsage{errors.New("verify: -renew is for -baseline FILE")}
		}
		if *asJSON && *asCSV {
			return 0, errUsage{errors.New("verify: -json or -csv, not both")}
		}
		if *maxAge < 0 {
			return 0, errUsage{errors.New("verify: -max-age is negative")}
		}
		if err := t.load(f); err != nil {
			return 0, err
		}
		policy := t.policy()
		policy.Nonce, policy.AKName, policy.MaxAge = nonce.bytes, name.bytes, *maxAge
		var err error
		if policy.Require, err = levelNames(*require); err != nil {
			return 0, errUsage{err}
		}
		if t.boots.Policy != nil && !slices.Contains(policy.Require, evidence.LevelBootLog) {
			policy.Require = append(policy.Require, evidence.LevelBootLog) // a boot that is not shown is none that is allowed
		}
		files, several, err := reportFiles(args)
		if err != nil {
			return 0, err
		}
		if several && policy.Nonce != nil {
			return 0, errUsage{errors.New("verify: -nonce is that of one report: give one REPORT")}
		}
		var seen *baseline.File
		if *first != "" {
			if seen, err = baseline.Open(*first); err != nil {
				return 0, errUsage{fmt.Errorf("-baseline: %w", err)}
			}
		}
		var all []verified
		for _, file := range files {
			report, thing, err := readReport(file, s.In)
			if err != nil {
				return 0, err
			}
			v := verified{file, heldTo(thing, evidence.Verify(report, policy))}
			if seen != nil {
				seen.Hold(v.Result, policy.Now, *renew)
			}
			all = append(all, v)
		}
		if seen != nil {
			if err := seen.Save(); err != nil {
				return 0, fmt.Errorf("-baseline: %w", err)
			}
		}
		switch {
		case *asCSV:
			return show(s.Out, all, writeCSV)
		case *asJSON && several:
			return show(s.Out, all, writeJSON)
		case *asJSON:
			return show(s.Out, all, func(w io.Writer, all []verified) error { return indented(w, all[0].Result) })
		case several:
			return show(s.Out, all, tableOf(terminal.Of(s.Out)))
		}
		return show(s.Out, all, textOf(terminal.Of(s.Out)))
	})
}

// levelNames reads a list of levels.
func levelNames(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.Contains(evidence.Levels(), name) {
			return nil, fmt.Errorf("verify: -require: no level %q; the levels are %s", name, strings.Join(evidence.Levels(), ", "))
		}
	}
	return names, nil
}

// reportFiles returns the files that the arguments name. Several is set if more
// than one was asked for, however many there are.
func reportFiles(args []string) (files []string, several bool, err error) {
	several = len(args) > 1
	for _, arg := range args {
		info, err := os.Stat(arg)
		if arg == "-" || err == nil && !info.IsDir() {
			files = append(files, arg)
			continue
		}
		if err != nil {
			return nil, false, err
		}
		several = true
		found := 0
		err = filepath.WalkDir(arg, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type().IsRegular() && strings.EqualFold(filepath.Ext(name), ".json") {
				files, found = append(files, name), found+1
			}
			if len(files) > maxReports {
				return fmt.Errorf("%s: more than %d reports", arg, maxReports)
			}
			return nil
		})
		if err == nil && found == 0 {
			err = fmt.Errorf("%s holds no files *.json", arg)
		}
		if err != nil {
			return nil, false, err
		}
	}
	return files, several, nil
}

// readReport reads a report, and little more where there is more, and the thing that
// its envelope is of, if it is in one.
func readReport(name string, stdin io.Reader) (report []byte, thing string, err error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxEnvelope))
	if err != nil {
		return nil, "", err
	}
	report, thing = open(bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")))
	return report, thing, nil
}

// verified is the result on one report.
type verified struct {
	File string `json:"file"`
	*evidence.Result
}

// show writes results and returns the worst verdict.
func show(out io.Writer, all []verified, write func(io.Writer, []verified) error) (device.Status, error) {
	var b bytes.Buffer
	if err := write(&b, all); err != nil {
		return 0, err
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return worst(all), nil
}

func worst(all []verified) device.Status {
	var verdicts []device.Status
	for _, v := range all {
		verdicts = append(verdicts, v.Verdict)
	}
	return device.Worst(verdicts...)
}

func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func writeJSON(w io.Writer, all []verified) error {
	return indented(w, struct {
		Verdict device.Status `json:"verdict"`
		Reports []verified    `json:"reports"`
	}{worst(all), all})
}

func writeCSV(w io.Writer, all []verified) error {
	table := csv.NewWriter(w)
	head := []string{"file", "thingName", "reportId", "time", "verdict", "stated", "computed", "evidence"}
	table.Write(append(append(head, evidence.Levels()...), "reasonCodes")) // Error tells
	for _, v := range all {
		row := []string{v.File, "", "", "", v.Verdict.String(), "", "", v.Evidence.String()}
		codes := []string{}
		if r := v.Report; r != nil {
			row[1], row[2], row[3], row[5], row[6] = r.ThingName, r.ID, r.Time.Format(time.RFC3339), r.Verdict.String(), r.Computed.String()
			codes = append(codes, r.ReasonCodes...)
		}
		for _, name := range evidence.Levels() {
			i := slices.IndexFunc(v.Levels, func(l evidence.Level) bool { return l.Name == name })
			row = append(row, v.Levels[i].Status.String())
		}
		for _, f := range v.Findings {
			if f.ReasonCode != "" && !slices.Contains(codes, f.ReasonCode) {
				codes = append(codes, f.ReasonCode)
			}
		}
		row = append(row, strings.Join(codes, " "))
		for i := range row {
			row[i] = cell(row[i])
		}
		table.Write(row)
	}
	table.Flush()
	return table.Error()
}

// cell keeps text by strangers from being a formula where the table is opened.
func cell(text string) string {
	text = cli.Printable(text)
	if strings.HasPrefix(text, "=") || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") || strings.HasPrefix(text, "@") {
		return "'" + text
	}
	return text
}

// tableOf shows many reports to a person, one line each; the last line is the
// verdict of all.
func tableOf(style terminal.Style) func(io.Writer, []verified) error {
	return func(w io.Writer, all []verified) error {
		var lines []terminal.Line
		for _, v := range all {
			thing, why := "", ""
			if v.Report != nil {
				thing = v.Report.ThingName
			}
			for _, l := range v.Levels {
				if l.Status == v.Verdict && why == "" {
					why = l.Name + ": " + l.Reason
				}
			}
			if why == "" && v.Report != nil {
				why = strings.Join(v.Report.ReasonCodes, " ")
			}
			lines = append(lines, terminal.Line{Status: v.Verdict, Word: v.Verdict.String(), Cells: []string{v.File, thing, why}})
		}
		_, err := io.WriteString(w, style.Table(nil, lines)+"\n"+style.Verdict(worst(all), terminal.Count(len(all), "report", "reports")))
		return err
	}
}

// textOf writes one result to a person, for what shows it in that style; the last
// line is the verdict.
func textOf(style terminal.Style) func(io.Writer, []verified) error {
	return func(w io.Writer, all []verified) error { return writeText(w, style, all[0].Result) }
}

func writeText(w io.Writer, style terminal.Style, r *evidence.Result) error {
	var b strings.Builder
	items, counts := []terminal.Item{}, make(map[device.Status]int)
	schema := r.Levels[0]
	for _, l := range r.Levels {
		counts[l.Status]++
		if schema.Status != device.Fail || l.Name == schema.Name {
			items = append(items, terminal.Item{Status: l.Status, Name: l.Name, Why: l.Reason})
		}
	}
	if n := len(r.Levels) - len(items); n > 0 { // what is no report has only that to be said of it
		items = append(items, terminal.Item{Status: device.Undecided, Name: "others", Why: fmt.Sprintf("%d levels skipped: they depend on %q, which does not hold", n, schema.Name)})
	}
	b.WriteString(style.Items(items))
	if len(r.Findings) > 0 {
		b.WriteString("\n" + style.Findings(r.Findings))
	}
	if s := r.Report; s != nil {
		name := "report " + s.ID
		if s.ThingName != "" {
			name += " of " + s.ThingName
		}
		b.WriteString("\n" + style.Text(name+": "+s.Verdict.String()+" "+strings.Join(s.ReasonCodes, " ")) + style.Text("evidence: "+r.Evidence.String()))
	}
	if s := r.Statement; s != nil {
		b.WriteString(style.Text(fmt.Sprintf("attestation key: %x", []byte(s.AKName))))
	}
	var parts []string
	for _, c := range []struct {
		status device.Status
		words  string
	}{{device.Fail, "failed"}, {device.Undecided, "undecided"}, {device.Warn, "not shown in full"}, {device.Pass, "passed"}} {
		if n := counts[c.status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.words))
		}
	}
	if n := len(r.Findings); n > 0 {
		parts = append(parts, terminal.Count(n, "finding", "findings"))
	}
	b.WriteString("\n" + style.Verdict(r.Verdict, "of "+terminal.Count(len(r.Levels), "level", "levels")+" "+strings.Join(parts, ", ")))
	_, err := io.WriteString(w, b.String())
	return err
}
