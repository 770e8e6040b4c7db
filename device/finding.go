package device

// ReasonCode is the machine's word for why a check did not pass: AWS IoT
// Device Defender's own where AWS has one (Audit checks in the AWS IoT
// Developer Guide), else one that starts with KEYVET_.
type ReasonCode = string

// The reason codes of AWS.
const (
	ReasonROCA          ReasonCode = "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"
	ReasonDebian        ReasonCode = "CERTIFICATE_KEY_VULNERABILITY_CVE-2008-0166"
	ReasonExpiring      ReasonCode = "CERTIFICATE_APPROACHING_EXPIRATION"
	ReasonExpired       ReasonCode = "CERTIFICATE_PAST_EXPIRATION"
	ReasonRevoked       ReasonCode = "CERTIFICATE_REVOKED_BY_ISSUER"
	ReasonIssuerRevoked ReasonCode = "INTERMEDIATE_CA_REVOKED_BY_ISSUER"
	ReasonAge           ReasonCode = "CERTIFICATE_PAST_AGE_THRESHOLD"
	ReasonKeyvetPrefix             = "KEYVET_"
)

// ReasonCompromised is the code of a key on a list of compromised keys that has
// no code of its own.
const ReasonCompromised ReasonCode = "KEYVET_COMPROMISED_KEY"

// Reason is a reason code with what there is to know of it, beside the code
// that gives it: docs/findings.md is made of these.
type Reason struct {
	Code     ReasonCode
	Status   Status   // of a finding with this code, unless the finding says otherwise
	Severity Severity // the same; "" where nothing is decided
	Means    string   // one sentence
	Do       string   // what to do, in one sentence or two
}

// CouldNotLook is the reason of a gap, where gaps stand among findings.
var CouldNotLook = Reason{
	Code: "KEYVET_COULD_NOT_LOOK", Status: Undecided,
	Means: "Something that had to be checked could not be read.",
	Do:    "The message says what and why: give keyvet the permission, repair the file or the device, or take it out of the configuration.",
}

// Finding is the answer of one check on one key, or on the TPM.
type Finding struct {
	Check      string         `json:"check"`           // the id of the check: "roca"
	Key        string         `json:"keyId,omitempty"` // [Key.ID]; "tpm" for the TPM itself
	Status     Status         `json:"status"`
	Severity   Severity       `json:"severity,omitempty"`
	ReasonCode ReasonCode     `json:"reasonCode,omitempty"`
	Message    string         `json:"message"`
	Citation   string         `json:"citation,omitempty"` // a URL
	Accepted   bool           `json:"accepted,omitempty"` // the operator accepts it, see [Report.Accepted]; Status is what the check found
	Proof      map[string]any `json:"proof,omitempty"`    // what lets others see for themselves

	// NotLookedUp says which Debian weak keys that the key could be no loaded list
	// has: "RSA-3072", "RSA-4096 for be32, ssh-keygen (le32, le64 were looked up)".
	NotLookedUp string `json:"-"`
}

// Counts is what the finding counts as in a verdict: one that was accepted
// is a warning.
func (f Finding) Counts() Status {
	if f.Accepted && f.Status != Pass && f.Status != NotApplicable {
		return Warn
	}
	return f.Status
}

// TPMKeyID stands in [Finding.Key] for a finding on the TPM itself.
const TPMKeyID = "tpm"

// Listing is what blocklists say of one key, held against Debian's weak keys.
type Listing struct {
	Listed bool           // the key is on a list, up to the list's false-positive rate unless Exact
	Exact  bool           // there is no doubt about Listed
	Set    string         // the set that has it: "rsa2048"
	Name   string         // the list's own name: "Debian weak keys"
	Proof  map[string]any // pid, architecture, variant, factor …, where known

	// Which of the keys that Debian's generator made of this algorithm and size
	// were looked up.
	Covered bool   // all of them
	Looked  string // "le32, le64"; "" if no list has any
	Missing string // "be32, ssh-keygen"
}

// Compromised is one entry of a list of keys whose private half is public.
type Compromised struct {
	Name   string // of the key: "Vagrant's insecure key"; "" if the list has none
	Class  string // kind of place where it was found: "ssh-default"; "" if the list has none
	Source string // where it was found: "github.com/hashicorp/vagrant@35f3160f4"; "" if the list does not say
	List   string // of the list: "leaked in 2024"
	Cite   string // URL of the list; "" if it has none
	Reason ReasonCode
}

// Weakens is which keys a weakness of TPM firmware puts at risk.
type Weakens string

const (
	WeakensAny     Weakens = ""         // not said: any key in the TPM
	WeakensRSAMade Weakens = "rsa-made" // RSA keys that the TPM made, for ever
	WeakensECDSA   Weakens = "ecdsa"    // keys that the TPM signs with by ECDSA
	WeakensECDH    Weakens = "ecdh"     // keys that the TPM decrypts with by ECDH
	WeakensNone    Weakens = "none"     // it gives no key away
)

// Advisory is one published weakness of TPM firmware, held against one TPM.
type Advisory struct {
	ID       string // stable: "cve-2017-15361-ifx-7"
	CVE      string
	Part     string // "IFX TPM 2.0 SLB9670, 7.x"
	Touches  string // for people: "RSA key generation"
	Weakens  Weakens
	Affected bool   // the version read is affected now; else the family was, and this version is fixed
	Range    string // "<= 7.61"
	Fixed    string // first good version of this line of firmware; "" if the line never got one
	Sure     string // P vendor source, C two secondary sources, S one secondary source
	Source   string // URL
	Note     string // for people, to be weighed before an update; mostly ""
	Severity Severity
}
