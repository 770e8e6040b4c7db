package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/tpm"
)

const maxAKBytes = 16 << 10

// prepareTPM has the TPM use the attestation key that is kept, and gives what is
// other than the configuration says: gaps that are minor, since a report that
// is then not signed is a gap of its own.
func (d *deviceRun) prepareTPM(t *tpm.TPM) []device.Gap {
	if info, err := t.Info(); err != nil || info.State != device.TPMOK || info.Family == "1.2" {
		return nil // the inventory tells
	}
	var gaps []device.Gap
	gap := func(what string, err error) {
		d.log.Warn(what, "error", err)
		gaps = append(gaps, device.Gap{What: what, Why: err.Error(), Minor: true})
	}
	if err := d.useAK(t, true); err != nil {
		gap("kept attestation key", err)
	}
	p := d.cfg.Evidence.PCRs
	if len(p.Indices) == 0 {
		return gaps
	}
	has, err := t.HasBank(p.Bank)
	if err == nil && !has {
		err = fmt.Errorf("evidence.pcrs: this TPM has no bank %s: no PCR is quoted", p.Bank)
	}
	if err != nil {
		gap("PCRs", err)
	}
	return gaps
}

// useAK has the TPM use the key at the handle of tpm.ak, else the one of the
// file in the state directory. The error says why it is another one than before,
// or the primary key. A new one is made only if that is asked for.
func (d *deviceRun) useAK(t *tpm.TPM, mayMake bool) error {
	handle, err := d.cfg.AttestationKey()
	if err != nil {
		return err
	}
	if handle != 0 {
		ak, err := t.PersistentAK(handle)
		if err != nil {
			return err
		}
		return t.UseAK(ak)
	}
	path := d.cfg.AKPath()
	err = useAKFile(t, path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayMake:
		return makeAK(t, path)
	case errors.Is(err, tpm.ErrAKUnusable) && mayMake:
		if makeErr := makeAK(t, path); makeErr != nil {
			return fmt.Errorf("%w; another cannot be made: %w", err, makeErr)
		}
		return fmt.Errorf("another was made: %w", err)
	}
	return err
}

func useAKFile(t *tpm.TPM, path string) error {
	b, err := durable.ReadBounded(path, maxAKBytes)
	if err != nil {
		return err
	}
	ak, err := tpm.ParseAK(b)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, tpm.ErrAKUnusable, err)
	}
	if err := t.UseAK(ak); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func makeAK(t *tpm.TPM, path string) error {
	ak, err := t.CreateAK()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(path, ak.PEM(), 0o600); err != nil {
		return err
	}
	return t.UseAK(ak)
}

// deviceKey is the signer of the device's key if that is in the TPM, else nil.
func (d *deviceRun) deviceKey() *tpm.Signer {
	s, _ := d.credential.PrivateKey.(*tpm.Signer)
	return s
}

// signed is a report that carries evidence.
type signed struct {
	id     string
	digest [sha256.Size]byte
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
func (d *deviceRun) attest(t *tpm.TPM, r *device.Report) {
	err := d.attestWith(t, r, d.deviceKey())
	if err != nil && d.deviceKey() != nil {
		d.log.Warn("the device's key is not certified", "error", err)
		r.Gaps = append(r.Gaps, device.Gap{What: "certification of the device's key", Why: err.Error(), Minor: true})
		err = d.attestWith(t, r, nil)
	}
	if err == nil {
		return
	}
	needed := d.cfg.NeedsEvidence()
	if needed != "" {
		err = fmt.Errorf("%w (%s)", err, needed)
	}
	d.log.Warn("the report goes without evidence", "error", err)
	r.Gaps = append(r.Gaps, device.Gap{What: "evidence", Why: err.Error(), Minor: needed == ""})
}

func (d *deviceRun) attestWith(t *tpm.TPM, r *device.Report, key *tpm.Signer) error {
	digest, err := device.Digest(r.Encode())
	if err != nil {
		return err
	}
	p := d.cfg.Evidence.PCRs
	if r.Evidence, err = t.Attest(tpm.AttestRequest{Digest: digest, Bank: p.Bank, PCRs: p.Indices, DeviceKey: key}); err != nil {
		return err
	}
	d.signed = signed{r.ID, digest, time.Now()}
	return nil
}
