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
// is then not signed is a gap of its own.
func (v *Vetter) prepareTPM(t *tpm.TPM) []device.Gap {
	if info, err := t.Info(); err != nil || info.State != device.TPMOK || info.Family == "1.2" {
		return nil // the inventory tells
	}
	var gaps []device.Gap
	gap := func(what string, err error) {
		v.Log.Warn(what, "error", err)
		gaps = append(gaps, device.Gap{What: what, Why: err.Error(), Minor: true})
	}
	if err := v.useAK(t, true); err != nil {
		gap("kept attestation key", err)
	}
	p := v.Config.Evidence.PCRs
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
func (v *Vetter) useAK(t *tpm.TPM, mayMake bool) error {
	handle, err := v.Config.AttestationKey()
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
	path := v.Config.AKPath()
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
