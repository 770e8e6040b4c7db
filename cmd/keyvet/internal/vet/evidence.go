package vet

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

// signed is a report that carries evidence.
type signed struct {
	id     string
	digest [sha256.Size]byte
	log    []byte // the boot log with it, in gzip
	at     time.Time
}

// age is how old the report is: by the clock, which may have been set back since,
// or by the time that the machine was awake.
func (s signed) age() time.Duration {
	return max(0, time.Since(s.at), time.Since(s.at.Round(0)))
}

// attest has the TPM sign a report: with the device's key certified, else
// without, which the report then says. That it is not signed at all is a gap,
// and minor only if the operator accepts it.
func (v *Vetter) attest(t *tpm.TPM, r *device.Report, key *tpm.Signer) {
	log, missing := v.bootLog(r.Trigger)
	if missing != nil {
		v.Log.Warn("the report goes without the boot log", "error", missing)
		r.Gaps = append(r.Gaps, device.Gap{What: "boot log", Why: missing.Error(), Minor: true})
	}
	err := v.attestWith(t, r, key, log)
	if err != nil && key != nil {
		v.Log.Warn("the device's key is not certified", "error", err)
		r.Gaps = append(r.Gaps, device.Gap{What: "certification of the device's key", Why: err.Error(), Minor: true})
		err = v.attestWith(t, r, nil, log)
	}
	if err == nil {
		return
	}
	needed := v.Config.NeedsEvidence()
	if needed != "" {
		err = fmt.Errorf("%w (%s)", err, needed)
	}
	v.Log.Warn("the report goes without evidence", "error", err)
	r.Gaps = append(r.Gaps, device.Gap{What: "evidence", Why: err.Error(), Minor: needed == ""})
}

// attestWith leaves out the boot log where the report has no room for it.
func (v *Vetter) attestWith(t *tpm.TPM, r *device.Report, key *tpm.Signer, log []byte) error {
	if len(log) > r.BootLogRoom() {
		v.Log.Warn("the report goes without the boot log: there is no room for it", "bytes", len(log))
		r.CutBootLog()
		log = nil
	}
	digest, err := device.Digest(r.Encode())
	if err != nil {
		return err
	}
	p := v.Config.Evidence.PCRs
	if r.Evidence, err = t.Attest(tpm.AttestRequest{Digest: digest, Bank: p.Bank, PCRs: p.Indices, BootLog: log, DeviceKey: key}); err != nil {
		return err
	}
	v.signed = signed{r.ID, digest, log, time.Now()}
	return nil
}
