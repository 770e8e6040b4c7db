package check

import (
	"cmp"
	"context"
	"crypto/x509"
	"time"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	clockImplausible = device.Reason{
		Code: "KEYVET_CLOCK_IMPLAUSIBLE", Status: device.Undecided,
		Means: "The clock shows a time before this keyvet was made, so validity cannot be checked.",
		Do:    "Set the clock (NTP, an RTC with a battery), then check again.",
	}
	expired = device.Reason{
		Code: device.ReasonExpired, Status: device.Fail, Severity: device.Medium,
		Means: "A certificate has expired. WARN for certificates in the TPM, which cannot be replaced, and for CA certificates that are in a file for themselves.",
		Do:    "Renew the certificate. AWS IoT refuses a device whose own has expired: re-enrol it by its claim, `cd STATE_DIR && rm -rf identity credentials rotation.json thing`, then start keyvet (docs/operations.md).",
	}
	expiring = device.Reason{
		Code: device.ReasonExpiring, Status: device.Warn, Severity: device.Medium,
		Means: "A certificate expires soon.",
		Do:    "Renew the certificate before then: `keyvet rotate` renews the device's, and rotate.before does so in time.",
	}
	notYetValid = device.Reason{
		Code: "KEYVET_CERTIFICATE_NOT_YET_VALID", Status: device.Undecided,
		Means: "A certificate is not valid yet by the clock, which may be behind.",
		Do:    "Set the clock of the device if it is behind; else wait, or have the certificate issued again.",
	}
)

var expiry = Check{
	ID:      "expiry",
	Cite:    "https://docs.aws.amazon.com/iot-device-defender/latest/devguide/audit-chk-device-cert-approaching-expiration.html",
	Asks:    "Are the certificates valid now, and for some time to come?",
	Applies: func(k device.Key) bool { return len(k.Chain) > 0 || k.SSH != nil },
	Reasons: []device.Reason{clockImplausible, expired, expiring, notYetValid},
	Run:     runExpiry,
}

// runExpiry looks at every certificate of the best path, since peers do.
func runExpiry(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if env.clockBehind() {
		return give(clockImplausible, "the clock says %s, before this program was made", env.Now.UTC().Format(time.RFC3339))
	}
	if k.SSH != nil {
		return sshValidity(k.SSH, env)
	}
	if found := expiryOf(k, pathOf(ctx, k, env).certificates(), env); found != nil {
		return found
	}
	return passed("valid until %s", k.Leaf().NotAfter.UTC().Format(time.RFC3339))
}

func (e *Env) clockBehind() bool {
	if e.Floor.IsZero() {
		return device.ClockBehind(e.Now)
	}
	return e.Now.Before(e.Floor)
}

// expiryOf is what is to be said of the validity of certificates on the path of a
// key. Of one that is not valid yet it is not known whether it is the clock that
// is wrong: a CA whose clock is ahead by seconds is common.
func expiryOf(k device.Key, certs []*x509.Certificate, env *Env) []device.Finding {
	now := env.Now.UTC().Format(time.RFC3339)
	var found []device.Finding
	for _, c := range certs {
		name := "the certificate"
		if c != k.Leaf() {
			name = "the CA certificate " + subject(c)
		}
		from, to := c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
		switch {
		case env.Now.After(c.NotAfter):
			status, severity := expired.Status, expired.Severity
			if inTPM(k.Role) || standsForItself(k) {
				status, severity = device.Warn, device.Low
			}
			found = append(found, giveAs(status, severity, expired, "%s expired on %s", name, to)...)
		case env.Now.Before(c.NotBefore):
			found = append(found, give(notYetValid, "%s is valid from %s on, and the clock says %s", name, from, now)...)
		case env.Now.Add(warnBefore(c, env)).After(c.NotAfter):
			found = append(found, give(expiring, "%s expires on %s", name, to)...)
		}
	}
	return found
}

// standsForItself reports whether a key is that of a CA certificate in a bundle, or
// of one that was given: what is under the CA says so if it relies on it.
func standsForItself(k device.Key) bool {
	return (k.Role == device.RoleFile || k.Role == device.RoleCA) && k.Private == nil && isCA(k.Leaf())
}

// warnBefore is how long before its end a certificate is near it: a tenth of its
// life, if that is less than what is configured.
func warnBefore(c *x509.Certificate, env *Env) time.Duration {
	const max = 720 * time.Hour
	warning := cmp.Or(env.ExpiryWarning, max)
	if tenth := c.NotAfter.Sub(c.NotBefore) / 10; tenth < warning {
		return tenth
	}
	return warning
}
