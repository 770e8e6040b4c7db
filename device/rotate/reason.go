package rotate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/device"
)

// What the parts around the engine answer with, wrapped; any other error means
// that it did not work this time.
var (
	ErrThrottled = errors.New("too many requests")
	ErrRejected  = errors.New("rejected")                          // the cloud said no, and will again
	ErrJobEnded  = errors.New("the job has ended")                 // canceled, timed out, removed, unknown
	ErrKeyGone   = errors.New("the key is gone")                   // as after a reset of the TPM
	ErrTPMFull   = errors.New("the TPM has no room")               // for one more key
	ErrAlgorithm = errors.New("the algorithm is not for this TPM") // or not for its firmware
)

// What [Engine.Run] and [Engine.Resume] answer with.
var (
	// ErrNothing says that no rotation is under way.
	ErrNothing = errors.New("no rotation is under way")
	// ErrWaits says that a rotation is under way and waits: for a connection,
	// mostly. The next [Engine.Resume] goes on with it.
	ErrWaits = errors.New("the rotation waits and is tried again")
)

// The reason codes of rotations, besides those of the checks: see [Reasons].
const (
	ReasonDiskFull           device.ReasonCode = "KEYVET_ROTATE_DISK_FULL"
	ReasonJournalUnreadable  device.ReasonCode = "KEYVET_ROTATE_JOURNAL_UNREADABLE"
	ReasonBusy               device.ReasonCode = "KEYVET_ROTATE_BUSY"
	ReasonRequestInvalid     device.ReasonCode = "KEYVET_ROTATE_REQUEST_INVALID"
	ReasonKeyNotAllowed      device.ReasonCode = "KEYVET_ROTATE_KEY_NOT_ALLOWED"
	ReasonTooSoon            device.ReasonCode = "KEYVET_ROTATE_TOO_SOON"
	ReasonNoCredential       device.ReasonCode = "KEYVET_ROTATE_NO_CREDENTIAL" //nolint:gosec // is none
	ReasonStore              device.ReasonCode = "KEYVET_ROTATE_STORE"
	ReasonAlgorithm          device.ReasonCode = "KEYVET_ROTATE_ALGORITHM"
	ReasonTPMFull            device.ReasonCode = "KEYVET_ROTATE_TPM_FULL"
	ReasonMakeTimeout        device.ReasonCode = "KEYVET_ROTATE_MAKE_TIMEOUT"
	ReasonMakeFailed         device.ReasonCode = "KEYVET_ROTATE_MAKE_FAILED"
	ReasonKeyGone            device.ReasonCode = "KEYVET_ROTATE_KEY_GONE"
	ReasonOldKeyGone         device.ReasonCode = "KEYVET_ROTATE_OLD_KEY_GONE"
	ReasonNotVetted          device.ReasonCode = "KEYVET_ROTATE_NOT_VETTED"
	ReasonCreateThrottled    device.ReasonCode = "KEYVET_ROTATE_CREATE_THROTTLED"
	ReasonCreateRejected     device.ReasonCode = "KEYVET_ROTATE_CREATE_REJECTED"
	ReasonCreateTimeout      device.ReasonCode = "KEYVET_ROTATE_CREATE_TIMEOUT"
	ReasonCreateFailed       device.ReasonCode = "KEYVET_ROTATE_CREATE_FAILED"
	ReasonNotActivated       device.ReasonCode = "KEYVET_ROTATE_NOT_ACTIVATED"
	ReasonCertificateInvalid device.ReasonCode = "KEYVET_ROTATE_CERTIFICATE_INVALID"
	ReasonCertificateKey     device.ReasonCode = "KEYVET_ROTATE_CERTIFICATE_OTHER_KEY"
	ReasonCertificateSubject device.ReasonCode = "KEYVET_ROTATE_CERTIFICATE_SUBJECT"
	ReasonCertificateUsage   device.ReasonCode = "KEYVET_ROTATE_CERTIFICATE_USAGE"
	ReasonClockWrong         device.ReasonCode = "KEYVET_ROTATE_CLOCK_WRONG"
	ReasonTryRefused         device.ReasonCode = "KEYVET_ROTATE_TRY_REFUSED"
	ReasonCommitRejected     device.ReasonCode = "KEYVET_ROTATE_COMMIT_REJECTED"
	ReasonCommitTimeout      device.ReasonCode = "KEYVET_ROTATE_COMMIT_TIMEOUT"
	ReasonCommitFailed       device.ReasonCode = "KEYVET_ROTATE_COMMIT_FAILED"
	ReasonGateRefused        device.ReasonCode = "KEYVET_ROTATE_GATE_REFUSED"
	ReasonNotAcknowledged    device.ReasonCode = "KEYVET_ROTATE_NOT_ACKNOWLEDGED"
	ReasonJobEnded           device.ReasonCode = "KEYVET_ROTATE_JOB_ENDED"
)

