package check

import (
	"context"
	"time"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var certificateOld = device.Reason{
	Code: device.ReasonAge, Status: device.Warn, Severity: device.Low,
	Means: "The device's certificate is older than check.max_age.",
	Do:    "`keyvet rotate` replaces the device's key and certificate.",
}

var age = Check{
	ID:   "age",
	Cite: "https://docs.aws.amazon.com/iot-device-defender/latest/devguide/device-certificate-age-check.html",
	Asks: "Is the device's certificate older than the configuration allows?",
	Applies: func(k device.Key) bool {
		return k.Role == device.RoleDevice && len(k.Chain) > 0
	},
	Reasons: []device.Reason{certificateOld, clockImplausible},
	Run:     runAge,
}

// runAge counts from the start of validity, which is when AWS IoT made the
// certificate, or before.
func runAge(_ context.Context, k device.Key, env *Env) []device.Finding {
	const day = 24 // hours
	if env.MaxAge <= 0 {
		return notApplicable("check.max_age is not set")
	}
	if env.clockBehind() {
		return give(clockImplausible, "the clock says %s, before this program was made", env.Now.UTC().Format(time.RFC3339))
	}
	old := env.Now.Sub(k.Leaf().NotBefore)
	if old > env.MaxAge {
		return give(certificateOld, "the certificate is %.0f days old, and check.max_age is %.0f days", old.Hours()/day, env.MaxAge.Hours()/day)
	}
	return passed("the certificate is not older than check.max_age")
}
