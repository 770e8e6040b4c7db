package terminal

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
)

func TestSteps(t *testing.T) {
	type step struct {
		name string
		back bool
		ms   int
	}
	for _, c := range []struct {
		name    string
		style   Style
		sampled bool
		steps   []step
		end     device.Status
		want    []string
	}{
		{
			name: "done", steps: []step{{"make", false, 1250}, {"try", false, 40}}, end: device.Pass,
			want: []string{"done  make     1.2 s  the key", "done  try      0.0 s  a connection"},
		},
		{
			name: "rolled back", style: Style{Width: 80, Color: true, Marks: true},
			steps: []step{{"make", false, 0}, {"try", false, 2000}, {"try", true, 0}, {"make", true, 100}}, end: device.Fail,
			want: []string{
				"\x1b[32m✓ done\x1b[0m  make     0.0 s  the key", "\x1b[31m✗ FAIL\x1b[0m  try      2.0 s  a connection",
				"\x1b[33m! back\x1b[0m  make     0.1 s  the key is removed",
			},
		},
		{name: "refused at once", steps: []step{{"make", false, 0}}, end: device.Fail, want: []string{"FAIL  make     0.0 s  the key"}},
		{name: "waits", steps: []step{{"try", false, 60_000}}, end: device.Undecided, want: []string{"wait  try     60.0 s  a connection"}},
		{
			name: "no key was made", steps: []step{{"make", false, 0}, {"make", true, 0}}, end: device.Fail,
			want: []string{"FAIL  make     0.0 s  the key"},
		},
		{name: "cut short on the way back", steps: []step{{"make", true, 0}}, end: device.Fail},
		{
			name: "cut short after the key was made", steps: []step{{"try", true, 0}, {"make", true, 0}}, end: device.Fail,
			want: []string{"back  make     0.0 s  the key is removed"},
		},
		{
			name: "seen by samples", sampled: true, steps: []step{{"make", false, 0}, {"try", false, 0}, {"make", true, 0}}, end: device.Fail,
			want: []string{"done  make     0.0 s  the key", "FAIL  try      0.0 s  this step or one after it", "back  make     0.0 s  the key is removed"},
		},
		{
			name: "forward after all", steps: []step{{"try", true, 0}, {"try", false, 0}}, end: device.Pass,
			want: []string{"kept  try      0.0 s  a connection", "done  try      0.0 s  a connection"},
		},
		{name: "nothing begun", end: device.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				s := Steps{
					Out: &out, Style: c.style, Sampled: c.sampled,
					For: map[string]string{"make": "the key", "try": "a connection"}, Back: map[string]string{"make": "the key is removed"},
				}
				for _, step := range c.steps {
					s.Begin(step.name, step.back)
					time.Sleep(time.Duration(step.ms) * time.Millisecond)
				}
				s.End(c.end)
				if want := strings.Join(append(c.want, ""), "\n"); out.String() != want {
					t.Errorf("got\n%swant\n%s", &out, want)
				}
			})
		})
	}
}
