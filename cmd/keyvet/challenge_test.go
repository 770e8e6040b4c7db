package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// A challenge that the TPM cannot be asked is answered with the reason.
func TestAnswerWithoutTPM(t *testing.T) {
	d := &deviceRun{cfg: defaults(), log: slog.New(slog.DiscardHandler)}
	d.cfg.TPM.Address, d.cfg.StateDir = "unix:"+t.TempDir()+"/none", t.TempDir()
	for _, tt := range []struct {
		name, want string
		with       func()
	}{
		{"before the first report", "signed no report", func() {}},
		{"no TPM", "none", func() { d.signed.id = "r" }},
	} {
		tt.with()
		a, err := d.answer(awsiot.Challenge{ID: "1"})
		if err == nil || !strings.Contains(err.Error(), tt.want) || a.Secret != nil || a.Evidence != nil {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
	}
}

// One that was answered with a reason is done: the loop must not pause over it,
// as it does over work that is asked for again, and miss the next.
func TestBadChallengeIsDone(t *testing.T) {
	d := &deviceRun{cfg: defaults(), log: slog.New(slog.DiscardHandler)}
	c := &cloud{run: d, challenges: make(chan challenge, 1)}
	done := make(chan answered, 1)
	c.challenges <- challenge{awsiot.Challenge{ID: "1"}, done}
	if err := c.nextChallenge().Do(t.Context()); err != nil {
		t.Errorf("not done: %v", err)
	}
	if a := <-done; a.err == nil {
		t.Error("a device without a report answers")
	}
}
