package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func sample(got *[]string) *Program {
	return &Program{
		Name: "thing", About: "thing does things.", Version: "1.2", Commit: "abc",
		Examples: []string{"thing do a.pem"}, Notes: "exit status: 0 or not",
		Details: func() [][2]string { return [][2]string{{"lists", "none"}} },
		Values:  map[string][]string{"bus": {"spi:", "i2c:"}},
		Commands: []Command{
			{
				Name: "do", Args: "[FILE ...]", Short: "does", Long: "Does it all.", Most: -1,
				New: func(f *flag.FlagSet) Action {
					config, bus, fast := f.String("config", "", "`F` names the configuration"), f.String("bus", "", "`ADDR` of the bus"), f.Bool("fast", false, "in a hurry")
					f.Duration("wait", 0, "for this `LONG`")
					f.Int("times", 0, "`N` times")
					return func(_ context.Context, s IO, args []string) int {
						*got = append([]string{*config, *bus}, args...)
						if *fast {
							return s.Misused("not fast")
						}
						return Pass
					}
				},
			},
			{Name: "job list", Short: "lists", New: func(*flag.FlagSet) Action {
				return func(context.Context, IO, []string) int { return Undecided }
			}},
			{Name: "job cancel", Args: "ID", Short: "cancels", Least: 1, Most: 1, New: func(*flag.FlagSet) Action {
				return func(context.Context, IO, []string) int { return Fail }
			}},
		},
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		out    string // a part of standard output
		err    string // all of standard error, or a part
	}{
		{"", Usage, "", "usage: thing COMMAND"},
		{"help", Pass, "job cancel  cancels", ""},
		{"--help", Pass, "usage: thing COMMAND", ""},
		{"-h", Pass, "usage: thing COMMAND", ""},
		{"help do", Pass, "usage: thing do [-bus ADDR] [-config F] [-fast] [-times N] [-wait LONG]", ""},
		{"do -h", Pass, "Does it all.", ""},
		{"do --help", Pass, "-config F", ""},
		{"help job", Pass, "thing job cancel ID", ""},
		{"help job cancel", Pass, "thing job cancel ID", ""},
		{"help doo", Usage, "", `unknown command "doo", did you mean "do"?`},
		{"help do it", Usage, "", "help takes one command"},
		{"version", Pass, "thing 1.2 (abc) go", ""},
		{"--version", Pass, "thing 1.2 (abc) go", ""},
		{"-version", Pass, "thing 1.2 (abc) go", ""},
		{"version -v", Pass, "lists: none", ""},
		{"version x", Usage, "", "version takes no arguments, got \"x\""},
		{"version -h", Pass, "what it was built from", ""},
		{"do a -config c b", Pass, "", ""},
		{"do -- -config", Pass, "", ""},
		{"do -fast", Usage, "", "thing: not fast (thing help do)"},
		{"do -confg x", Usage, "", "do has no flag -confg, did you mean -config?"},
		{"do -zzzzzz", Usage, "", "do has no flag -zzzzzz (thing help do)"},
		{"do -config", Usage, "", "do: -config needs a value"},
		{"do -fast=maybe", Usage, "", `do: -fast "maybe": not true or false (thing help do)`},
		{"do -wait soon", Usage, "", `do: -wait "soon": not a duration, such as 90s or 25h (thing help do)`},
		{"do -times=few", Usage, "", `do: -times "few": not a whole number (thing help do)`},
		{"job", Usage, "", `job needs a second word, such as "job list"`},
		{"job lst", Usage, "", `unknown command "job lst", did you mean "job list"?`},
		{"job list", Undecided, "", ""},
		{"job cancel", Usage, "", "job cancel needs ID"},
		{"job cancel a b", Usage, "", "job cancel takes nothing after \"a\", got \"b\""},
		{"job cancel a", Fail, "", ""},
		{"versoin", Usage, "", `did you mean "version"?`},
		{"entirely", Usage, "", `unknown command "entirely" (thing help)`},
		{"do \x1b[31m -x\x1b", Usage, "", "has no flag -x\uFFFD"},
	} {
		var got []string
		var out, errs bytes.Buffer
		status := sample(&got).Run(t.Context(), IO{In: nil, Out: &out, Err: &errs}, strings.Fields(c.args))
		if status != c.status || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.err) || (c.err == "") != (errs.Len() == 0) {
			t.Errorf("%q: exit status %d\n%s%s\nwant %d, %q and %q", c.args, status, &out, &errs, c.status, c.out, c.err)
		}
		if c.args == "do a -config c b" && strings.Join(got, ",") != "c,,a,b" || c.args == "do -- -config" && strings.Join(got, ",") != ",,-config" {
			t.Errorf("%q: got %q", c.args, got)
		}
		for line := range strings.Lines(out.String() + errs.String()) {
			if len(line) > textWidth+1 {
				t.Errorf("%q: a line of %d bytes: %s", c.args, len(line), line)
			}
		}
	}
}