// Reasons are what the codes mean. A job ends FAILED with one, unless it says
// otherwise.
var Reasons = []device.Reason{
	{
		Code:  ReasonDiskFull,
		Means: "The disk has no room for the new credential or for the journal.",
		Do:    "Free space on the disk of `state_dir`, then ask again.",
	},
	{
		Code:  ReasonJournalUnreadable,
		Means: "The journal of rotations cannot be read, so nothing is changed.",
		Do:    "Find out which credential is in use, then remove the journal (docs/rotation.md).",
	},
	{
		Code:  ReasonBusy,
		Means: "Another rotation is under way.",
		Do:    "Nothing: the job stays in its queue and is done afterwards.",
	},
	{
		Code:  ReasonRequestInvalid,
		Means: "The job or the device asks for an algorithm or a credential that does not exist. The job is REJECTED.",
		Do:    "Correct the job document, or the credentials that the message names.",
	},
	{
		Code:  ReasonKeyNotAllowed,
		Means: "`rotate.keys` does not allow the key that the job asks for. The job is REJECTED.",
		Do:    "Ask for another key, or allow this one in `rotate.keys`.",
	},
	{
		Code:  ReasonTooSoon,
		Means: "A job has rotated within `rotate.min_interval`, or eight old keys are still kept.",
		Do:    "Ask again after the time that the message names.",
	},
	{
		Code:  ReasonNoCredential,
		Means: "The device has no credential with which it could ask for a certificate.",
		Do:    "Re-enrol the device (docs/operations.md).",
	},
	{
		Code:  ReasonStore,
		Means: "The state directory cannot be read or written.",
		Do:    "Repair `state_dir`: its owner, its mode, its file system. Then ask again.",
	},
	{
		Code:  ReasonAlgorithm,
		Means: "The TPM cannot make such a key, or its firmware makes weak ones.",
		Do:    "Ask for another key: nearly every TPM 2.0 makes `ecdsa-p256`, and one without P-256 makes `rsa-2048`.",
	},
	{
		Code:  ReasonTPMFull,
		Means: "The TPM has no room to make a key.",
		Do:    "Remove transient objects and sessions that other programs left in the TPM, or restart the device.",
	},
	{
		Code:  ReasonMakeTimeout,
		Means: "The TPM took too long to make the key.",
		Do:    "Ask again, or ask for an ECDSA key: RSA keys can take minutes.",
	},
	{
		Code:  ReasonMakeFailed,
		Means: "The key could not be made; the message says why.",
		Do:    "Run `keyvet check` to see how the TPM is, then ask again.",
	},
	{
		Code:  ReasonKeyGone,
		Means: "The new key can no longer be used, for example because the TPM was cleared.",
		Do:    "Find out who cleared the TPM, then ask again.",
	},
	{
		Code:  ReasonOldKeyGone,
		Means: "Neither the new key nor the old one can be used, so no certificate can be asked for.",
		Do:    "Re-enrol the device (docs/operations.md). Find out who cleared the TPM.",
	},
	{
		Code:  ReasonNotVetted,
		Means: "The checks gave no answer on the new key or its certificate.",
		Do:    "Ask again; if it comes back, report it as a defect of keyvet.",
	},
	{
		Code:  ReasonCreateThrottled,
		Means: "The issuer had too many requests, several times in a row.",
		Do:    "Ask again later, and fewer devices at a time.",
	},
	{
		Code:  ReasonCreateRejected,
		Means: "The issuer rejected the request for a certificate.",
		Do:    "Look at the message: the policy of the device, or the rules of the issuer.",
	},
	{
		Code:  ReasonCreateTimeout,
		Means: "The issuer did not answer the request for a certificate.",
		Do:    "See that the issuer works, then ask again.",
	},
	{
		Code:  ReasonCreateFailed,
		Means: "The request for a certificate failed for another reason; the message says which.",
		Do:    "See that the issuer works, then ask again.",
	},
	{
		Code:  ReasonNotActivated,
		Means: "The certificate was issued, but not activated.",
		Do:    "Look at the provisioning template and its hook, then ask again.",
	},
	{
		Code:  ReasonCertificateInvalid,
		Means: "What the issuer sent is not a certificate, or is too large.",
		Do:    "Repair the issuer.",
	},
	{
		Code:  ReasonCertificateKey,
		Means: "The certificate is for another key.",
		Do:    "Repair the issuer: it must certify the key of the request.",
	},
	{
		Code:  ReasonCertificateSubject,
		Means: "The certificate is for another device.",
		Do:    "Repair the issuer: it must keep the subject of the request.",
	},
	{
		Code:  ReasonCertificateUsage,
		Means: "The certificate is not for the signatures of a client.",
		Do:    "Repair the issuer: the key usage must allow digital signatures, the extended key usage clients.",
	},
	{
		Code:  ReasonClockWrong,
		Means: "The certificate is not valid yet by the device's clock, or the clock is implausible.",
		Do:    "Set the clock, then ask again.",
	},
	{
		Code:  ReasonTryRefused,
		Means: "The new credential cannot connect, although the old one can.",
		Do:    "See that the new certificate is active, and that its policy allows the device to connect.",
	},
	{
		Code:  ReasonCommitRejected,
		Means: "The issuer rejected the commit.",
		Do:    "Look at the message and at the issuer, then ask again.",
	},
	{
		Code:  ReasonCommitTimeout,
		Means: "The issuer did not answer the commit.",
		Do:    "See that the issuer works, then ask again.",
	},
	{
		Code:  ReasonCommitFailed,
		Means: "The commit failed for another reason; the message says which.",
		Do:    "See that the issuer works, then ask again.",
	},
	{
		Code:  ReasonGateRefused,
		Means: "The report on the new key does not pass.",
		Do:    "Look at the findings of that report.",
	},
	{
		Code:  ReasonNotAcknowledged,
		Means: "The report on the new key was not acknowledged, although the new credential can connect.",
		Do:    "See that the policy of the new certificate allows the topic of reports.",
	},
	{
		Code:  ReasonJobEnded,
		Means: "The job was canceled, removed or timed out before the rotation ended.",
		Do:    "Create a job again, with more time.",
	},
}

