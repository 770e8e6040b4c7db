package tpm

import (
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/ekcert"
	"github.com/keyvet/keyvet/tpm/tpm12"
)

// errTPM12: what was asked for came with TPM 2.0.
var errTPM12 = errors.New("a TPM 1.2 does not have what was asked for")

// isTPM12 reports whether a command of TPM 2.0 was answered as a TPM 1.2 does:
// by a code with bits 7 and 8 clear (Part 2, section 6.6.1). One code says nothing
// of the TPM: it is also what QEMU answers when the emulator behind it is gone.
func isTPM12(err error) bool {
	var code tpm2.TPMRC
	return errors.As(err, &code) && code != 0 && code&0x180 == 0 && code != fail12
}

// fail12 is TPM_FAIL of TPM 1.2 (TPM Main Specification, Part 2, section 16).
const fail12 = tpm2.TPMRC(9)

// info12 is what a TPM 1.2 says of itself. Its firmware version is that of
// TPM_VERSION, as Infineon's advisories give it.
func (t *TPM) info12() (device.TPM, error) {
	info := device.TPM{Family: "1.2", State: device.TPMDegraded}
	said, err := tpm12.ReadInfo(t)
	if errors.Is(err, tpm12.FailedTest) {
		return info, nil
	}
	if err != nil {
		info.State, info.Problem = StateOf(err), err.Error()
		return info, err
	}
	info.Manufacturer, info.FirmwareVersion, info.State = said.Manufacturer, said.Version, device.TPMOK
	return info, nil
}

// inventory12 is the inventory of a TPM 1.2: its endorsement key, from
// TPM_ReadPubek ("tpm:pubek") or else from its certificate, and what its owner
// alone could read as gaps.
func (t *TPM) inventory12(info device.TPM) (device.TPM, []device.Key, []device.Gap) {
	inv := inventory{t: t}
	state, err := tpm12.ReadState(t)
	switch {
	case err != nil:
		inv.gap("tpm: state", err)
	case state.Disabled, state.Deactivated:
		inv.gap("tpm: state", errors.New("the TPM is disabled or deactivated: enable and activate it in the firmware's setup"))
	}
	certs := inv.readCertificate12()
	n, e, err := tpm12.ReadEndorsementKey(t)
	switch {
	case err == nil:
		inv.addEK12(n, e)
	case len(certs) > 0 && certs[0].public != nil:
		inv.addKey(certs[0].key("tpm-ek"))
		inv.gaps = append(inv.gaps, device.Gap{What: "tpm-ek", Why: "read from its certificate alone: " + err.Error(), Minor: true})
	case state.Owned && errors.Is(err, tpm12.DisabledCmd):
		inv.gaps = append(inv.gaps, device.Gap{
			What: "tpm-ek", Minor: t.opts.AKOptional,
			Why: fmt.Sprintf("%v; the owner can let anybody read it (tpm_restrictpubek of tpm-tools), or accept that nobody can by evidence.required = false", err),
		})
	default:
		inv.gap("tpm-ek", err)
	}
	inv.addCertificates(certs, nil)
	info.NamingKey = "tpm-ek"
	if state.Owned {
		inv.gaps = append(inv.gaps, device.Gap{
			What:  "tpm-srk",
			Why:   "the TPM has an owner: its storage root key and the keys under it are readable by the owner's password only, which keyvet does not use for a TPM 1.2",
			Minor: len(inv.keys) > 0 || t.opts.AKOptional, // the one key that tells of the chip was read
		})
	}
	switch content, err := tpm12.ReadNV(t, tpm12.PlatformCertificate); {
	case err == nil:
		info.PlatformCertificate = certificateDigest(content)
	case !errors.Is(err, tpm12.BadIndex):
		inv.platformGap(tpm12.PlatformCertificate, err)
	}
	return info, inv.keys, inv.gaps
}

// readCertificate12 is the certificate of the endorsement key, if there is one.
func (inv *inventory) readCertificate12() []*certificate {
	c := &certificate{index: tpm12.EKCertificate}
	content, err := tpm12.ReadNV(inv.t, tpm12.EKCertificate)
	if errors.Is(err, tpm12.BadIndex) {
		return nil // the manufacturer put none there
	}
	if err == nil {
		c.der, _, err = ekcert.Unwrap(content)
	}
	if err != nil {
		inv.gap(c.source(), err)
		return nil
	}
	c.parse()
	return []*certificate{c}
}

// addEK12 adds the endorsement key, which is an RSA key.
func (inv *inventory) addEK12(n, e *big.Int) {
	public, spki, err := rsaPublicKey(n, e)
	if err != nil {
		inv.gap("tpm-ek", err)
		return
	}
	inv.addKey(device.Key{ID: "tpm-ek", Role: device.RoleEK, Source: "tpm:pubek", Public: public, SPKI: spki})
}
