package vet

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func TestTimes(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{})
	c, err := tpm.Open(s.Address(), tpm.Options{})
	must(t, err)
	blob, err := c.CreateKey("ecdsa-p256")
	must(t, errors.Join(err, c.Close()))
	w := &tpmtest.Stopwatch{Speed: tpmtest.Speeds[0]}
	cfg := configOn(t, newCA(t), tpmtest.RunProxy(t, s.Address(), w.Rewrite).Address(), blob)
	for _, name := range []string{"first", "second", "third"} {
		must(t, s.Reset())
		v := vetterOf(t, cfg)
		for _, which := range []string{"boot", "day"} {
			vetted := v.Vet(t.Context(), device.TriggerBoot, "")
			own, _ := v.Credentials.Current()
			digest := sha256.Sum256(nil)
			_, err := own.Signer().Sign(nil, digest[:], crypto.SHA256)
			must(t, err)
			lap := w.Lap()
			t.Log(name, which, vetted.Report.Verdict(), lap.Time, lap.RSA, len(lap.Commands))
			for _, c := range lap.Commands {
				t.Log("   ", c.Command, c.Time)
			}
		}
	}
}
