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
	ErrWaits = errors.New("the rotation waits")
)

// The reason codes of rotations, besides those of the checks.
const (
	ReasonDiskFull           device.ReasonCode = "KEYVET_ROTATE_DISK_FULL"
	ReasonJournalUnreadable  device.ReasonCode = "KEYVET_ROTATE_JOURNAL_UNREADABLE"
	ReasonBusy               device.ReasonCode = "KEYVET_ROTATE_BUSY" // another rotation is under way
	ReasonRequestInvalid     device.ReasonCode = "KEYVET_ROTATE_REQUEST_INVALID"
	ReasonKeyNotAllowed      device.ReasonCode = "KEYVET_ROTATE_KEY_NOT_ALLOWED" // by rotate.keys
	ReasonTooSoon            device.ReasonCode = "KEYVET_ROTATE_TOO_SOON"        // after the last rotation by a job
	ReasonNoCredential       device.ReasonCode = "KEYVET_ROTATE_NO_CREDENTIAL"   //nolint:gosec // is none
	ReasonStore              device.ReasonCode = "KEYVET_ROTATE_STORE"           // the state directory does not do as it should
	ReasonAlgorithm          device.ReasonCode = "KEYVET_ROTATE_ALGORITHM"       // not on this TPM, or not on its firmware
	ReasonTPMFull            device.ReasonCode = "KEYVET_ROTATE_TPM_FULL"
	ReasonMakeTimeout        device.ReasonCode = "KEYVET_ROTATE_MAKE_TIMEOUT"
	ReasonMakeFailed         device.ReasonCode = "KEYVET_ROTATE_MAKE_FAILED"
	ReasonKeyGone            device.ReasonCode = "KEYVET_ROTATE_KEY_GONE"     // the new key, as after a reset of the TPM
	ReasonOldKeyGone         device.ReasonCode = "KEYVET_ROTATE_OLD_KEY_GONE" // nobody is left to ask for a certificate
	ReasonNotVetted          device.ReasonCode = "KEYVET_ROTATE_NOT_VETTED"   // a check gave no answer and no reason
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
	ReasonTryRefused         device.ReasonCode = "KEYVET_ROTATE_TRY_REFUSED" // the cloud does not take the new credential
	ReasonCommitRejected     device.ReasonCode = "KEYVET_ROTATE_COMMIT_REJECTED"
	ReasonCommitTimeout      device.ReasonCode = "KEYVET_ROTATE_COMMIT_TIMEOUT"
	ReasonCommitFailed       device.ReasonCode = "KEYVET_ROTATE_COMMIT_FAILED"
	ReasonGateRefused        device.ReasonCode = "KEYVET_ROTATE_GATE_REFUSED" // the report on the new key does not pass
	ReasonNotAcknowledged    device.ReasonCode = "KEYVET_ROTATE_NOT_ACKNOWLEDGED"
	ReasonJobEnded           device.ReasonCode = "KEYVET_ROTATE_JOB_ENDED" // canceled, timed out or removed meanwhile
)

// Error is why a rotation was refused or undone.
type Error struct {
	Reason device.ReasonCode
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("rotate: %s: %v", e.Reason, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

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
