package format

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// suite is a test suite of JUnit: the keys of one file.
type suite struct {
	name  string
	cases []testCase
	notes []string // warnings, which JUnit has no word for
}

// testCase is one check of one key.
type testCase struct {
	class, name string
	status      device.Status
	reason      device.ReasonCode
	lines       []string
}

// JUnit writes a report in the XML of JUnit's reports, as Windy Road's schema and
// Jenkins have it: a file is a suite, a check of a key a test case. What fails is
// a failure, what is undecided or could not be read an error. A warning is a test
// case that passed, and a line of the suite's output. The report has to be one
// with what passed in it.
func JUnit(w io.Writer, r *device.Report) error {
	var suites []*suite
	byName := make(map[string]*suite)
	in := func(name string) *suite {
		s := byName[name]
		if s == nil {
			s = &suite{name: name}
			byName[name], suites = s, append(suites, s)
		}
		return s
	}
	for _, i := range items(r) {
		file, _, other := i.place()
		if file == "" {
			file = other
		}
		in(file).add(i)
	}
	for _, g := range gaps(r) {
		if !g.Minor {
			s := in("what could not be checked")
			s.cases = append(s.cases, testCase{g.What, "read", device.Undecided, device.CouldNotLook.Code, []string{g.Why}})
		}
	}
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n")
	for n, s := range suites {
		s.write(&b, n, r)
	}
	b.WriteString("</testsuites>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// add adds a finding to the test case that it belongs to.
func (s *suite) add(i item) {
	line := i.Message
	if i.ReasonCode != "" {
		line = string(i.Severity) + " " + i.ReasonCode + ": " + line
	}
	line = strings.TrimSpace(line)
	at := slices.IndexFunc(s.cases, func(c testCase) bool { return c.class == i.Key && c.name == i.Check })
	if at < 0 {
		at = len(s.cases)
		s.cases = append(s.cases, testCase{class: i.Key, name: i.Check, status: device.Pass})
	}
	c := &s.cases[at]
	switch status := i.Counts(); status {
	case device.Fail, device.Undecided:
		if worst := device.Worst(c.status, status); worst != c.status {
			c.status, c.reason = worst, cmp.Or(i.ReasonCode, i.Check)
		}
		c.lines = append(c.lines, line)
	case device.Warn:
		s.notes = append(s.notes, fmt.Sprintf("WARN %s %s: %s", i.Check, i.Key, line))
	}
}

func (s *suite) write(b *strings.Builder, n int, r *device.Report) {
	failures, errors := 0, 0
	for _, c := range s.cases {
		switch c.status {
		case device.Fail:
			failures++
		case device.Undecided:
			errors++
		}
	}
	fmt.Fprintf(b, `  <testsuite id="%d" package="keyvet" name="%s" timestamp="%s" hostname="localhost" tests="%d" failures="%d" errors="%d" skipped="0" time="0">`+"\n    <properties/>\n",
		n, escape(s.name), r.Time.UTC().Format("2006-01-02T15:04:05"), len(s.cases), failures, errors)
	for _, c := range s.cases {
		fmt.Fprintf(b, `    <testcase classname="%s" name="%s" time="0"`, escape(c.class), escape(c.name))
		element := map[device.Status]string{device.Fail: "failure", device.Undecided: "error"}[c.status]
		if element == "" {
			b.WriteString("/>\n")
			continue
		}
		fmt.Fprintf(b, ">\n      <%s type=\"%s\" message=\"%s\">%s</%s>\n    </testcase>\n", element, escape(c.reason), escape(c.lines[0]), escape(c.lines...), element)
	}
	fmt.Fprintf(b, "    <system-out>%s</system-out>\n    <system-err></system-err>\n  </testsuite>\n", escape(s.notes...))
}

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

// escape makes lines fit for XML, which has no room for control characters.
func escape(lines ...string) string {
	printable := make([]string, len(lines))
	for i, line := range lines {
		printable[i] = cli.Printable(line)
	}
	return xmlEscapes.Replace(strings.Join(printable, "\n"))
}
