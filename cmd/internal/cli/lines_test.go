package cli

import (
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	long := "`su -s /bin/sh -c 'keyvet rotate -config /etc/keyvet/other.toml' keyvet`"
	for _, tt := range []struct {
		name, text string
		width      int
		want       string
	}{
		{"any width", "one two\nthree", 0, "one two three"},
		{"words", "one two three four", 12, "one two\n  three four"},
		{"a long word", "see https://example.org/a/long/path for more", 12, "see\n  https://example.org/a/long/path\n  for more"},
		{"a command that fits", "state: run `keyvet status` as root", 26, "state: run `keyvet status`\n  as root"},
		{"a command on the next line", "the state: run `keyvet status`, as root", 26, "the state: run\n  `keyvet status`, as root"},
		{"a command that fits on no line", "not yours; run: " + long, 40, "not yours; run:\n  " + long},
		{"words after it", long + " and then again", 40, long + "\n  and then again"},
		{"two commands", "(`tpm2_flushcontext -t`; `keyvet run` flushes its own)", 24, "(`tpm2_flushcontext -t`;\n  `keyvet run` flushes\n  its own)"},
		{"a quotation without an end", "what is `one two three four", 16, "what is `one two\n  three four"},
		{"a hint", "no such flag (" + whole("keyvet help check") + ")", 20, "no such flag\n  (keyvet help check)"},
		{"what steers a terminal", "`a\x1b[31m b\u00a0c`\x07", 80, "`a\uFFFD[31m b c`\uFFFD"},
		{"nothing", " \n ", 10, ""},
	} {
		if got := Wrap(tt.text, tt.width, 0, 2); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := Said(new(strings.Builder), "p", "no ("+whole("p help x")+")"); got != "p: no (p help x)" {
		t.Errorf("off a terminal: %q", got)
	}
}
