package cmd_test

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A fence is a block of a page between two lines of ```.
//
// What a reader types is in blocks of the language "console", as a terminal shows
// it: lines that begin with "$ " are commands, "> " goes on with one, and the
// other lines are the output. The words after the language are marks:
//
//	exit=1         the last command ends with this status; all others with 0
//	terminal=lab   in a terminal of that name, where the last command stays
//	not-run=aws    not run here: it needs one of [notRun]
//	picture=yes    what it prints is drawn in docs/terminal.svg
type fence struct {
	page     string
	line     int // of the opening one
	language string
	marks    map[string]string
	lines    []string
}

// A command is what a reader types, and what the page says is the output; nil
// if it says nothing.
type command struct {
	line string
	want []string
}

// notRun are the marks of what a test cannot run.
var notRun = map[string]string{
	"aws":     "an AWS account",
	"board":   "a board with a TPM",
	"build":   "make, which builds what this test has built already",
	"files":   "files of the reader's own",
	"long":    "minutes or hours",
	"network": "the network",
	"root":    "root, or a package that is installed",
	"yocto":   "bitbake, Buildroot or another builder of images",
}

// languages are those of blocks that are not to be typed.
var languages = []string{"bitbake", "conf", "ini", "json", "sh-script", "text", "toml", "yaml"}

// pages are the documents that are held to their commands; the README and the
// quick start come first, since the others go on where they end.
func pages(t *testing.T) []string {
	t.Helper()
	list := []string{"README.md", "docs/quick-start.md"}
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch name, _ := filepath.Rel("..", file); {
		case err != nil:
			return err
		case d.IsDir() && (len(d.Name()) > 2 && d.Name()[0] == '.' || slices.Contains([]string{"testdata", "bin", "dist", "weak"}, d.Name())):
			return filepath.SkipDir
		case filepath.Ext(file) == ".md" && name != "CHANGELOG.md" && !slices.Contains(list, name):
			list = append(list, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("only %d pages: the test looks in the wrong place", len(list))
	}
	return list
}

// fences reads the blocks of a page. What is no block, but looks like one, is an
// error: an indented one, one without a language, a mark that nobody knows.
func fences(page, text string) (blocks []fence, err error) {
	var open *fence
	blank := true
	for i, line := range strings.Split(text, "\n") {
		mark, fenced := strings.CutPrefix(line, "```")
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", page, i+1, fmt.Sprintf(format, args...))
		}
		switch {
		case fenced && open == nil:
			words := strings.Fields(mark)
			if len(words) == 0 {
				return nil, wrong("a block without a language")
			}
			open = &fence{page: page, line: i + 1, language: words[0], marks: make(map[string]string)}
			for _, word := range words[1:] {
				name, value, _ := strings.Cut(word, "=")
				open.marks[name] = value
				if !slices.Contains([]string{"exit", "terminal", "not-run", "picture"}, name) || value == "" {
					return nil, wrong("unknown mark %q", word)
				}
			}
			if why, marked := open.marks["not-run"]; marked && notRun[why] == "" {
				return nil, wrong("unknown reason %q", why)
			}
			if open.language != "console" && !slices.Contains(languages, open.language) {
				return nil, wrong("unknown language %q: commands are console", open.language)
			}
		case fenced:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(line, "    ") && blank:
			return nil, wrong("an indented block: write ```console or another language around it")
		}
		blank = line == ""
	}
	if open != nil {
		return nil, fmt.Errorf("%s:%d: a block without an end", page, open.line)
	}
	return blocks, nil
}

// commands are those of a console block.
func (f *fence) commands() (list []command, err error) {
	for i, line := range f.lines {
		typed, isCommand := strings.CutPrefix(line, "$ ")
		more, goesOn := strings.CutPrefix(line, "> ")
		switch {
		case isCommand:
			list = append(list, command{line: typed})
		case len(list) == 0:
			return nil, fmt.Errorf("%s:%d: output before the first command: does a \"$ \" lack?", f.page, f.line+i+1)
		case goesOn && list[len(list)-1].want == nil:
			list[len(list)-1].line += "\n" + more
		default:
			list[len(list)-1].want = append(list[len(list)-1].want, line)
		}
	}
	return list, nil
}

