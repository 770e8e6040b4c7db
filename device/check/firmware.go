package check

import (
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	firmwareAffected = device.Reason{
		Code: firmwarePrefix + "*", Status: device.Fail,
		Means: "A published weakness affects the TPM's firmware; the code ends with its CVE number.",
		Do:    "Update the firmware to the version that the message names.",
	}
	firmwareROCA = device.Reason{
		Code: device.ReasonROCA, Status: device.Fail, Severity: device.Critical,
		Means: "The TPM's firmware makes weak RSA keys (ROCA), or made one of its keys before it was updated.",
		Do:    "Update the firmware, then replace the RSA keys that the TPM made. The update alone does not cure them.",
	}
	tpmAbsent = device.Reason{
		Code: "KEYVET_TPM_ABSENT", Status: device.Undecided,
		Means: "The TPM that is configured could not be reached.",
		Do:    "Check tpm.address, the driver and the permissions of the device file. On a device without a TPM set tpm.address = \"\".",
	}
	tpmDegraded = device.Reason{
		Code: "KEYVET_TPM_DEGRADED", Status: device.Undecided,
		Means: "The TPM is in failure mode.",
		Do:    "Power-cycle the device. If the TPM stays in failure mode, replace it.",
	}
	firmwareUnread = device.Reason{
		Code: "KEYVET_FIRMWARE_UNREAD", Status: device.Undecided,
		Means: "The TPM's manufacturer or firmware version could not be read.",
		Do:    "Check again. If it comes back, look at the driver and the bus.",
	}
	firmwareKeysUnread = device.Reason{
		Code: "KEYVET_FIRMWARE_KEYS_UNREAD", Status: device.Warn, Severity: device.Low,
		Means: "The firmware was affected once and is fixed now, but none of the TPM's RSA keys could be read.",
		Do:    "Replace RSA keys that the TPM made before the update.",
	}
	advisoriesUnavailable = device.Reason{
		Code: "KEYVET_ADVISORIES_UNAVAILABLE", Status: device.Undecided,
		Means: "No list of published weaknesses is loaded.",
		Do:    "Use a keyvet with the built-in list.",
	}
)

var firmware = Check{
	ID:      "firmware",
	Cite:    "https://trustedcomputinggroup.org/about/security/",
	Asks:    "Does a published weakness affect the firmware of the TPM, or keys that it made before an update?",
	Reasons: []device.Reason{firmwareAffected, firmwareROCA, tpmAbsent, tpmDegraded, firmwareUnread, firmwareKeysUnread, advisoriesUnavailable},
	RunTPM:  runFirmware,
}

const (
	cveROCA        = "CVE-2017-15361"
	firmwarePrefix = "KEYVET_FIRMWARE_"
)

// runFirmware tells apart, for a flaw of key generation, firmware that has it
// now, keys left over from before it was fixed, and keys that could not be seen.
func runFirmware(tpm *device.TPM, env *Env) []device.Finding {
	switch {
	case tpm == nil:
		return notApplicable("no TPM is configured")
	case tpm.State == device.TPMAbsent:
		return give(tpmAbsent, "the TPM could not be reached")
	case tpm.State != device.TPMOK:
		return give(tpmDegraded, "the TPM is in failure mode: what it says of its firmware cannot be trusted")
	case tpm.FirmwareVersion == "" || tpm.Manufacturer == "":
		return give(firmwareUnread, "the manufacturer or the firmware version could not be read")
	case env.Advisories == nil:
		return give(advisoriesUnavailable, "no advisories are loaded")
	}
	var found []device.Finding
	for _, a := range env.Advisories.Match(*tpm) {
		switch {
		case a.Affected:
			found = append(found, affected(tpm, a)...)
		case a.CVE == cveROCA:
			found = append(found, fixedROCA(tpm, a, env)...)
		}
	}
	if found == nil {
		return passed("no advisory is known to affect firmware %s of %s", tpm.FirmwareVersion, tpm.Manufacturer)
	}
	return found
}

// affected warns instead of failing where a single secondary source is all
// there is: a fleet should not stop on hearsay.
func affected(tpm *device.TPM, a device.Advisory) []device.Finding {
	status := device.Fail
	if a.Sure == "S" {
		status = device.Warn
	}
	f := giveAs(status, a.Severity, firmwareAffected, "firmware %s is affected by %s (%s; affected %s)", tpm.FirmwareVersion, a.CVE, a.Touches, a.Range)
	f[0].ReasonCode = firmwarePrefix + a.CVE
	if a.CVE == cveROCA {
		f[0].ReasonCode = device.ReasonROCA // AWS has a word for it
	}
	if a.Fixed != "" {
		f[0].Message += ": update it to " + a.Fixed
	}
	if a.CVE == cveROCA {
		f[0].Message += "; make no RSA key in it, and replace those it made"
	}
	if a.Sure == "S" {
		f[0].Message += " (by one secondary source)"
	}
	f[0].Citation, f[0].Proof = a.Source, advisoryProof(tpm, a)
	return f
}

func advisoryProof(tpm *device.TPM, a device.Advisory) map[string]any {
	return map[string]any{"advisory": a.ID, "part": a.Part, "firmwareVersion": tpm.FirmwareVersion}
}

// fixedROCA looks for keys that the firmware made before it was fixed. That
// there is none among the keys to be seen is a good sign, not a proof: an EK is
// often made by the manufacturer, outside the chip.
func fixedROCA(tpm *device.TPM, a device.Advisory, env *Env) []device.Finding {
	var weak []string
	seen := 0
	for _, k := range env.Keys {
		n, _, ok := k.RSA()
		if !ok || !strings.HasPrefix(k.Source, "tpm:") {
			continue
		}
		seen++
		if ROCA(n) {
			weak = append(weak, k.ID)
		}
	}
	var f []device.Finding
	switch {
	case weak != nil:
		slices.Sort(weak)
		f = give(firmwareROCA, "firmware %s is fixed, but %s predates the fix: replace the keys, the update did not cure them", tpm.FirmwareVersion, strings.Join(weak, ", "))
	case seen == 0:
		f = give(firmwareKeysUnread, "firmware %s is fixed, but none of this TPM's RSA keys could be read: whether one predates the fix of %s is not known", tpm.FirmwareVersion, a.CVE)
	default:
		f = passed("firmware %s is fixed, and the %d RSA keys read from this TPM do not predate the fix of %s", tpm.FirmwareVersion, seen, a.CVE)
	}
	f[0].Citation, f[0].Proof = a.Source, advisoryProof(tpm, a)
	return f
}
