package check

import (
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

var firmware = Check{
	ID:     "firmware",
	Cite:   "https://trustedcomputinggroup.org/about/security/",
	RunTPM: runFirmware,
}

const cveROCA = "CVE-2017-15361"

// runFirmware tells apart, for a flaw of key generation, firmware that has it
// now, keys left over from before it was fixed, and keys that could not be seen.
func runFirmware(tpm *device.TPM, env *Env) []device.Finding {
	switch {
	case tpm == nil:
		return notApplicable("no TPM is configured")
	case tpm.State == device.TPMAbsent:
		return undecided("KEYVET_TPM_ABSENT", "the TPM could not be reached")
	case tpm.State != device.TPMOK:
		return undecided("KEYVET_TPM_DEGRADED", "the TPM is in failure mode: what it says of its firmware cannot be trusted")
	case tpm.FirmwareVersion == "" || tpm.Manufacturer == "":
		return undecided("KEYVET_FIRMWARE_UNREAD", "the manufacturer or the firmware version could not be read")
	case env.Advisories == nil:
		return undecided("KEYVET_ADVISORIES_UNAVAILABLE", "no advisories are loaded")
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
	code := "KEYVET_FIRMWARE_" + a.CVE
	if a.CVE == cveROCA {
		code = device.ReasonROCA // AWS has a word for it
	}
	finding := failed
	if a.Sure == "S" {
		finding = warned
	}
	f := finding(a.Severity, code, "firmware %s is affected by %s (%s; affected %s)", tpm.FirmwareVersion, a.CVE, a.Touches, a.Range)
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
		f = failed(device.Critical, device.ReasonROCA, "firmware %s is fixed, but %s predates the fix: replace the keys, the update did not cure them", tpm.FirmwareVersion, strings.Join(weak, ", "))
	case seen == 0:
		f = warned(device.Low, "KEYVET_FIRMWARE_KEYS_UNREAD", "firmware %s is fixed, but none of this TPM's RSA keys could be read: whether one predates the fix of %s is not known", tpm.FirmwareVersion, a.CVE)
	default:
		f = passed("firmware %s is fixed, and the %d RSA keys read from this TPM do not predate the fix of %s", tpm.FirmwareVersion, seen, a.CVE)
	}
	f[0].Citation, f[0].Proof = a.Source, advisoryProof(tpm, a)
	return f
}
