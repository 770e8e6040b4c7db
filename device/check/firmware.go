package check

import (
	"cmp"
	"crypto/ecdsa"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	firmwareAffected = device.Reason{
		Code: firmwarePrefix + "*", Status: device.Fail,
		Means: "A published weakness affects the TPM's firmware; the code ends with its CVE number. FAIL if it puts a key at risk that the device relies on, the source is sure, and there is a fix for this line of firmware; else WARN.",
		Do:    "Update the firmware to the version that the message names; the vendor of the board supplies it. Then rotate the keys that are at risk. If the device cannot be updated, accept the finding (`check.accept`).",
	}
	firmwareROCA = device.Reason{
		Code: device.ReasonROCA, Status: device.Fail, Severity: device.Critical,
		Means: "The TPM's firmware makes weak RSA keys (ROCA), or made one of its keys before it was updated. WARN if the TPM has no RSA key that it made.",
		Do:    "Update the firmware, then replace the RSA keys that the TPM made: the update alone does not cure them. Until then, make no RSA key in it.",
	}
	tpmAbsent = device.Reason{
		Code: "KEYVET_TPM_ABSENT", Status: device.Undecided,
		Means: "The TPM that is configured is not there, or does not answer.",
		Do:    "Check tpm.address, the driver and the bus. On a device without a TPM set `tpm.address = \"\"`.",
	}
	tpmDenied = device.Reason{
		Code: "KEYVET_TPM_DENIED", Status: device.Undecided,
		Means: "The TPM is there, but keyvet may not open it.",
		Do:    "Look at owner, group and mode of the device file that the message names (ls -l); the user of keyvet must be in its group, which udev mostly calls tss.",
	}
	tpmBusy = device.Reason{
		Code: "KEYVET_TPM_BUSY", Status: device.Undecided,
		Means: "Another program holds the TPM.",
		Do:    "Use the kernel's resource manager, /dev/tpmrm0, or stop the other program.",
	}
	tpmNotStarted = device.Reason{
		Code: "KEYVET_TPM_NOT_STARTED", Status: device.Undecided,
		Means: "Nothing has started the TPM since it was reset.",
		Do:    "The firmware or the driver must send TPM2_Startup before the system starts.",
	}
	tpmWrongLocality = device.Reason{
		Code: "KEYVET_TPM_WRONG_LOCALITY", Status: device.Undecided,
		Means: "The TPM does not serve the locality that keyvet speaks from.",
		Do:    "Look at what else uses the TPM, such as a hypervisor or a DRTM, and at the driver.",
	}
	tpmUpdating = device.Reason{
		Code: "KEYVET_TPM_UPDATING", Status: device.Undecided,
		Means: "The TPM is in firmware upgrade mode and does nothing else.",
		Do:    "Finish the update of the TPM's firmware, then check again.",
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
	ID:   "firmware",
	Cite: "https://trustedcomputinggroup.org/about/security/",
	Asks: "Does a published weakness affect the firmware of the TPM, or keys that it made before an update?",
	Reasons: []device.Reason{
		firmwareAffected, firmwareROCA, tpmAbsent, tpmDenied, tpmBusy, tpmNotStarted, tpmWrongLocality, tpmUpdating, tpmDegraded,
		firmwareUnread, firmwareKeysUnread, advisoriesUnavailable,
	},
	RunTPM: runFirmware,
}

const (
	cveROCA        = "CVE-2017-15361"
	firmwarePrefix = "KEYVET_FIRMWARE_"
)

// states are those in which a TPM says nothing of its firmware.
var states = map[device.TPMState]struct {
	reason  device.Reason
	message string // where there is no [device.TPM.Problem]
}{
	device.TPMAbsent:        {tpmAbsent, "the TPM is not there, or does not answer"},
	device.TPMDenied:        {tpmDenied, "keyvet may not open the TPM"},
	device.TPMBusy:          {tpmBusy, "another program holds the TPM"},
	device.TPMNotStarted:    {tpmNotStarted, "nothing has started the TPM since it was reset"},
	device.TPMWrongLocality: {tpmWrongLocality, "the TPM does not serve this locality"},
	device.TPMUpdating:      {tpmUpdating, "the TPM is in firmware upgrade mode"},
	device.TPMDegraded:      {tpmDegraded, "the TPM is in failure mode: what it says of its firmware cannot be trusted"},
}

// runFirmware keeps apart, for a flaw of key generation, firmware that has it
// now, keys left over from before it was fixed, and keys that could not be seen.
func runFirmware(tpm *device.TPM, env *Env) []device.Finding {
	if tpm == nil {
		return notApplicable("no TPM is configured")
	}
	state, bad := states[tpm.State]
	switch {
	case bad:
		return give(state.reason, "%s", cmp.Or(tpm.Problem, state.message))
	case tpm.State != device.TPMOK, tpm.FirmwareVersion == "", tpm.Manufacturer == "":
		return give(firmwareUnread, "the manufacturer or the firmware version could not be read")
	case env.Advisories == nil:
		return give(advisoriesUnavailable, "no advisories are loaded")
	}
	var found []device.Finding
	for _, a := range env.Advisories.Match(*tpm) {
		switch {
		case a.Affected:
			found = append(found, affected(tpm, a, env.Keys)...)
		case a.CVE == cveROCA:
			found = append(found, fixedROCA(tpm, a, env)...)
		}
	}
	if found == nil {
		return passed("no advisory is known to affect firmware %s of %s", tpm.FirmwareVersion, tpm.Manufacturer)
	}
	return found
}

// affected fails a TPM whose flaw puts a key at risk that the device relies on,
// if the source is sure and the operator can do something: a fleet should not
// stop on hearsay, nor for good on a flaw that nobody can mend.
func affected(tpm *device.TPM, a device.Advisory, keys []device.Key) []device.Finding {
	risked := atRisk(a.Weakens, keys)
	status := device.Warn
	if len(risked) > 0 && a.Sure != "S" && a.Fixed != "" {
		status = device.Fail
	}
	f := giveAs(status, a.Severity, firmwareAffected, "%s", affectedMessage(tpm, a, risked))
	f[0].ReasonCode = firmwarePrefix + a.CVE
	if a.CVE == cveROCA {
		f[0].ReasonCode = device.ReasonROCA // AWS has a word for it
	}
	f[0].Citation, f[0].Proof = a.Source, advisoryProof(tpm, a)
	return f
}

func affectedMessage(tpm *device.TPM, a device.Advisory, risked []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "firmware %s is affected by %s (%s; affected %s)", tpm.FirmwareVersion, a.CVE, a.Touches, a.Range)
	switch {
	case a.Fixed == "":
		b.WriteString(": there is no fix for this line of firmware")
	default:
		fmt.Fprintf(&b, ": it is fixed in %s", a.Fixed)
	}
	if a.Note != "" {
		fmt.Fprintf(&b, " (%s)", a.Note)
	}
	switch {
	case len(risked) > 0:
		const most = 3
		fmt.Fprintf(&b, "; keys at risk: %s", strings.Join(risked[:min(len(risked), most)], ", "))
		if more := len(risked) - most; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	default:
		b.WriteString("; it puts no key at risk that this device relies on")
	}
	if a.Sure == "S" {
		b.WriteString(" (by one secondary source)")
	}
	return b.String()
}