// Error is why a rotation was refused or rolled back.
type Error struct {
	Reason device.ReasonCode
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Reason, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// waiting is why a rotation under way goes no further now: the cause, and that
// it waits.
func waiting(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if errors.Is(err, ErrWaits) {
		return err
	}
	return fmt.Errorf("%w; %w", err, ErrWaits)
}

func because(reason device.ReasonCode, format string, args ...any) error {
	return &Error{reason, fmt.Errorf(format, args...)}
}

// codes are the reasons by which the failure of a call is reported, and how long
// one may take.
type codes struct {
	other                        device.ReasonCode // but for these, where they have their own
	throttled, rejected, timeout device.ReasonCode
	within                       time.Duration
}

var (
	ofMake   = codes{other: ReasonMakeFailed, timeout: ReasonMakeTimeout, within: makeTimeout}
	ofCreate = codes{
		other: ReasonCreateFailed, throttled: ReasonCreateThrottled, rejected: ReasonCreateRejected, timeout: ReasonCreateTimeout,
		within: callTimeout,
	}
	ofActivate = codes{other: ReasonNotActivated, within: callTimeout}
	ofConfirm  = codes{other: ReasonCommitFailed, rejected: ReasonCommitRejected, timeout: ReasonCommitTimeout, within: callTimeout}
	ofGate     = codes{other: ReasonGateRefused, within: moveTimeout}
	ofStore    = codes{other: ReasonStore, within: callTimeout}
)

// reason gives err its reason, unless it has one.
func (c codes) reason(err error) error {
	var named *Error
	if err == nil || errors.As(err, &named) || errors.Is(err, ErrWaits) {
		return err
	}
	code := c.other
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = ReasonDiskFull
	case errors.Is(err, ErrKeyGone):
		code = ReasonKeyGone
	case errors.Is(err, ErrTPMFull):
		code = ReasonTPMFull
	case errors.Is(err, ErrAlgorithm):
		code = ReasonAlgorithm
	case errors.Is(err, ErrJobEnded):
		code = ReasonJobEnded
	case errors.Is(err, ErrThrottled):
		code = cmp.Or(c.throttled, c.other)
	case errors.Is(err, ErrRejected):
		code = cmp.Or(c.rejected, c.other)
	case errors.Is(err, context.DeadlineExceeded):
		code = cmp.Or(c.timeout, c.other)
	}
	return &Error{code, err}
}
