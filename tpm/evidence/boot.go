package evidence

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// Boot is what a log of measurements says of a boot. But for Differ, Unexplained
// and NotRead it holds only what the quoted PCRs confirm.
type Boot struct {
	Explained   []int      `json:"explained"`             // PCRs whose value is what the log adds up to
	Differ      []int      `json:"differ,omitempty"`      // whose value is not, although the log is all there is to it
	Unexplained []int      `json:"unexplained,omitempty"` // that something else has extended, or may have
	Firmware    string     `json:"firmware,omitempty"`    // the version that the firmware measures of itself
	SecureBoot  string     `json:"secureBoot,omitempty"`  // "on" or "off"; "" if that is not shown
	Keys        []Anchor   `json:"keys,omitempty"`        // of PK, KEK, db and dbx
	Authorities []Anchor   `json:"authorities,omitempty"` // by which programs were started, of db or of shim's own lists; each once
	Hashes      Hashes     `json:"hashes,omitzero"`
	Forbidden   []string   `json:"forbidden,omitempty"`   // what was started, or vouched for what was, although dbx forbids it
	Loaders     []Loader   `json:"loaders,omitempty"`     // the programs that the firmware started, in order
	CommandLine string     `json:"commandLine,omitempty"` // of the kernel, as GRUB or U-Boot measures it
	After       []Measured `json:"after,omitempty"`       // what PCRs 0 to 7 were given after their separator, with which the firmware hands over
	NotRead     []string   `json:"notRead,omitempty"`     // what of the log is not understood, and why
	Policy      Policied   `json:"policy,omitzero"`
}

// Policied is what the verifier's policy on boots says, if it has one.
type Policied struct {
	Refused  string `json:"refused,omitempty"`  // why the boot is not what the policy allows
	Unjudged string `json:"unjudged,omitempty"` // why that cannot be said
}

// Loader is a program that was measured before it was started.
type Loader struct {
	Digest Hex `json:"digest"`
	// Path is the file that the log names, or what the program is. The PCRs do not
	// cover it: only the TPM's signature over the log does.
	Path string `json:"path,omitempty"`
}

// Measured is one entry of the log.
type Measured struct {
	PCR    int    `json:"pcr"`
	Type   string `json:"type"` // "EV_EFI_ACTION"
	Digest Hex    `json:"digest"`
	What   string `json:"what,omitempty"` // in words, as the log has them
}

// Hashes counts the entries that are digests of programs.
type Hashes struct {
	Allowed   int `json:"db"`
	Forbidden int `json:"dbx"`
}

// Authority is the variable of an anchor by which a program was started.
const Authority = "authority"

// Anchor is a certificate of a variable of Secure Boot.
type Anchor struct {
	Variable    string            `json:"variable"` // "PK", "KEK", "db", "dbx", or [Authority]
	Subject     string            `json:"subject"`
	SHA256      string            `json:"sha256"` // lower-case hex, of the DER
	Certificate *x509.Certificate `json:"-"`
}

// signers are the certificates whose keys must be good: all but those of dbx, which
// must not sign, and each authority once.
func (b *Boot) signers() (all []Anchor) {
	for _, k := range slices.Concat(b.Keys, b.Authorities) {
		inDB := slices.ContainsFunc(b.Keys, func(o Anchor) bool { return o.Variable == "db" && o.SHA256 == k.SHA256 })
		if k.Variable == "dbx" || k.Variable == Authority && inDB {
			continue
		}
		all = append(all, k)
	}
	return all
}

// bootLog asks whether the boot log explains the PCRs.
func (v *verification) bootLog() (device.Status, string) {
	if v.decoded.bootLog == nil {
		return v.noBootLog()
	}
	if len(v.statement.PCRs) == 0 {
		return device.NotApplicable, "no PCR is quoted that the boot log could explain"
	}
	if v.policy.Replay == nil {
		return device.Warn, "the verifier does not read boot logs"
	}
	boot, err := v.policy.Replay(v.decoded.bootLog, v.statement.PCRs)
	if err != nil {
		return device.Undecided, "the boot log cannot be read: " + err.Error()
	}
	v.boot = &boot
	said := boot.summary()
	if len(boot.Differ) > 0 {
		return device.Fail, fmt.Sprintf("PCRs %s are not what the boot log adds up to: it is that of another boot, or was changed before the TPM signed it%s", list(boot.Differ), said)
	}
	if why := boot.Policy.Refused; why != "" {
		return device.Fail, "the policy does not allow this boot: " + why + said
	}
	if why := boot.Policy.Unjudged; why != "" {
		return device.Undecided, "the policy cannot be applied: " + why + said
	}
	if len(boot.Unexplained) > 0 || len(boot.Explained) == 0 {
		return device.Warn, fmt.Sprintf("the boot log does not explain PCRs %s: something that is not in it extended them%s", list(boot.Unexplained), said)
	}
	return device.Pass, fmt.Sprintf("the boot log explains the %d PCRs of the quote%s", len(boot.Explained), said)
}

func (v *verification) noBootLog() (device.Status, string) {
	if v.report == nil || v.report.Trigger != device.TriggerBoot && v.report.Trigger != device.TriggerFirstBoot {
		return device.NotApplicable, "only the report of a boot carries a boot log"
	}
	for _, g := range v.report.Gaps {
		if g.What == "boot log" {
			return device.Warn, "there is no boot log: " + g.Why
		}
	}
	if slices.ContainsFunc(v.report.Cut, func(c device.Cut) bool { return c.Check == "boot-log" }) {
		return device.Warn, "there is no boot log: the report had no room for it"
	}
	return device.NotApplicable, "there is no boot log: what the PCRs mean is not shown"
}

// summary is what follows on the verdict on the PCRs.
func (b *Boot) summary() string {
	var said strings.Builder
	if b.SecureBoot != "" {
		said.WriteString("; Secure Boot is " + b.SecureBoot)
	}
	for _, variable := range []string{"PK", "KEK", "db", "dbx"} {
		var names []string
		for _, k := range b.Keys {
			if k.Variable == variable {
				names = append(names, k.Subject)
			}
		}
		if len(names) > 0 {
			said.WriteString("; " + variable + ": " + strings.Join(names, ", "))
		}
	}
	if len(b.Loaders) > 0 {
		var paths []string
		for _, l := range b.Loaders {
			if l.Path != "" && !slices.Contains(paths, l.Path) {
				paths = append(paths, l.Path)
			}
		}
		fmt.Fprintf(&said, "; it started %d programs", len(b.Loaders))
		if len(paths) > 0 {
			said.WriteString(": " + strings.Join(paths, ", "))
		}
	}
	if b.CommandLine != "" {
		said.WriteString("; kernel command line: " + b.CommandLine)
	}
	for _, why := range b.NotRead {
		said.WriteString("; " + why)
	}
	return said.String()
}

func list(pcrs []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(pcrs), "[]"), " ", ", ")
}
