package debian

import (
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"sync"
)

// Origin is a group of seeds: the kind of machine that the generator ran on, and
// what it did before the first draw.
type Origin struct {
	Arch    Arch
	Variant Variant
}

// Target is a public key that is looked for among those of all seeds.
type Target struct {
	Number   *big.Int       // modulus of RSA, x coordinate of EC
	Exponent int            // of RSA
	Curve    elliptic.Curve // nil: RSA
	Origins  []Origin       // where it is looked for
}

// Hit is a target that was found: the generator makes it of the seed.
type Hit struct {
	Target int      // its place among the targets
	Seed   Seed     //
	Factor *big.Int `json:",omitempty"` // of RSA, the prime that the generator made first
}

// Hunt looks for keys that no list has by regenerating: of RSA the candidates for
// the first prime, which are tried by dividing, as [Factor] does, and of EC every
// key. Several targets take little more time than one, if they are of one size.
//
// A hunt is a number of units in a fixed order. First come those with few
// candidates, which find most weak keys of RSA.
type Hunt struct {
	Targets []Target

	low, high uint16 // process ids

	groups []group
	units  []unit
	Weight float64 // of all units; about the seconds that a core takes
}

// State is how far a hunt came. Its zero value is the beginning.
type State struct {
	Done   int     // units
	Weight float64 // of these
	Hits   []Hit
}

// Candidates is how many candidates for a first prime of that many bits a hunt
// tries: 14 times the mean number before a prime. Of weak keys one in a million
// has its prime further on. Of the complete sets, the last prime comes after 249
// candidates at RSA-1024, 475 at RSA-2048 and 1,089 at RSA-4096.
func Candidates(bits int) int { return bits*55/100 + 1 }

// mean is the mean number of candidates before a prime of that many bits.
func mean(bits int) int { return bits/25 + 1 }

// group are the targets that the same draws are for.
type group struct {
	bits    int  // of RSA's first prime
	factor  uint // see newSearch
	curve   elliptic.Curve
	targets []int
}

type unit struct {
	group       int
	origin      Origin
	low, high   uint16 // process ids
	first, last int    // candidates
	weight      float64
}

// unitPIDs is how many process ids a unit has.
const unitPIDs = 64

var errTarget = errors.New("a target is neither RSA of 512 to 16384 bits with an odd exponent nor EC of a curve that there is")

// NewHunt plans a hunt over the process ids low to high, which are 0 and
// [MaxPID] but in tests. It refuses targets of which the generator makes none.
func NewHunt(targets []Target, low, high uint16) (*Hunt, error) {
	h := &Hunt{Targets: targets, low: low, high: min(high, MaxPID)}
	for i, t := range targets {
		g, err := groupOf(t)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(h.groups, func(o group) bool { return o.bits == g.bits && o.factor == g.factor && o.curve == g.curve })
		if at < 0 {
			at = len(h.groups)
			h.groups = append(h.groups, g)
		}
		h.groups[at].targets = append(h.groups[at].targets, i)
	}
	for pass := range 2 {
		for g := range h.groups {
			h.plan(g, pass)
		}
	}
	for _, u := range h.units {
		h.Weight += u.weight
	}
	return h, nil
}

func groupOf(t Target) (g group, err error) {
	if t.Number == nil || t.Number.Sign() <= 0 {
		return g, errTarget
	}
	if t.Curve != nil {
		if !slices.Contains([]elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()}, t.Curve) {
			return g, errTarget
		}
		return group{curve: t.Curve}, nil
	}
	size := t.Number.BitLen()
	if size < MinRSABits || size > MaxRSABits {
		return g, errTarget
	}
	// What makes another prime of e is a factor that the sieve leaves in. Of an
	// exponent that Debian's tools could not have been given, there is none.
	factor, err := largeFactor(t.Exponent)
	if err != nil {
		factor = 0
	}
	return group{bits: (size + 1) / 2, factor: factor}, nil
}

// plan adds the units of a group: in the first pass the few candidates that find
// most keys of RSA.
func (h *Hunt) plan(g, pass int) {
	group := &h.groups[g]
	first, last := 0, mean(group.bits)
	switch {
	case group.curve != nil && pass > 0:
		return
	case pass > 0:
		first, last = last, Candidates(group.bits)
	}
	for arch := LE32; arch <= BE32; arch++ {
		for variant := Rnd; variant <= SSH; variant++ {
			o := Origin{arch, variant}
			wanted := 0
			for _, i := range group.targets {
				if slices.Contains(h.Targets[i].Origins, o) {
					wanted++
				}
			}
			if wanted == 0 || group.curve != nil && variant == SSH { // ssh-keygen made no EC keys
				continue
			}
			for low := int(h.low); low <= int(h.high); low += unitPIDs {
				u := unit{group: g, origin: o, low: uint16(low), high: uint16(min(low+unitPIDs-1, int(h.high))), first: first, last: last}
				u.weight = float64(u.high-u.low+1) * group.seconds(first, last, wanted)
				h.units = append(h.units, u)
			}
		}
	}
}

