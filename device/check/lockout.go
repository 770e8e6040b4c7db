package check

import (
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var lockoutOpen = device.Reason{
	Code: "KEYVET_TPM_LOCKOUT_OPEN", Status: device.Warn, Severity: device.Low,
	Means: "The device's key is in the TPM, and the lockout hierarchy has no password: any user who may use the TPM (group tss) can clear it, and the key is then gone for good.",
	Do:    "Set a password (`tpm2_changeauth -c lockout PASSWORD`) and keep it off the device, or disable clearing (`tpm2_clearcontrol -C l s`), which only the firmware can undo.",
}

var lockout = Check{
	ID:      "lockout",
	Cite:    "https://trustedcomputinggroup.org/resource/tcg-tpm-v2-0-provisioning-guidance/",
	Asks:    "Can anybody but the owner clear the TPM that holds the device's key?",
	Reasons: []device.Reason{lockoutOpen},
	RunTPM:  runLockout,
}

func runLockout(tpm *device.TPM, env *Env) []device.Finding {
	relied := slices.ContainsFunc(env.Keys, func(k device.Key) bool { return k.Role == device.RoleDevice && k.Private.InTPM() })
	switch {
	case tpm == nil || !relied:
		return notApplicable("the device's key is not in a TPM")
	case tpm.Clearing == device.ClearingOpen:
		return give(lockoutOpen, "the TPM's lockout hierarchy has no password: any user who may use the TPM can clear it, and the device's key with it")
	case tpm.Clearing == device.ClearingGuarded:
		return passed("not everybody can clear the TPM")
	}
	return notApplicable("who can clear the TPM could not be read") // which is a gap already
}
