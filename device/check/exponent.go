package check

import (
	"context"
	"math/big"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	exponentInvalid = device.Reason{
		Code: "KEYVET_EXPONENT_INVALID", Status: device.Fail, Severity: device.High,
		Means: "The public exponent is even or not positive, so there is no private key to it.",
		Do:    "Replace the key.",
	}
	exponentOne = device.Reason{
		Code: "KEYVET_EXPONENT_ONE", Status: device.Fail, Severity: device.Critical,
		Means: "The public exponent is 1: anyone can sign for the key.",
		Do:    "Replace the key.",
	}
	exponentAboveModulus = device.Reason{
		Code: "KEYVET_EXPONENT_ABOVE_MODULUS", Status: device.Fail, Severity: device.High,
		Means: "The public exponent is not less than the modulus, which RSA does not allow.",
		Do:    "Replace the key.",
	}
	exponentSmall = device.Reason{
		Code: "KEYVET_EXPONENT_SMALL", Status: device.Warn, Severity: device.Low,
		Means: "The public exponent is less than 65537.",
		Do:    "Make new keys with the exponent 65537; `keyvet rotate` replaces the device's.",
	}
	exponentLarge = device.Reason{
		Code: "KEYVET_EXPONENT_LARGE", Status: device.Warn, Severity: device.Low,
		Means: "The public exponent is longer than TLS implementations accept.",
		Do:    "Make new keys with the exponent 65537; `keyvet rotate` replaces the device's.",
	}
)

var exponent = Check{
	ID:      "exponent",
	Cite:    "https://doi.org/10.6028/NIST.FIPS.186-5", // section 5.1 and appendix A.1.1: odd, 2^16 < e < 2^256
	Asks:    "Is the public exponent of the RSA key sound?",
	Applies: isRSA,
	Reasons: []device.Reason{exponentInvalid, exponentOne, exponentAboveModulus, exponentSmall, exponentLarge},
	Run:     runExponent,
}

func runExponent(_ context.Context, k device.Key, _ *Env) []device.Finding {
	n, e, _ := k.RSA()
	switch {
	case e.Sign() <= 0 || e.Bit(0) == 0:
		// An even e has no inverse modulo the even φ(n): there is no private key to it.
		return give(exponentInvalid, "the public exponent, of %d bits, is not odd and positive", e.BitLen())
	case e.Cmp(big.NewInt(1)) == 0:
		return give(exponentOne, "the public exponent is 1: anyone can sign for this key")
	case n.Sign() > 0 && e.Cmp(n) >= 0:
		// RFC 8017, section 3.1: 3 <= e <= n-1.
		return give(exponentAboveModulus, "the public exponent, of %d bits, is not less than the modulus", e.BitLen())
	case e.Cmp(big.NewInt(65537)) < 0:
		return give(exponentSmall, "the public exponent %s is less than 65537", e.Text(10))
	case e.BitLen() > 31:
		return give(exponentLarge, "the public exponent has %d bits: TLS stacks, Go's among them, refuse more than 31", e.BitLen())
	}
	return passed("the public exponent is %s", e.Text(10))
}
