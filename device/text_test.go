package device

import "testing"

func TestOneLine(t *testing.T) {
	for _, tt := range []struct {
		in   string
		max  int
		want string
	}{
		{"", 8, ""}, {"plain", 8, "plain"}, {"plain", 3, "pla"}, {"a\nb\x1b[2J\x00", 8, "a b [2J "}, {"größe", 3, "gr"}, {"gr\xff\xfe", 4, "gr"}, {"\u202eevil", 8, " evil"},
	} {
		if got := OneLine(tt.in, tt.max); got != tt.want {
			t.Errorf("OneLine(%q, %d) = %q, want %q", tt.in, tt.max, got, tt.want)
		}
	}
}
