package check

import (
	"context"
	"fmt"
	"math/big"
	"math/bits"

	"github.com/keyvet/keyvet/device"
)

var modulusPattern = device.Reason{
	Code: "KEYVET_RSA_MODULUS_PATTERN", Status: device.Fail, Severity: device.High,
	Means: "The same bits are zero in every word of the lower part of the RSA modulus, as a broken random-number generator makes it. keyvet did not find the factors; others may.",
	Do:    "Replace the key, and the program or the random-number generator that made it; `keyvet rotate` replaces the device's.",
}

const shortSleeves = "https://blog.trailofbits.com/2026/06/12/factoring-short-sleeve-rsa-keys-with-polynomials/"

// evidence is how many bits of a modulus have to be zero by a pattern. There
// are less than 2^17 patterns that are looked for, so a random modulus has one
// with a chance of less than 2^-100.
const evidence = 120

// sleeve is a pattern of a modulus: in each of its words from the second on, up
// to some word, the same run of bits is zero.
type sleeve struct {
	width uint // of a word in bits
	end   uint // the bit after the run, from 1 to width; a run may begin in the word before
	bits  uint // of the run
	words uint // that have it
}

// shortSleeve finds primes each word of which has but a few random bits, the
// others being zero ("short sleeves"; Ryan, Factoring "short-sleeve" RSA keys
// with polynomials, Trail of Bits, 12 June 2026: an unknown maker, and
// CompleteFTP from 2016 to 2023). Such a prime is a polynomial with small
// coefficients in x = 2^width, and so is their product, whose coefficients can
// be read in the modulus if they are less than x. Polynomials are easy to
// factor.
func shortSleeve(ctx context.Context, t target) *broken {
	s, ok := findSleeve(t.n)
	if !ok {
		return nil
	}
	seen := fmt.Sprintf("%d of %d bits are zero in each of %d words of the modulus", s.bits, s.width, s.words)
	p := s.splitFromBelow(ctx, t.n)
	if p == nil {
		p = s.split(ctx, t.n)
	}
	if p != nil {
		return &broken{factorsPattern, shortSleeves, p, "its factors are polynomials with small coefficients in a power of 2; " + seen}
	}
	return &broken{modulusPattern, shortSleeves, nil, seen + ": a broken random-number generator made it, and it may well be factored"}
}

// findSleeve finds the pattern of n with the most bits. The upper half of a
// good modulus may have any pattern, which its owner can choose; therefore words
// are counted from below. The lowest is left out, since the search for a prime
// changes it.
func findSleeve(n *big.Int) (sleeve, bool) {
	var best sleeve
	for width := uint(16); width <= 256; width *= 2 {
		mask := new(big.Int).Lsh(one, width)
		mask.Sub(mask, one)
		set, word := new(big.Int), new(big.Int)
		for words := uint(1); (words+1)*width <= uint(n.BitLen()); words++ {
			set.Or(set, word.Rsh(n, words*width).And(word, mask))
			zeros := width - ones(set)
			if zeros*(uint(n.BitLen())/width) < evidence {
				break // nor will there be more
			}
			if zeros*words < evidence {
				continue
			}
			end, bits := longestRun(set, width)
			if bits*words > best.bits*best.words {
				best = sleeve{width, end, bits, words}
			}
		}
	}
	return best, best.bits*best.words >= evidence
}

// ones is how many bits of a number are set.
func ones(n *big.Int) (count uint) {
	for _, word := range n.Bits() {
		count += uint(bits.OnesCount(uint(word)))
	}
	return count
}

// longestRun is where the longest run of zeros in a word ends, and its length;
// the word is seen as a ring.
func longestRun(word *big.Int, width uint) (end, bits uint) {
	run := uint(0)
	for i := range 2 * width {
		if word.Bit(int(i%width)) != 0 {
			run = 0
			continue
		}
		if run++; run > bits && run <= width {
			end, bits = i%width+1, run
		}
	}
	return end, bits
}

// split factors n as a polynomial in 2^width, with words that end in the run of
// zeros; nil if that does not work.
func (s sleeve) split(ctx context.Context, n *big.Int) *big.Int {
	const tries = 6
	for i := range uint(tries) {
		end := s.end + s.width - i*s.bits/tries
		shifted := new(big.Int).Lsh(n, (2*s.width-end)%s.width)
		f := polynomialIn(shifted, s.width)
		for g := range f.factors(ctx, s.width) {
			if p := properFactor(n, g.at(s.width)); p != nil {
				return p
			}
		}
	}
	return nil
}
