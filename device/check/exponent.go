package check

import (
	"context"
	"math/big"

	"github.com/keyvet/keyvet/device"
)

var exponent = Check{
	ID:      "exponent",
	Cite:    "https://doi.org/10.6028/NIST.FIPS.186-5", // section 5.1 and appendix A.1.1: odd, 2^16 < e < 2^256
	Applies: isRSA,
	Run:     runExponent,
}

func runExponent(_ context.Context, k device.Key, _ *Env) []device.Finding {
	_, e, _ := k.RSA()
	switch {
	case e.Sign() <= 0 || e.Bit(0) == 0:
		// An even e has no inverse modulo the even φ(n): there is no private key to it.
		return failed(device.High, "KEYVET_EXPONENT_INVALID", "the public exponent, of %d bits, is not odd and positive", e.BitLen())
	case e.Cmp(big.NewInt(1)) == 0:
		return failed(device.Critical, "KEYVET_EXPONENT_ONE", "the public exponent is 1: anyone can sign for this key")
	case e.Cmp(big.NewInt(65537)) < 0:
		return warned(device.Low, "KEYVET_EXPONENT_SMALL", "the public exponent %s is less than 65537", e.Text(10))
	case e.BitLen() > 31:
		return warned(device.Low, "KEYVET_EXPONENT_LARGE", "the public exponent has %d bits: TLS stacks, Go's among them, refuse more than 31", e.BitLen())
	}
	return passed("the public exponent is %s", e.Text(10))
}
