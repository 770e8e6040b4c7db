package check

import (
	"context"
	"math/big"
	"math/bits"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var rocaModulus = device.Reason{
	Code: device.ReasonROCA, Status: device.Fail, Severity: device.Critical,
	Means: "The key was made by the flawed generator of Infineon chips (ROCA); its private key can be computed from the public one.",
	Do:    "Replace the key: `keyvet rotate` replaces the device's, `tpm2_evictcontrol -C o -c HANDLE` removes one that nothing uses any more. Update the firmware of the TPM.",
}

var roca = Check{
	ID:      "roca",
	Cite:    "https://crocs.fi.muni.cz/public/papers/rsa_ccs17",
	Asks:    "Was the RSA key made by the flawed generator of Infineon chips?",
	Applies: isRSA,
	Reasons: []device.Reason{rocaModulus},
	Run:     runROCA,
}

func runROCA(_ context.Context, k device.Key, _ *Env) []device.Finding {
	n, _, _ := k.RSA()
	if n.Sign() <= 0 || n.BitLen() < rocaFloor {
		return notApplicable("a modulus of %d bits is too short to tell", n.BitLen())
	}
	if ROCA(n) {
		return give(rocaModulus, "the modulus has the structure of Infineon's flawed key generation: the private key can be computed from it")
	}
	return passed("no ROCA structure")
}

// A ROCA prime is p = k·M + (65537^a mod M) with M the product of the first
// primes (Nemec et al., The Return of Coppersmith's Attack, CCS 2017, section
// 2). A modulus N of two of them is a power of 65537 modulo each prime that
// divides M. How far M goes depends on the key's size, but every M is a
// multiple of the smallest, primorial(167), which is all that is looked at here.

// rocaFloor is the least size of a modulus in bits that is looked at: 1, 65537
// and other small numbers are powers of 65537 too. M alone has 220 bits.
const rocaFloor = 256

// ROCA reports whether the modulus n was made by the flawed RSA key generation
// of Infineon's RSALib (CVE-2017-15361): whether it is a power of 65537 modulo
// the product of the primes up to 167. A random number is one in 2^155. The
// public exponent does not matter.
func ROCA(n *big.Int) bool { return fingerprint(n) && isPower(n) }

// subgroup is the powers of 65537 modulo a prime.
type subgroup struct {
	prime uint
	order uint
	log   [168]uint8 // by residue: its discrete logarithm to the base 65537, or notPower
}

const notPower = 0xff // every order is less

// subgroups are those of the 39 primes up to 167. First come the 17 in which
// 65537 does not generate the whole group, those with the fewest members for
// their size in front: a good modulus falls at the first or second.
var subgroups = func() (all [39]subgroup) {
	primes := [...]uint{
		97, 37, 79, 11, 61, 73, 127, 151, 13, 17, 19, 53, 71, 103, 107, 109, 157,
		2, 3, 5, 7, 23, 29, 31, 41, 43, 47, 59, 67, 83, 89, 101, 113, 131, 137, 139, 149, 163, 167,
	}
	for i, p := range primes {
		s := &all[i]
		s.prime = p
		for r := range s.log {
			s.log[r] = notPower
		}
		for x := uint(1); s.log[x] == notPower; x = x * 65537 % p {
			s.log[x] = uint8(s.order)
			s.order++
		}
	}
	return all
}()

// selective is how many of subgroups say anything in the fingerprint.
const selective = 17

// chunk is how many words of a modulus are summed up at a time: 2,048 bits on
// a 64-bit machine.
const chunk = 32

// group is neighbours in subgroups whose primes are reduced by together.
type group struct {
	members []subgroup
	product uint            // of the primes
	weight  [chunk + 1]uint // 2^(i·word size) modulo product
}

// groups are as large as a sum of chunk+1 products of a word and a weight in
// two words allows.
var groups = func() (all []group) {
	const limit = 1 << (bits.UintSize - 6)
	start, product := 0, uint(1)
	closeAt := func(end int) {
		g := group{members: subgroups[start:end], product: product}
		w := uint(1)
		for i := range g.weight {
			g.weight[i] = w
			w = bits.Rem(w, 0, product)
		}
		all = append(all, g)
		start, product = end, 1
	}
	for i, s := range subgroups {
		if i == selective || product > limit/s.prime {
			closeAt(i)
		}
		product *= s.prime
	}
	closeAt(len(subgroups))
	return all
}()

// residue is n modulo the group's product, n being little-endian words. It
// divides once per chunk: a word at place i counts for its weight there.
func (g *group) residue(n []big.Word) uint {
	var r uint
	for end := len(n); end > 0; {
		start := (end - 1) / chunk * chunk
		words := n[start:end]
		// What the higher chunks left over is the word above this one.
		hi, lo := bits.Mul(r, g.weight[chunk])
		for i, w := range words[:min(len(words), chunk)] {
			h, l := bits.Mul(uint(w), g.weight[i])
			var carry uint
			lo, carry = bits.Add(lo, l, 0)
			hi, _ = bits.Add(hi, h, carry)
		}
		r = bits.Rem(hi, lo, g.product)
		end = start
	}
	return r
}

// fingerprint is the fast test: whether n is a power of 65537 modulo each of
// the selective primes. A random number is one in 2^27.8.
func fingerprint(n *big.Int) bool {
	if n.Sign() <= 0 || n.BitLen() < rocaFloor {
		return false
	}
	words := n.Bits()
	for i, seen := 0, 0; seen < selective; i++ {
		g := &groups[i]
		r := g.residue(words)
		for j := range g.members {
			s := &g.members[j]
			if s.log[r%s.prime] == notPower {
				return false
			}
		}
		seen += len(g.members)
	}
	return true
}

// agreement says that the logarithms in two subgroups, given as places in
// subgroups, have to be equal modulo a prime power that divides both orders.
type agreement struct{ a, b, modulus uint8 }

// agreements are those that together make logarithms in all subgroups one
// logarithm: by the Chinese remainder theorem there is an exponent that fits
// all if, for every prime q, all agree with the subgroup whose order has the
// highest power of q, each modulo its own power of q.
var agreements = func() (all []agreement) {
	power := func(order, q uint) uint {
		p := uint(1)
		for order%q == 0 {
			order /= q
			p *= q
		}
		return p
	}
	for _, base := range subgroups { // the primes up to 167 are all the q there can be
		q, best := base.prime, 0
		for i, s := range subgroups {
			if power(s.order, q) > power(subgroups[best].order, q) {
				best = i
			}
		}
		for i, s := range subgroups {
			if p := power(s.order, q); i != best && p > 1 {
				all = append(all, agreement{a: uint8(best), b: uint8(i), modulus: uint8(p)})
			}
		}
	}
	return all
}()

// isPower is the exact test: whether n is a power of 65537 modulo the product
// of all primes up to 167.
func isPower(n *big.Int) bool {
	var logs [len(subgroups)]uint8
	words, i := n.Bits(), 0
	for g := range groups {
		r := groups[g].residue(words)
		for j := range groups[g].members {
			s := &groups[g].members[j]
			if logs[i] = s.log[r%s.prime]; logs[i] == notPower {
				return false
			}
			i++
		}
	}
	for _, a := range agreements {
		if logs[a.a]%a.modulus != logs[a.b]%a.modulus {
			return false
		}
	}
	return true
}