// atRisk returns the ids of the keys that a weakness of the TPM puts at risk.
func atRisk(w device.Weakens, keys []device.Key) []string {
	var ids []string
	for _, k := range keys {
		if heldByTPM(k) && weakened(w, k) {
			ids = append(ids, k.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// heldByTPM reports whether the private half of a key is in the TPM.
func heldByTPM(k device.Key) bool {
	return k.TPM != nil || k.Private.InTPM() || strings.HasPrefix(k.Source, "tpm:")
}

// weakened reports whether a weakness touches a key that is in the TPM. A key of
// which the TPM's attributes are not known may have been made in it.
func weakened(w device.Weakens, k device.Key) bool {
	made := k.TPM == nil || k.TPM.MadeInTPM()
	_, ec := k.Public.(*ecdsa.PublicKey)
	signs := k.Role == device.RoleDevice || k.Role == device.RoleClaim || k.Role == device.RoleAK || k.Role == device.RoleIDevID
	decrypts := k.Role == device.RoleEK || k.Role == device.RoleSRK
	switch w {
	case device.WeakensNone:
		return false
	case device.WeakensRSAMade:
		return isRSA(k) && made
	case device.WeakensECDSA:
		return ec && signs
	case device.WeakensECDH:
		return ec && decrypts
	}
	return true
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
		f = give(firmwareROCA, "firmware %s is fixed, but %s predates the fix", tpm.FirmwareVersion, strings.Join(weak, ", "))
	case seen == 0:
		f = give(firmwareKeysUnread, "firmware %s is fixed, but none of this TPM's RSA keys could be read: whether one predates the fix of %s is not known", tpm.FirmwareVersion, a.CVE)
	default:
		f = passed("firmware %s is fixed, and the %d RSA keys read from this TPM do not predate the fix of %s", tpm.FirmwareVersion, seen, a.CVE)
	}
	f[0].Citation, f[0].Proof = a.Source, advisoryProof(tpm, a)
	return f
}
