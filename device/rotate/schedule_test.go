package rotate_test

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device/rotate"
)

func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name             string
		validity, before time.Duration
		earliest, latest time.Duration // from issuance
	}{
		{"a year", 365 * day, 30 * day, 365*day - 37*day - day/2, 335 * day},
		{"nine years", 3285 * day, 30 * day, 3285*day - 37*day - day/2, 3255 * day},
		{"shorter than before", 20 * day, 30 * day, 10 * day, 10 * day},
		{"twice before", 60 * day, 30 * day, 30 * day, 30 * day},
		{"until 9999", 200 * 365 * day, 30 * day, 200*365*day - 37*day - day/2, 200*365*day - 30*day},
	} {
		leaf := &x509.Certificate{NotBefore: issued, NotAfter: issued.Add(tt.validity)}
		first, last := leaf.NotAfter, issued
		for i := range 1000 {
			name := fmt.Sprint("gateway-", i)
			due := rotate.Due(leaf, tt.before, name)
			if due != rotate.Due(leaf, tt.before, name) {
				t.Fatalf("%s: another time for the same device", tt.name)
			}
			if due.Before(first) {
				first = due
			}
			if due.After(last) {
				last = due
			}
		}
		if first.Before(issued.Add(tt.earliest)) || last.After(issued.Add(tt.latest)) {
			t.Errorf("%s: from %s to %s after issuance, want %s to %s", tt.name, first.Sub(issued), last.Sub(issued), tt.earliest, tt.latest)
		}
		if spread := last.Sub(first); tt.earliest != tt.latest && spread < tt.before/5 {
			t.Errorf("%s: spread over %s", tt.name, spread)
		}
	}
}
