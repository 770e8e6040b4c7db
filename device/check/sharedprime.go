package check

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

var primeShared = device.Reason{
	Code: "KEYVET_RSA_PRIME_SHARED", Status: device.Fail, Severity: device.Critical,
	Means: "The RSA modulus has a prime in common with that of another key of the same check, so both are factored.",
	Do:    "Replace both keys, and the program or the random-number generator that made them.",
}

// runSharedPrimes finds the primes that RSA keys have in common, those of CAs among
// them (Heninger et al., Mining Your Ps and Qs, USENIX Security 2012). A second
// key with the same modulus is no such key.
func runSharedPrimes(_ context.Context, keys []device.Key, _ *Env) []device.Finding {
	shared := findShared(keys)
	var found []device.Finding
	for _, k := range keys {
		n, _, ok := k.RSA()
		if !ok {
			continue
		}
		s, ok := shared[string(n.Bytes())]
		if !ok {
			continue
		}
		one := told(&broken{primeShared, "https://factorable.net/weakkeys12.extended.pdf", s.factor, "it has a prime in common with " + s.with()})
		one[0].Key = k.ID
		if k.Role == "" {
			one[0].Message = "the key of " + k.Source + ": " + one[0].Message
		}
		found = append(found, one...)
	}
	return found
}

// sharing is a factor of a modulus and who else has it.
type sharing struct {
	factor *big.Int
	others []string
	many   bool // there may be further others
}

// maxPairs bounds how many pairs of moduli are compared, so that a file of many
// with small factors in common does not take hours.
const maxPairs = 40_000

// with names the others.
func (s sharing) with() string {
	const most = 3
	names := strings.Join(s.others[:min(len(s.others), most)], ", ")
	if more := len(s.others) - most; s.many {
		names += " and others"
	} else if more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return names
}

// owned is a modulus and whose it is.
type owned struct {
	n     *big.Int
	names []string
}

// findShared returns the moduli that have a prime in common with another, in the
// form of [big.Int.Bytes].
func findShared(keys []device.Key) map[string]sharing {
	var all []owned
	at := make(map[string]int)
	for _, k := range keys {
		n, _, ok := k.RSA()
		if !ok || n.Cmp(one) <= 0 || n.BitLen() > factorsCeiling {
			continue
		}
		name := k.ID
		if k.Role == "" {
			name = k.Source
		}
		i, known := at[string(n.Bytes())]
		if !known {
			i = len(all)
			at[string(n.Bytes())] = i
			all = append(all, owned{n: n})
		}
		if len(all[i].names) < 16 && !slices.Contains(all[i].names, name) {
			all[i].names = append(all[i].names, name)
		}
	}
	var hit []owned
	var common []*big.Int // of hit
	for i, g := range batchGCD(all) {
		if g.Cmp(one) > 0 {
			hit, common = append(hit, all[i]), append(common, g)
		}
	}
	shared := make(map[string]sharing)
	many, compared := len(hit)*len(hit) > maxPairs, 0
	for i, o := range hit {
		s := sharing{many: many}
		for _, other := range hit {
			if o.n == other.n {
				continue
			}
			if many && (len(s.others) >= 3 || compared >= maxPairs) {
				break
			}
			compared++
			if g := properFactor(o.n, other.n); g != nil {
				s.factor, s.others = g, append(s.others, other.names...)
			}
		}
		if g := common[i]; s.factor == nil && many && g.Cmp(o.n) < 0 {
			s = sharing{factor: g, others: []string{"another key"}}
		}
		if s.factor != nil {
			shared[string(o.n.Bytes())] = s
		}
	}
	return shared
}

// batchGCD returns for each modulus what it has in common with the product of
// all others: the product is reduced modulo the square of each, down a tree
// (Bernstein, How to find smooth parts of integers, 2004).
func batchGCD(all []owned) []*big.Int {
	if len(all) < 2 {
		return nil
	}
	level := make([]*big.Int, len(all))
	for i, o := range all {
		level[i] = o.n
	}
	tree := [][]*big.Int{level}
	for len(level) > 1 {
		var above []*big.Int
		for pair := range slices.Chunk(level, 2) {
			product := pair[0]
			if len(pair) == 2 {
				product = new(big.Int).Mul(pair[0], pair[1])
			}
			above = append(above, product)
		}
		tree = append(tree, above)
		level = above
	}
	rests := level
	for depth := len(tree) - 2; depth >= 0; depth-- {
		below := make([]*big.Int, len(tree[depth]))
		for i, n := range tree[depth] {
			square := new(big.Int).Mul(n, n)
			below[i] = square.Mod(rests[i/2], square)
		}
		tree[depth+1] = nil
		rests = below
	}
	for i, o := range all {
		rest := new(big.Int).Quo(rests[i], o.n)
		rests[i] = rest.GCD(nil, nil, rest, o.n)
	}
	return rests
}