// seconds is about what a seed takes.
func (g *group) seconds(first, last, targets int) float64 {
	if g.curve != nil {
		return map[int]float64{224: 2e-4, 256: 3e-5, 384: 1.5e-4, 521: 6.4e-4}[g.curve.Params().BitSize]
	}
	draw, divide := 7e-7+2.5e-9*float64(g.bits), 2e-7+5e-10*float64(g.bits)
	return float64(last)*draw + float64(last-first)*(divide+1e-7*float64(targets))
}

// ID names what is looked for, and where: a state is of one hunt.
func (h *Hunt) ID() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "1 %d %d %d", unitPIDs, h.low, h.high)
	for _, t := range h.Targets {
		curve := ""
		if t.Curve != nil {
			curve = t.Curve.Params().Name
		}
		fmt.Fprintf(sum, " %x %d %q %v", t.Number, t.Exponent, curve, t.Origins)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Run hunts from a state on, on all processors. After each unit it calls step, in
// order and one call at a time, with the state so far, from which a later Run can
// go on. It ends with ctx, and then with its error.
func (h *Hunt) Run(ctx context.Context, s State, step func(State)) (State, error) {
	if !h.Takes(s) {
		return s, errors.New("a state of another hunt")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := running{Hunt: h, found: make([]bool, len(h.Targets))}
	for _, hit := range s.Hits {
		r.found[hit.Target] = true
	}
	type result struct {
		hits []Hit
		err  error
	}
	todo := make(chan chan result, 4*runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	workers.Go(func() {
		defer close(todo)
		free := make(chan struct{}, runtime.GOMAXPROCS(0))
		for at := s.Done; at < len(h.units); at++ {
			done := make(chan result, 1)
			for _, wait := range [...]func() bool{
				func() bool { return send(ctx, free, struct{}{}) }, func() bool { return send(ctx, todo, done) },
			} {
				if !wait() {
					return
				}
			}
			workers.Go(func() {
				hits, err := r.unit(ctx, h.units[at])
				done <- result{hits, err}
				<-free
			})
		}
	})
	s.Hits = slices.Clone(s.Hits)
	for done := range todo {
		got := <-done
		if got.err != nil {
			return s, got.err
		}
		for _, hit := range got.hits {
			if !slices.ContainsFunc(s.Hits, func(o Hit) bool { return o.Target == hit.Target }) {
				s.Hits = append(s.Hits, hit)
			}
		}
		s.Weight += h.units[s.Done].weight
		s.Done++
		if step != nil {
			step(s)
		}
	}
	return s, ctx.Err()
}

// Takes reports whether a state is one of this hunt.
func (h *Hunt) Takes(s State) bool {
	for _, hit := range s.Hits {
		if hit.Target < 0 || hit.Target >= len(h.Targets) || hit.Seed.check() != nil {
			return false
		}
	}
	return s.Done >= 0 && s.Done <= len(h.units)
}

// Reach says how far a hunt for the target goes.
func (t *Target) Reach() string {
	seeds := fmt.Sprintf("all %d seeds of %d origins", len(t.Origins)*(MaxPID+1), len(t.Origins))
	if t.Curve != nil {
		return seeds + " were tried"
	}
	return fmt.Sprintf("%s were tried, each to %d candidates for the first prime, which one weak key in a million goes beyond", seeds, Candidates((t.Number.BitLen()+1)/2))
}

func send[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

type running struct {
	*Hunt
	mu    sync.Mutex
	found []bool // targets, which need not be looked for any more
}

// unit carries out a unit.
func (r *running) unit(ctx context.Context, u unit) (hits []Hit, err error) {
	g := &r.groups[u.group]
	numbers := make([]*big.Int, len(r.Targets)) // those to be looked for
	r.mu.Lock()
	left := 0
	for _, i := range g.targets {
		if !r.found[i] && slices.Contains(r.Targets[i].Origins, u.origin) {
			numbers[i] = r.Targets[i].Number
			left++
		}
	}
	r.mu.Unlock()
	var by *divider
	if g.curve == nil {
		by = newDivider(g.bits, numbers)
	}
	for seed := range Seeds(u.origin.Arch, u.origin.Variant, u.low, u.high) {
		if left == 0 {
			break
		}
		hit := func(i int, p *big.Int) bool {
			r.mu.Lock()
			r.found[i] = true
			r.mu.Unlock()
			hits = append(hits, Hit{i, seed, p})
			left--
			return left > 0
		}
		if g.curve == nil {
			err = walk(ctx, seed, g.bits, g.factor, by, u.first, u.last, hit)
		} else {
			err = r.ec(ctx, g.curve, seed, numbers, hit)
		}
		if err != nil {
			return nil, err
		}
	}
	return hits, nil
}

func (r *running) ec(ctx context.Context, curve elliptic.Curve, seed Seed, numbers []*big.Int, hit func(int, *big.Int) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key, err := EC(curve, seed)
	if err != nil {
		return err
	}
	for i, n := range numbers {
		if n != nil && n.Cmp(key.X) == 0 {
			numbers[i] = nil
			hit(i, nil)
		}
	}
	return nil
}
