package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
)

// A request is followed to the end of its rotation, whoever serves it.
func TestFollow(t *testing.T) {
	under := func(step string, back bool) *rotate.State {
		return &rotate.State{Rotation: &rotate.Rotation{Step: step, Back: back, Old: rotate.Credential{ID: rotate.Configured}, New: rotate.Credential{ID: "r2"}}}
	}
	ended := func(status device.JobState) *rotate.State {
		return &rotate.State{Ended: []rotate.Outcome{{Status: status, Reason: rotate.ReasonCreateRejected, Message: "no", Time: time.Now()}}}
	}
	for _, tt := range []struct {
		name  string
		serve func(save func(*rotate.State), take func())
		want  string // in the error
		steps string
		taken bool
	}{
		{"done", func(save func(*rotate.State), take func()) {
			take()
			save(under("make", false))
			time.Sleep(time.Second)
			save(under("try", false))
			time.Sleep(time.Second)
			save(ended(device.JobSucceeded))
		}, "", "reserve, make, vet, enrol, check, try, commit, prove, retire", true},
		{"rolled back", func(save func(*rotate.State), take func()) {
			take()
			save(under("enrol", false))
			time.Sleep(time.Second)
			save(under("make", true))
			time.Sleep(time.Second)
			save(ended(device.JobFailed))
		}, "no", "reserve, make, vet, enrol, undo make", true},
		{"not taken", func(func(*rotate.State), func()) {}, "does not take the request", "", true},
		{"taken, and nothing begun", func(_ func(*rotate.State), take func()) { take() }, "began no rotation", "", true},
		{"never ended", func(save func(*rotate.State), take func()) { take(); save(under("try", false)) }, "has not ended the rotation", "reserve, make, vet, enrol, check, try", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				c := *config.Default()
				c.StateDir = dir
				save := func(s *rotate.State) { must(t, journalOf(c).Save(s)) }
				save(&rotate.State{Ended: []rotate.Outcome{{Status: device.JobFailed, Time: time.Now().Add(-time.Hour)}}})
				a, err := Ask(c)
				must(t, err)
				if _, err := os.Stat(c.RequestPath()); err != nil {
					t.Error(err)
				}
				go func() {
					time.Sleep(10 * time.Second)
					tt.serve(save, func() { must(t, os.Remove(c.RequestPath())) })
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
				defer cancel()
				var steps []string
				err = a.Follow(ctx, func(step string, back bool) {
					if back {
						step = "undo " + step
					}
					steps = append(steps, step)
				})
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || strings.Join(steps, ", ") != tt.steps {
					t.Errorf("%v, steps %q", err, steps)
				}
				var failed *rotate.Error
				if errors.As(err, &failed) != (tt.name == "rolled back") {
					t.Errorf("%v", err)
				}
				if _, err := os.Stat(c.RequestPath()); !os.IsNotExist(err) {
					t.Errorf("the request stays: %v", err)
				}
			})
		})
	}
}

func TestAskFails(t *testing.T) {
	c := *config.Default()
	c.StateDir = filepath.Join(t.TempDir(), "none")
	if _, err := Ask(c); err == nil {
		t.Error("no state directory")
	}
	c.StateDir = t.TempDir()
	write(t, rotate.JournalPath(c.StateDir), []byte("nonsense"))
	if _, err := Ask(c); err == nil {
		t.Error("a journal that cannot be read")
	}
	if _, err := os.Stat(c.RequestPath()); err == nil {
		t.Error("it asked all the same")
	}
}
