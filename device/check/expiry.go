package check

import (
	"cmp"
	"context"
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
		Means: "A certificate has expired.",
		Do:    "Renew the certificate: keyvet rotate, or the way it was issued.",
	}
	expiring = device.Reason{
		Code: device.ReasonExpiring, Status: device.Warn, Severity: device.Medium,
		Means: "A certificate expires soon.",
		Do:    "Renew the certificate before then; rotate.before does it by itself.",
	}
	notYetValid = device.Reason{
		Code: "KEYVET_CERTIFICATE_NOT_YET_VALID", Status: device.Fail, Severity: device.Medium,
		Means: "A certificate is not valid yet.",
		Do:    "Check the clock of the device; else wait, or have the certificate issued again.",
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

// runExpiry looks at every certificate of the chain, since peers do. One that
// is not valid yet fails as one that is past does (RFC 5280, section 6.1.3):
// peers refuse it; if the reason is a clock that is behind, the next check
// after the clock is set passes.
func runExpiry(_ context.Context, k device.Key, env *Env) []device.Finding {
	if device.ClockBehind(env.Now) {
		return give(clockImplausible, "the clock says %s: set it, then check again", env.Now.UTC().Format(time.RFC3339))
	}
	warning := cmp.Or(env.ExpiryWarning, 720*time.Hour)
	if k.SSH != nil {
		return sshValidity(k.SSH, env, warning)
	}
	var found []device.Finding
	for i, c := range k.Chain {
		name := "the certificate"
		if i > 0 {
			name = "the CA certificate " + c.Subject.String()
		}
		from, to := c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
		switch {
		case env.Now.After(c.NotAfter):
			found = append(found, give(expired, "%s expired on %s", name, to)...)
		case env.Now.Before(c.NotBefore):
			found = append(found, give(notYetValid, "%s is valid from %s on; the clock says %s", name, from, env.Now.UTC().Format(time.RFC3339))...)
		case env.Now.Add(warning).After(c.NotAfter):
			found = append(found, give(expiring, "%s expires on %s", name, to)...)
		}
	}
	if found == nil {
		return passed("valid until %s", k.Chain[0].NotAfter.UTC().Format(time.RFC3339))
	}
	return found
}
