package evidence

import (
	"bytes"
	"fmt"

	"github.com/keyvet/keyvet/device"
)

// namedAK reports whether this is the attestation key that the verifier knows
// by its name.
func (v *verification) namedAK() bool {
	return len(v.policy.AKName) > 0 && bytes.Equal(v.policy.AKName, v.statement.AKName)
}

// unshown is the status of what the evidence does not show about a TPM: roots
// ask for it.
func (v *verification) unshown() device.Status {
	if len(v.policy.EKRoots) > 0 {
		return device.Undecided
	}
	return device.Warn
}

func (v *verification) sameTPM() (device.Status, string) {
	pair := v.policy.Activated
	if v.policy.AKName != nil && !v.namedAK() {
		return device.Fail, "this is another attestation key than the one that was named"
	}
	if len(pair.AKName) == 0 && pair.EKSPKISHA256 == "" && v.namedAK() {
		return device.Warn, "this is the attestation key that was named; that it is in the TPM of this EK certificate takes a challenge"
	}
	if len(pair.AKName) == 0 && pair.EKSPKISHA256 == "" {
		return v.unshown(), "a report alone cannot show that the attestation key is in the TPM of the EK certificate: that takes a challenge to the device"
	}
	if len(pair.AKName) == 0 || pair.EKSPKISHA256 == "" {
		return device.Fail, "half a pair: which attestation key and which EK answered the challenge is not known"
	}
	if !bytes.Equal(pair.AKName, v.statement.AKName) {
		return device.Fail, "another attestation key than this answered the challenge to the EK"
	}
	if v.certificates == nil {
		return v.unshown(), "this attestation key answered the challenge to an EK, but the evidence shows no certificate of that EK: no maker vouches for its TPM"
	}
	shown, noKey := ekInCertificate(v.certificates[0])
	if noKey != nil {
		return v.unshown(), fmt.Sprintf("the key in the EK certificate cannot be read: %v", noKey)
	}
	if shown != pair.EKSPKISHA256 {
		return device.Fail, "the challenge was to another EK than the one of this EK certificate: two TPMs"
	}
	return device.Pass, "this attestation key answered the challenge to the EK of this EK certificate"
}
