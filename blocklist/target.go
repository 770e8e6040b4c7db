package blocklist

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// Target returns a key as it can be looked for among those of Debian's generator
// that no list has: of the seeds that the lists lack for its algorithm and size.
// It is not ok where they lack none, and of a key of which the generator made
// none.
func (ls Lists) Target(pub crypto.PublicKey) (t debian.Target, ok bool) {
	n, err := identify(pub)
	if err != nil {
		return t, false
	}
	t.Number = n.Int
	switch p := pub.(type) {
	case *rsa.PublicKey:
		t.Exponent = p.E
	case *device.LargeRSA:
		t.Exponent = 65537 // its own is none that Debian's tools were given
	case *ecdsa.PublicKey:
		if t.Curve = p.Curve; p.Curve == elliptic.P224() {
			t.Number = p.X //nolint:staticcheck // Bytes refuses a point that is not on the curve
		}
	}
	var has uint16
	for _, l := range ls {
		for i := range l.sets {
			if s := &l.sets[i]; s.Kind == Debian && s.Algorithm == n.algorithm && s.Bits == n.size {
				has |= originMask(s.Origins)
			}
		}
	}
	possible := uint16(originsComplete)
	if n.algorithm == RSA {
		possible |= originsSSH
	}
	for _, o := range Origins() {
		if possible&^has&o.bit() != 0 {
			t.Origins = append(t.Origins, debian.Origin(o))
		}
	}
	if len(t.Origins) == 0 {
		return t, false
	}
	_, err = debian.NewHunt([]debian.Target{t}, 0, 0)
	return t, err == nil
}

// Found is what a list that had it would say of a key that [debian.Hunt] found;
// ok is false if the seed does not make it.
func Found(t debian.Target, hit debian.Hit) (listing device.Listing, ok bool) {
	listing = device.Listing{
		Listed: true, Exact: true, Covered: true,
		Proof: map[string]any{"pid": int(hit.Seed.PID), "architecture": hit.Seed.Arch.String(), "variant": hit.Seed.Variant.String()},
	}
	if t.Curve != nil {
		key, err := debian.EC(t.Curve, hit.Seed)
		return listing, err == nil && key.X.Cmp(t.Number) == 0
	}
	p := hit.Factor
	if p == nil || p.BitLen() < 2 || p.Cmp(t.Number) >= 0 || p.Sign() <= 0 || new(big.Int).Rem(t.Number, p).Sign() != 0 {
		return listing, false
	}
	listing.Proof["factor"] = p.Text(16)
	return listing, true
}
