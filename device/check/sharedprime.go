package check

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"

	"github.com/keyvet/keyvet/device"
)

var primeShared = device.Reason{
	Code: "KEYVET_RSA_PRIME_SHARED", Status: device.Fail, Severity: device.Critical,
	Means: "The RSA modulus has a prime in common with that of another key of the same check, so both are factored.",
	Do:    "Replace both keys, and the program or the random-number generator that made them; `keyvet rotate` replaces the device's.",
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
		if g.Cmp(one) != 0 {
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

// batchGCD returns for each modulus what it has in common with some of the
// others, 1 if with none: of two that have a prime in common each shows it.
func batchGCD(all []owned) []*big.Int {
	moduli := make([]*big.Int, len(all))
	for i, o := range all {
		moduli[i] = o.n
	}
	common := commonWithEarlier(moduli)
	var found []*big.Int
	for _, g := range common {
		if g.Cmp(one) != 0 {
			found = append(found, g)
		}
	}
	if len(found) == 0 {
		return common
	}
	// Whom they have it in common with is among the earlier ones. Of the few that
	// are left the other order shows those that have both primes in common, too.
	var hit []int
	earlier := commonWith(found, moduli)
	for i := len(moduli) - 1; i >= 0; i-- {
		if earlier[i].Cmp(one) != 0 {
			hit = append(hit, i)
		}
	}
	few := make([]*big.Int, len(hit))
	for i, at := range hit {
		few[i] = moduli[at]
	}
	for i, g := range commonWithEarlier(few) {
		if at := hit[i]; common[at].Cmp(one) == 0 || common[at].Cmp(moduli[at]) == 0 && g.Cmp(one) != 0 {
			common[at] = g
		}
	}
	return common
}

// commonWith returns for each modulus what it has in common with the product of
// some numbers. That product is reduced in trees of about its own size.
func commonWith(numbers, moduli []*big.Int) []*big.Int {
	whole := multiply(numbers, 1, make([]*big.Int, len(numbers))).value
	common := make([]*big.Int, len(moduli))
	size := max(len(numbers), 64)
	for from := 0; from < len(moduli); from += size {
		to := min(from+size, len(moduli))
		multiply(moduli[from:to], 1, common[from:to]).reduce(whole)
	}
	return common
}

// reduce finds what each modulus of p has in common with a number.
func (p *product) reduce(number *big.Int) {
	number = new(big.Int).Rem(number, p.value)
	if p.common != nil {
		*p.common = number.GCD(nil, nil, number, p.value)
		return
	}
	both(p.depth, func() { p.left.reduce(number) }, func() { p.right.reduce(number) })
}

// commonWithEarlier returns for each modulus what it has in common with the
// product of those before it. A tree of products is made, and each product on a
// left branch is reduced modulo all that is on the right one (after Bernstein, How
// to find smooth parts of integers, 2004). To do it for one direction only takes
// half the time.
func commonWithEarlier(moduli []*big.Int) []*big.Int {
	common := make([]*big.Int, len(moduli))
	if len(moduli) > 0 {
		multiply(moduli, 0, common).compare(nil)
	}
	return common
}

// product is that of some neighbours in a list of moduli.
type product struct {
	value       *big.Int // nil for that of all, which is not used
	left, right *product
	common      **big.Int // of a single modulus: the result
	depth       int
}

// multiply makes the tree of products, on the processors that there are.
func multiply(moduli []*big.Int, depth int, common []*big.Int) *product {
	p := &product{depth: depth}
	if len(moduli) == 1 {
		p.value, p.common = moduli[0], &common[0]
		return p
	}
	half := len(moduli) / 2
	both(depth,
		func() { p.left = multiply(moduli[:half], depth+1, common[:half]) },
		func() { p.right = multiply(moduli[half:], depth+1, common[half:]) })
	if depth > 0 {
		p.value = new(big.Int).Mul(p.left.value, p.right.value)
	}
	return p
}

// compare finds what each modulus of p has in common with earlier, a number that
// may be changed, or nil, and with those of p before it.
func (p *product) compare(earlier *big.Int) {
	if p.common != nil {
		*p.common = one
		if earlier != nil {
			*p.common = earlier.GCD(nil, nil, earlier, p.value)
		}
		return
	}
	left, right := p.left, p.right
	p.left, p.right = nil, nil
	both(p.depth,
		func() {
			var before *big.Int
			if earlier != nil {
				before = new(big.Int).Rem(earlier, left.value)
			}
			left.compare(before)
		},
		func() {
			before := new(big.Int).Rem(left.value, right.value)
			if earlier != nil {
				before.Mul(before, new(big.Int).Rem(earlier, right.value))
				before.Rem(before, right.value)
			}
			right.compare(before)
		})
}

// both does two things, at the same time if they are large.
func both(depth int, first, second func()) {
	if depth > 3 {
		first()
		second()
		return
	}
	var other sync.WaitGroup
	other.Go(first)
	second()
	other.Wait()
}
