package cmd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// idioms are turns of phrase that a reader has to think about, with what
// everybody writes.
var idioms = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\btells? (whether|why|what)\b`), "reports whether, returns why, says what"},
	{regexp.MustCompile(`(?i)\btold as\b`), "reported as"},
	{regexp.MustCompile(`(?i)\bso long before\b`), "this long before"},
	{regexp.MustCompile(`(?i)\bmade anew\b`), "recreated, regenerated"},
	{regexp.MustCompile(`(?i)\bgone on with\b`), "resumed"},
	{regexp.MustCompile(`(?i)\bin anew\b`), "re-enrolled"},
	{regexp.MustCompile(`(?i)\bso that nobody\b`), "so nobody"},
	{regexp.MustCompile(`(?:^|[.:!?;] |")Who [^.?!"]*(?:[.!]|$)`), "a subject: the caller, a program that"},
}

// TestEnglish keeps the idioms out of code, documents and man pages.
func TestEnglish(t *testing.T) {
	read := 0
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if base := d.Name(); base != ".." && (base[0] == '.' || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		case !slices.Contains([]string{".go", ".md", ".1", ".5"}, filepath.Ext(name)) || d.Name() == "english_test.go":
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		read++
		for _, found := range odd(string(text)) {
			t.Errorf("%s: %s", name, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 100 {
		t.Fatalf("only %d files read: the test looks in the wrong place", read)
	}
}

var (
	paragraphs = regexp.MustCompile(`\n[ \t]*(?://)?[ \t]*(?:\n|$)|\n\.[A-Z]|\n[ \t]*[-|*] |\n#`)
	lineBreak  = regexp.MustCompile(`\s*\n[ \t]*(?:// ?)?`)
)

// odd returns what is wrong with a text. A phrase may go over the end of a line.
func odd(text string) []string {
	var found []string
	for _, p := range paragraphs.Split(text, -1) {
		p = strings.TrimPrefix(strings.TrimSpace(lineBreak.ReplaceAllString(p, " ")), "// ")
		for _, i := range idioms {
			for _, phrase := range i.pattern.FindAllString(p, -1) {
				found = append(found, "\""+phrase+"\": write "+i.instead)
			}
		}
	}
	return found
}

func TestOdd(t *testing.T) {
	for text, want := range map[string]int{
		"// isKey tells whether it is a key.":                    1,
		"\t// isKey tells\n\t// whether it is a key.\n":          1,
		"A clock that is wrong is told\nas such, so that nobody": 2,
		"// Who can read it has it.":                             1,
		"// It is shut. Who has a file open\n// keeps it.\n":     1,
		"Who can read the file? The owner.":                      0,
		"// isKey reports whether it is a key.":                  0,
		"whether it tells\n\nwhether":                            0,
		"The World Health Organization (WHO) tells people":       0,
	} {
		if got := odd(text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
}