func TestVersionJSON(t *testing.T) {
	var out bytes.Buffer
	sample(new([]string)).Run(t.Context(), IO{Out: &out, Err: &out}, []string{"version", "-json", "-v"})
	var v map[string]any
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v["version"] != "1.2" || v["details"].(map[string]any)["lists"] != "none" {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"chekc": "check", "check": "check", "chk": "check", "c": "", "xyz": "", "statu": "status"} {
		if got, _ := Nearest(word, []string{"check", "status", "run"}); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

// TestBash has bash itself complete.
func TestBash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "thing")
	if err := os.WriteFile(file, []byte(sample(new([]string)).Completion("bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"thing ":             "do job version help",
		"thing d":            "do",
		"thing do -":         "-bus -config -fast -times -wait",
		"thing do -bus s":    "spi:",
		"thing job ":         "list cancel",
		"thing job cancel -": "",
		"thing help j":       "job",
	} {
		words := strings.Split(line, " ")
		script := "source " + file + "; COMP_WORDS=("
		for _, w := range words {
			script += "'" + w + "' "
		}
		script += "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _thing; echo \"${COMPREPLY[*]}\""
		out, err := exec.Command("bash", "-c", script).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q: %v, completes %q, want %q", line, err, strings.TrimSpace(string(out)), want)
		}
	}
	for _, shell := range Shells {
		if text := sample(new([]string)).Completion(shell); !strings.Contains(text, "thing") || !strings.Contains(text, "config") {
			t.Errorf("%s: %s", shell, text)
		}
	}
}

// TestFullDisk has a standard output that takes nothing.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var got []string
	for _, line := range []string{"help", "help do", "help job", "do -h", "version", "version -v", "version -json"} {
		var said bytes.Buffer
		status := sample(&got).Run(t.Context(), IO{In: strings.NewReader(""), Out: full, Err: &said}, strings.Fields(line))
		if status != Undecided || !strings.Contains(said.String(), "no space left on device") {
			t.Errorf("%s: %d, %q", line, status, said.String())
		}
	}
}

func TestFiles(t *testing.T) {
	for args, want := range map[string]string{
		"":                  "[]",
		"-list a":           "[a]",
		"-list a x -list=b": "[a b]",
		"-list a -list=":    `thing: do: -list "": no file (thing help do)`,
	} {
		var got string
		p := &Program{Name: "thing", Commands: []Command{{Name: "do", Most: -1, New: func(f *flag.FlagSet) Action {
			lists := Files(f, "list", "`F`")
			return func(context.Context, IO, []string) int {
				got = fmt.Sprint(*lists)
				return Pass
			}
		}}}}
		var errs bytes.Buffer
		status := p.Run(t.Context(), IO{Err: &errs}, strings.Fields("do "+args))
		if all := got + strings.TrimSpace(errs.String()); all != want || (status == Pass) != (errs.Len() == 0) {
			t.Errorf("%q: exit status %d, %s, want %s", args, status, all, want)
		}
	}
}
