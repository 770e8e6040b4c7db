package vet

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// A challenge that the TPM cannot be asked is answered with the reason.
func TestAnswerWithoutTPM(t *testing.T) {
	v := &Vetter{Check: Check{Config: *config.Default()}, Log: slog.New(slog.DiscardHandler)}
	v.Config.TPM.Address, v.Config.StateDir = "unix:"+t.TempDir()+"/none", t.TempDir()
	for _, tt := range []struct {
		name, want string
		with       func()
	}{
		{"before the first report", "signed no report", func() {}},
		{"no TPM", "none", func() { v.signed.id = "r" }},
	} {
		tt.with()
		a, err := v.Answer(new(evidence.Challenge), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || a.Secret != nil || a.Evidence != nil {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
	}
}