var built = flag.String("programs", "", "a directory with keyvet's programs; default: build them")

// build returns a directory with the programs.
func build(t *testing.T) (dir string) {
	t.Helper()
	if *built != "" {
		dir, err := filepath.Abs(*built)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir = t.TempDir()
	c := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir, "./cmd/keyvet", "./cmd/keyvet-blocklist", "./cmd/keyvet-fleet", "./cmd/keyvet-lab")
	c.Dir, c.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestFences runs every command of the documents, and compares the output where
// the page shows some. Of commands that cannot be run here it asks that program,
// subcommand and flags exist.
func TestFences(t *testing.T) {
	bin := build(t)
	t.Run("unknown", func(t *testing.T) { testUnknown(t, bin) })
	desk := newDesk(t, bin)
	picture := newPicture(t, desk)
	ran, left := 0, make(map[string]int)
	for _, page := range pages(t) {
		text := read(t, filepath.Join("..", page))
		blocks, err := fences(page, string(text))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range inline.FindAllSubmatch(fenced.ReplaceAll(text, nil), -1) {
			for _, wrong := range unknown(t, bin, string(m[1])) {
				t.Errorf("%s: `%s`: %s", page, m[1], wrong)
			}
		}
		desk.turnPage()
		for _, block := range blocks {
			if block.language != "console" {
				continue
			}
			list, err := block.commands()
			if err != nil {
				t.Error(err)
			}
			for _, c := range list {
				for _, wrong := range unknown(t, bin, c.line) {
					t.Errorf("%s:%d: %s", page, block.line, wrong)
				}
			}
			if why := block.marks["not-run"]; why != "" {
				left[why] += len(list)
				continue
			}
			ran += len(list)
			if err := desk.run(&block, list); err != nil {
				t.Errorf("%s:%d: %v", page, block.line, err)
			}
			picture.add(&block, list[0])
		}
	}
	picture.end()
	t.Logf("%d commands were run", ran)
	for _, why := range slices.Sorted(maps.Keys(left)) {
		t.Logf("%3d were not: they need %s", left[why], notRun[why])
	}
	if ran < 30 {
		t.Errorf("only %d commands were run: the pages are not read rightly", ran)
	}
}

var (
	fenced   = regexp.MustCompile("(?ms)^```.*?^```$")
	inline   = regexp.MustCompile("`([^`\n]+)`")
	joints   = regexp.MustCompile(`\|\|?|&&?|;|\n|\$\(|\bdo\b|\bthen\b`)
	programs = regexp.MustCompile(`^(?:sudo |runuser -u keyvet -- |[A-Z_]+=\S* |timeout \S+ )*(?:bin/|\./)?(keyvet(?:-blocklist|-fleet|-lab)?|make)(?: |$)`)
)

// unknown returns what a command line asks of keyvet's programs, and of make,
// that they do not have.
func unknown(t *testing.T, bin, line string) (wrong []string) {
	line = regexp.MustCompile(`\\\n|'[^']*'|"[^"]*"|(?m:(?:^| )#.*$)`).ReplaceAllString(line, " ")
	for _, part := range joints.Split(line, -1) {
		part = strings.TrimSpace(part)
		m := programs.FindStringSubmatch(part)
		if m == nil {
			continue
		}
		words := strings.Fields(part[strings.Index(part, m[1])+len(m[1]):])
		if m[1] == "make" {
			for _, word := range words {
				if !strings.ContainsAny(word, "=-$…") && !strings.Contains(part, "BR2_") && !regexp.MustCompile(`(?m)^`+word+`:`).Match(read(t, "../Makefile")) {
					wrong = append(wrong, "make has no target "+word)
				}
			}
			continue
		}
		var names []string
		for _, word := range words[:min(2, len(words))] {
			if word[0] == '-' || strings.ContainsAny(word, "./$") || len(names) == 1 && m[1] != "keyvet-lab" && names[0] != "debug" {
				break
			}
			names = append(names, word)
		}
		text, err := helpOf(bin, m[1], names)
		if err != nil && len(names) == 2 {
			text, err = helpOf(bin, m[1], names[:1])
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s has no %q", m[1], names))
			continue
		}
		for _, word := range words {
			name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
			if word[0] == '-' && name != "" && !regexp.MustCompile(`(?m)(^  |[[ |])-`+regexp.QuoteMeta(name)+`\b`).Match(text) {
				wrong = append(wrong, fmt.Sprintf("%s %s has no flag %s", m[1], strings.Join(names, " "), word))
			}
		}
	}
	return wrong
}

// helpOf returns what a program says of a command.
func helpOf(bin, program string, names []string) ([]byte, error) {
	c := exec.Command(filepath.Join(bin, program), append([]string{"help"}, names...)...)
	out, err := c.CombinedOutput()
	return append(out, " -h -version"...), err
}

// testUnknown has command lines that ask for what there is not.
func testUnknown(t *testing.T, bin string) {
	for line, want := range map[string]int{
		"keyvet check -tpm /dev/tpmrm0 -v":                               0,
		"sudo keyvet check -tmp /dev/tpmrm0":                             1,
		"keyvet frob":                                                    1,
		"ssh-keyscan host | keyvet check -format lines - | cat -z":       0,
		"bin/keyvet-lab job create -operaton x y && keyvet status --jsn": 2,
		"make demo":                      0,
		"make dmeo FOO=1":                1,
		"echo keyvet frob # keyvet frob": 0,
		"while read f; do keyvet check -only roca -fial-on high $f; done": 1,
	} {
		if got := unknown(t, bin, line); len(got) != want {
			t.Errorf("%s: %q, want %d", line, got, want)
		}
	}
}

func TestReadFences(t *testing.T) {
	for text, want := range map[string]string{
		"    $ keyvet check\n":                                   "indented",
		"```\n$ keyvet\n```\n":                                   "without a language",
		"```sh\n$ keyvet\n```\n":                                 "unknown language",
		"```console not-run=tomorrow\n$ keyvet\n```\n":           "unknown reason",
		"```console norun=aws\n$ keyvet\n```\n":                  "unknown mark",
		"```console\n$ keyvet\n":                                 "without an end",
		"- a list\n    goes on\n\n```toml\na = 1\n```\n":         "",
		"```console exit=1\n$ false\n```\n```ini\n[Unit]\n```\n": "",
	} {
		_, err := fences("page.md", text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	block := fence{lines: []string{"$ a \\", "> b", "x", "> y", "$ c"}}
	got, err := block.commands()
	if want := []command{{"a \\\nb", []string{"x", "> y"}}, {line: "c"}}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, %v", got, err)
	}
	block.lines = []string{"keyvet check"}
	if _, err := block.commands(); err == nil {
		t.Error("a block without a command")
	}
}

// TestLinks has the links of the documents lead to files and headings that exist.
func TestLinks(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		text := inline.ReplaceAll(fenced.ReplaceAll(read(t, filepath.Join("..", page)), nil), nil)
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"`).FindAllSubmatch(text, -1) {
			to := string(bytes.Join(m[1:], nil))
			if strings.Contains(to, ":") {
				continue
			}
			links++
			file, heading, _ := strings.Cut(to, "#")
			at := filepath.Join("..", filepath.Dir(page), file)
			if file == "" {
				at = filepath.Join("..", page)
			}
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if heading != "" && !slices.Contains(headings(read(t, at)), heading) {
				t.Errorf("%s: %s has no heading %q", page, at, heading)
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links: the pages are not read rightly", links)
	}
}

// headings are the anchors that GitHub gives the headings of a page.
func headings(text []byte) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
		list = append(list, strings.ReplaceAll(anchor, " ", "-"))
	}
	return list
}
