package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCompletion asks bash what it completes to: every command, and every flag
// that the help of a command tells of.
func TestCompletion(t *testing.T) {
	file, err := os.ReadFile("../../packaging/keyvet.bash")
	if err != nil {
		t.Fatal(err)
	}
	script := string(file) + `
read -ra COMP_WORDS <<<"$1"; COMP_WORDS+=("$2"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _keyvet; printf '%s\n' "${COMPREPLY[@]}"`
	equal := func(line string, want []string) {
		t.Helper()
		prefix := ""
		if strings.HasSuffix(line, "-") {
			line, prefix = strings.TrimSuffix(line, "-"), "-"
		}
		out, err := exec.Command("bash", "-c", script, "bash", line, prefix).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		want = slices.Sorted(slices.Values(want))
		if !slices.Equal(got, want) {
			t.Errorf("keyvet.bash, %s%s: %q, want %q", line, prefix, got, want)
		}
	}
	equal("keyvet ", commandNames)
	flag := regexp.MustCompile(`(?m)^  (-[a-z]+)`)
	for command, text := range helpTexts {
		var flags []string
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			flags = append(flags, m[1])
		}
		if len(flags) == 0 {
			t.Errorf("help %s tells of no flags", command)
		}
		equal("keyvet "+command+" -", flags)
	}
	var topics []string
	for command := range helpTexts {
		topics = append(topics, command)
	}
	equal("keyvet help ", topics)
}
