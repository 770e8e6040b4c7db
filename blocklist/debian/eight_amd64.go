package debian

import (
	"context"
	"math/big"

	"golang.org/x/sys/cpu"
)

// vector is one limb of 52 bits of each of eight numbers.
type vector [8]uint64

const (
	limbBits   = 52
	blockLimbs = 5
)

// limbs is the number of limbs that squareEight wants for an n of length bits.
func limbs(length int) int {
	const block = limbBits * blockLimbs
	return max(2, (length+6+block-1)/block) * blockLimbs
}

// squareEight sets m to x², or 2x² for the numbers whose bit of double is set,
// times 2^(-52k) modulo n, for eight x and n of k limbs at once, the least
// significant first. inverse is the negated inverse of n modulo 2^52, and k is a
// multiple of blockLimbs, at least twice that. With x below 4n, and 64n below 2^(52k), m is below 4n.
//
//go:noescape
func squareEight(x, m, n, inverse *vector, k int, double uint8)

// hasEight reports whether the processor can run fermatEight: it needs AVX-512
// with IFMA, which Intel has had since Ice Lake and AMD since Zen 4.
var hasEight = cpu.X86.HasAVX512F && cpu.X86.HasAVX512IFMA

// fermatEight is [fermat] of eight numbers of the same length: bit i of what it
// returns is set if n[i] is prime. It takes about as long as fermat of one.
func fermatEight(ctx context.Context, n *[8]*big.Int) (uint8, error) {
	length := n[0].BitLen()
	k := limbs(length)
	buf := make([]vector, 3*k)
	x, m, mod := buf[:k], buf[k:2*k], buf[2*k:]
	one := new(big.Int).Lsh(big.NewInt(1), uint(limbBits*k)) // in Montgomery's form
	var inverse vector
	// The first bits of the exponent say how far to shift a 1.
	const first = 8
	at := length - first
	for i, p := range n {
		setLane(mod, i, p)
		inverse[i] = negatedInverse(mod[0][i])
		form := new(big.Int).Rsh(p, uint(at))
		form.Lsh(one, uint(form.Uint64()))
		setLane(x, i, form.Mod(form, p))
	}
	for at--; at >= 0; at-- {
		if at%16 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		var double uint8
		if at > 0 { // of n-1, the last bit is 0
			for i, p := range n {
				double |= uint8(p.Bit(at)) << i
			}
		}
		squareEight(&x[0], &m[0], &mod[0], &inverse, k, double)
		x, m = m, x
	}
	var primes uint8
	for i, p := range n {
		power := lane(x, i)
		if power.Sub(power, one).Mod(power, p).Sign() == 0 {
			primes |= 1 << i
		}
	}
	return primes, nil
}

// setLane sets number i of v to x.
func setLane(v []vector, i int, x *big.Int) {
	words := x.Bits()
	for l := range v {
		w, shift := l*limbBits/64, l*limbBits%64
		var limb uint64
		if w < len(words) {
			limb = uint64(words[w]) >> shift
		}
		if shift > 64-limbBits && w+1 < len(words) {
			limb |= uint64(words[w+1]) << (64 - shift)
		}
		v[l][i] = limb & (1<<limbBits - 1)
	}
}

// lane returns number i of v.
func lane(v []vector, i int) *big.Int {
	x, limb := new(big.Int), new(big.Int)
	for l := len(v) - 1; l >= 0; l-- {
		x.Or(x.Lsh(x, limbBits), limb.SetUint64(v[l][i]))
	}
	return x
}

// negatedInverse returns -1/n modulo 2^52, for an odd n.
func negatedInverse(n uint64) uint64 {
	inverse := n // of 3 bits; Newton's iteration doubles the number of right ones
	for range 5 {
		inverse *= 2 - n*inverse
	}
	return -inverse & (1<<limbBits - 1)
}
