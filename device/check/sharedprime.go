package check

import (
	"context"
	"crypto/x509"
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

// sharedPrimes are, by modulus in the form of [big.Int.Bytes], the moduli of a
// check that have a prime in common with another.
type sharedPrimes map[string]sharing

// sharing is a factor of a modulus and who else has it.
type sharing struct {
	factor *big.Int
	others []string
}

// runSharedPrimes finds a factor that another key of the same run has too, among
// the keys of CAs as well (Heninger et al., Mining Your Ps and Qs, USENIX
// Security 2012). A second key with the same modulus is no such key.
func runSharedPrimes(_ context.Context, keys []device.Key, env *Env) []device.Finding {
	shared := findShared(keys, env.Roots)
	if len(shared) == 0 {
		return nil
	}
	var all []device.Finding
	say := func(key, whose string, public device.Key) {
		n, _, ok := public.RSA()
		if !ok {
			return
		}
		s, ok := shared[string(n.Bytes())]
		if !ok {
			return
		}
		others := strings.Join(s.others[:min(len(s.others), 3)], ", ")
		if more := len(s.others) - 3; more > 0 {
			others += fmt.Sprintf(" and %d more", more)
		}
		found := told(&broken{primeShared, "https://factorable.net/weakkeys12.extended.pdf", s.factor, "it has a prime in common with " + others})
		found[0].Key, found[0].Message = key, whose+found[0].Message
		all = append(all, found...)
	}
	for _, k := range keys {
		say(k.ID, "", k)
		for _, ca := range k.Chain[min(len(k.Chain), 1):] {
			say(k.ID, fmt.Sprintf("the key of the CA %s: ", ca.Subject), device.Key{Public: ca.PublicKey})
		}
	}
	return all
}

// owned is a modulus and whose it is.
type owned struct {
	n     *big.Int
	names []string
}

// findShared finds the primes that the RSA keys of an inventory, of the CAs on
// its chains and of the given roots have in common.
func findShared(keys []device.Key, roots []*x509.Certificate) sharedPrimes {
	var all []owned
	at := make(map[string]int)
	add := func(k device.Key, name string) {
		n, _, ok := k.RSA()
		if !ok || n.Cmp(one) <= 0 || n.BitLen() > factorsCeiling {
			return
		}
		i, known := at[string(n.Bytes())]
		if !known {
			i = len(all)
			at[string(n.Bytes())] = i
			all = append(all, owned{n: n})
		}
		if !slices.Contains(all[i].names, name) {
			all[i].names = append(all[i].names, name)
		}
	}
	for _, k := range keys {
		add(k, k.ID)
	}
	ofCA := func(ca *x509.Certificate) {
		add(device.Key{Public: ca.PublicKey}, "the CA "+ca.Subject.String())
	}
	for _, k := range keys {
		for _, ca := range k.Chain[min(len(k.Chain), 1):] {
			ofCA(ca)
		}
	}
	for _, ca := range roots {
		ofCA(ca)
	}

	var hit []owned
	for i, g := range batchGCD(all) {
		if g.Cmp(one) > 0 {
			hit = append(hit, all[i])
		}
	}
	shared := make(sharedPrimes)
	for _, o := range hit {
		s := sharing{}
		for _, other := range hit {
			if g := properFactor(o.n, other.n); g != nil && o.n != other.n {
				s.factor, s.others = g, append(s.others, other.names...)
			} else if o.n != other.n && new(big.Int).Mod(other.n, o.n).Sign() == 0 {
				s.others = append(s.others, other.names...) // all of n is in the other modulus
			}
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
