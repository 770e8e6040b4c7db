package rotate_test

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestReasonCodesAreDocumented holds the table of the guide to the constants.
func TestReasonCodesAreDocumented(t *testing.T) {
	codes := func(file, pattern string) []string {
		b, err := os.ReadFile(file)
		must(t, err)
		var all []string
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(b, -1) {
			all = append(all, string(m[1]))
		}
		slices.Sort(all)
		return all
	}
	declared := codes("reason.go", `"(KEYVET_ROTATE_[A-Z_]+)"`)
	documented := codes("../../docs/rotation.md", "(?m)^\\| `(KEYVET_ROTATE_[A-Z_]+)` \\|")
	if len(declared) < 20 || !slices.Equal(declared, documented) {
		t.Errorf("declared   %v\ndocumented %v", declared, documented)
	}
}
