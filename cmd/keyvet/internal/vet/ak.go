package vet

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/tpm"
)

const maxAKBytes = 16 << 10

// prepareTPM has the TPM use the attestation key that is kept, and gives what is
// other than the configuration says: gaps that are minor, since a report that
// is then not signed is a gap of its own. onTrust reports whether the TPM's keys
// are taken from what was kept of them, if that is asked for.
func (v *Vetter) prepareTPM(t *tpm.TPM, mayTrust bool) (gaps []device.Gap, onTrust bool) {
	if mayTrust {
		onTrust = v.useKept(t)
	}
	if info, err := t.Info(); err != nil || info.State != device.TPMOK || info.Family == "1.2" {
		return nil, false // the inventory tells
	}
	gap := func(what string, err error) {
		v.Log.Warn(what, "error", err)
		gaps = append(gaps, device.Gap{What: what, Why: err.Error(), Minor: true})
	}
	if !onTrust {
		if err := v.useAK(t, true); err != nil {
			gap("kept attestation key", err)
		}
	}
	p := v.Config.Evidence.PCRs
	if len(p.Indices) == 0 {
		return gaps, onTrust
	}
	has, err := t.HasPCRs(p.Bank, p.Indices)
	if err == nil && !has {
		err = fmt.Errorf("evidence.pcrs: this TPM has no bank %s: no PCR is quoted", p.Bank)
	}
	if err != nil {
		gap("PCRs", err)
	}
	return gaps, onTrust
}

// useKept has the TPM's keys taken from what was kept of them, and reports whether
// they are.
func (v *Vetter) useKept(t *tpm.TPM) bool {
	b, err := durable.ReadBounded(v.Config.KeptPath(), tpm.MaxKeptBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var kept *tpm.Kept
	if err == nil {
		kept, err = tpm.ParseKept(b)
	}
	var ak *tpm.AK
	if err == nil {
		ak, err = v.keptAK(t)
	}
	if err == nil {
		err = t.UseKept(ak, kept)
	}
	if err != nil {
		v.Log.Info("the TPM's keys are all read again", "why", err)
	}
	return err == nil
}

// keep keeps what the TPM has shown of its keys, once it has signed a report.
func (v *Vetter) keep(t *tpm.TPM) {
	shown := t.Shown()
	if shown == nil {
		return
	}
	b, err := shown.Encode()
	if err == nil {
		err = durable.WriteFile(v.Config.KeptPath(), b, 0o600)
	}
	if err != nil {
		v.Log.Warn("the TPM's keys are not kept: the next check reads all of them again", "error", err)
	}
}

// keptAK is the attestation key at the handle of tpm.ak, else the one of the file
// in the state directory.
func (v *Vetter) keptAK(t *tpm.TPM) (*tpm.AK, error) {
	handle, err := v.Config.AttestationKey()
	if err != nil {
		return nil, err
	}
	if handle != 0 {
		return t.PersistentAK(handle)
	}
	path := v.Config.AKPath()
	b, err := durable.ReadBounded(path, maxAKBytes)
	if err != nil {
		return nil, err
	}
	ak, err := tpm.ParseAK(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, tpm.ErrAKUnusable, err)
	}
	return ak, nil
}

// useAK has the TPM use the key that is kept. The error says why it is another one
// than before, or the primary key. A new one is made only if that is asked for.
func (v *Vetter) useAK(t *tpm.TPM, mayMake bool) error {
	ak, err := v.keptAK(t)
	if err == nil {
		err = t.UseAK(ak)
	}
	path := v.Config.AKPath()
	switch {
	case v.Config.TPM.AK != "" || !mayMake:
	case errors.Is(err, fs.ErrNotExist):
		return makeAK(t, path)
	case errors.Is(err, tpm.ErrAKUnusable):
		if makeErr := makeAK(t, path); makeErr != nil {
			return fmt.Errorf("%w; another cannot be made: %w", err, makeErr)
		}
		return fmt.Errorf("another was made: %w", err)
	}
	return err
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
