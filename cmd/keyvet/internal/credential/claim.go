package credential

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/rotate"
)

// What is found of a claim that provision.delete_claim says to remove.
var (
	claimNotRemoved = device.Reason{
		Code: "KEYVET_CLAIM_NOT_REMOVED", Status: device.Warn, Severity: device.High,
		Means: "The claim should have been removed, but could not be; keyvet tries again.",
		Do: "Move both files of the claim to `/var/lib/keyvet/claim`, or name their directory in `ReadWritePaths=` of a drop-in and " +
			"give it to the user keyvet.",
	}
	claimNotRemovable = device.Reason{
		Code: "KEYVET_CLAIM_NOT_REMOVABLE", Status: device.Warn, Severity: device.High,
		Means: "The time to remove the claim has not come, but keyvet will not be able to.",
		Do: "Move both files of the claim to `/var/lib/keyvet/claim`, or name their directory in `ReadWritePaths=` of a drop-in and " +
			"give it to the user keyvet.",
	}
)

// RemoveClaim removes the claim's two files, its key first.
func RemoveClaim(c config.Config) error {
	return errors.Join(durable.Remove(c.Provision.ClaimKey), durable.Remove(c.Provision.ClaimCertificate))
}

// ClaimFindings warns of a claim that provision.delete_claim says to remove, and
// that was not removed when it was to be, or cannot be.
func ClaimFindings(c config.Config) []device.Finding {
	if !c.Provision.DeleteClaim || c.Provision.ClaimKey == "" {
		return nil
	}
	found := func(r device.Reason, format string, args ...any) []device.Finding {
		return []device.Finding{{
			Check: "claim", Key: "claim", Status: r.Status, Severity: r.Severity, ReasonCode: r.Code, Message: fmt.Sprintf(format, args...),
		}}
	}
	where := fmt.Sprintf("move both files to %s, which keyvet may write, or let the service write their directory (ReadWritePaths= and its owner)", filepath.Join(c.StateDir, "claim"))
	if journal, err := (rotate.File{Path: rotate.JournalPath(c.StateDir)}).Load(); err == nil {
		for _, l := range journal.Leaving {
			if l.ID == rotate.Claim && l.Tries > 0 {
				return found(claimNotRemoved, "the claim's key is on the device still, and is tried again at %s: %s: %s", l.At.Format(time.RFC3339), l.Why, where)
			}
		}
	}
	if err := errors.Join(removable(c.Provision.ClaimKey), removable(c.Provision.ClaimCertificate)); err != nil {
		return found(claimNotRemovable, "provision.delete_claim is set, but the claim cannot be removed: %s: %s", strings.ReplaceAll(err.Error(), "\n", "; "), where)
	}
	return nil
}

// removable says why a file that is there cannot be removed, as far as can be
// seen without removing it.
func removable(path string) error {
	const write, search = 2, 1 // access(2)
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := syscall.Access(filepath.Dir(path), write|search); err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
