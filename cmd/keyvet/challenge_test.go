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
