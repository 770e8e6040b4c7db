package cmd_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// idiom is a turn of phrase that a reader has to think about, with what
// everybody writes.
type idiom struct {
	pattern *regexp.Regexp
	instead string
}

// headless is the one idiom whose case matters.
var headless = idiom{regexp.MustCompile(`(?:^|[.:!?;] |")Who [^.?!"]*(?:[.!]|$)`), "a subject: the caller, a program that"}

// idioms reads testdata/english.tsv: regular expressions in lower case, and what
// to write instead. Those that begin with letters are found fastest.
func idioms(t *testing.T) []idiom {
	text, err := os.ReadFile("testdata/english.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var list []idiom
	for line := range strings.Lines(string(text)) {
		pattern, instead, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Fatalf("testdata/english.tsv: %q has no tab", line)
		}
		list = append(list, idiom{regexp.MustCompile(pattern), instead})
	}
	return list
}

// TestEnglish keeps the idioms out of code, documents, man pages and every
// other text of the tree.
func TestEnglish(t *testing.T) {
	list, read := idioms(t), 0
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch base := d.Name(); {
		case err != nil:
			return err
		case d.IsDir():
			if base[0] == '.' && !slices.Contains([]string{"..", ".ci", ".github"}, base) ||
				slices.Contains([]string{"testdata", "bin", "dist"}, base) {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular() || base == "LICENSE" || base == "english_test.go":
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			return err
		}
		read++
		for _, found := range odd(list, string(text)) {
			t.Errorf("%s: %s", name, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 500 {
		t.Fatalf("only %d files read: the test looks in the wrong place", read)
	}
}

var (
	paragraphs = regexp.MustCompile(`\n[ \t]*(?://|#)?[ \t]*(?:\n|$)|\n\.[A-Z]|\n[ \t]*[-|*] `)
	lineBreak  = regexp.MustCompile(`\s*\n[ \t]*(?:(?://|#+) ?)?`)
)

// odd returns what is wrong with a text. A phrase may go over the end of a line.
func odd(list []idiom, text string) []string {
	var found []string
	for _, p := range paragraphs.Split(text, -1) {
		p = strings.TrimLeft(strings.TrimSpace(lineBreak.ReplaceAllString(p, " ")), "/# ")
		say := func(i idiom, p string) {
			for _, phrase := range i.pattern.FindAllString(p, -1) {
				found = append(found, "\""+phrase+"\": write "+i.instead)
			}
		}
		if strings.Contains(p, "Who ") {
			say(headless, p)
		}
		p = strings.ToLower(p)
		for _, i := range list {
			say(i, p)
		}
	}
	return found
}

func TestOdd(t *testing.T) {
	list := idioms(t)
	for text, want := range map[string]int{
		"// isKey tells whether it is a key.":                    1,
		"\t// isKey tells\n\t// whether it is a key.\n":          1,
		"# isKey tells\n# whether it is a key.\n":                1,
		"A clock that is wrong is told\nas such, so that nobody": 2,
		"// Who can read it has it.":                             1,
		"// It is shut. Who has a file open\n// keeps it.\n":     1,
		"It changes nothing, in the TPM neither.":                1,
		"Who can read the file? The owner.":                      0,
		"// isKey reports whether it is a key.":                  0,
		"whether it tells\n\nwhether":                            0,
		"The World Health Organization (WHO) tells people":       0,
	} {
		if got := odd(list, text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
}
