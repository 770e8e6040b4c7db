package debian

import (
	"context"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	whole     = flag.Bool("whole", false, "hunt over the seeds of all process ids, not of 64 around those that make the keys: make thorough")
	stateFile = flag.String("state", "", "with -whole, keep the state in `FILE`, and resume from it")
)

// allOrigins are those of openssl's tools and of ssh-keygen.
func allOrigins() (all []Origin) {
	for arch := LE32; arch <= BE32; arch++ {
		for variant := Rnd; variant <= SSH; variant++ {
			all = append(all, Origin{arch, variant})
		}
	}
	return all
}

// hunted is a target whose seed is known.
type hunted struct {
	Target
	seed Seed
	p, q string // hex; "" of EC
	none bool   // the generator does not make it
}

// rsa3072Targets are the vectors of RSA-3072, each made by another seed.
func rsa3072Targets(t *testing.T) (all []hunted) {
	dir := "testdata"
	if more := os.Getenv("KEYVET_DEBIAN_DATA"); more != "" {
		dir = filepath.Join(more, "vectors")
	}
	for _, row := range vectors(t, filepath.Join(dir, "rsa3072.txt"), 9) {
		_, seed := parseRow(t, row)
		n, _ := new(big.Int).SetString(row[6], 16)
		all = append(all, hunted{Target{Number: n, Exponent: exponent(seed.Variant), Origins: allOrigins()}, seed, row[7], row[8], false})
	}
	return all
}

// oddTargets are keys of sizes that no list has.
func oddTargets(t *testing.T) (all []hunted) {
	for _, odd := range []struct {
		bits, e int
		seed    Seed
	}{
		{1023, 65537, Seed{LE64, Rnd, 311}}, {1536, 3, Seed{BE32, NoRnd, 1203}}, {2047, 35, Seed{LE32, SSH, 30001}},
		{2432, 65537, Seed{LE32, NoReadRnd, 12}}, {1000, 17, Seed{LE64, SSH, 32767}},
	} {
		k, err := RSA(t.Context(), odd.bits, odd.e, odd.seed)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hunted{Target{Number: k.N, Exponent: odd.e, Origins: allOrigins()}, odd.seed, k.P.Text(16), k.Q.Text(16), false})
	}
	return all
}

func ecTargets(t *testing.T) (all []hunted) {
	for i, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		seed := Seed{Arch(i % 3), Variant(i % 3), uint16(100 * i)}
		k, err := EC(curve, seed)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hunted{Target{Number: k.X, Curve: curve, Origins: allOrigins()}, seed, "", "", false})
	}
	return all
}

// TestHunt finds the vectors of RSA-3072, five keys of odd sizes and one of each
// curve in one pass, each by its seed and with a factor. Without -whole it looks
// only among 64 process ids around theirs.
func TestHunt(t *testing.T) {
	all := slices.Concat(rsa3072Targets(t), oddTargets(t), ecTargets(t))
	if !*whole {
		for _, one := range all {
			low := one.seed.PID &^ (unitPIDs - 1)
			one.Origins = []Origin{{one.seed.Arch, one.seed.Variant}}
			huntAll(t, []hunted{one}, low, low+unitPIDs-1)
		}
		return
	}
	if *stateFile == "" {
		t.Fatal("-whole takes long: it needs -state FILE")
	}
	other, _ := new(big.Int).SetString(strings.Repeat("f", 3072/4), 16)
	huntAll(t, append(all, hunted{Target: Target{Number: other, Exponent: 65537, Origins: allOrigins()}, none: true}), 0, MaxPID)
}

// huntAll finds all targets that are to be found.
func huntAll(t *testing.T, all []hunted, low, high uint16) {
	t.Helper()
	var targets []Target
	found := 0
	for _, one := range all {
		targets = append(targets, one.Target)
		if !one.none {
			found++
		}
	}
	h, err := NewHunt(targets, low, high)
	if err != nil {
		t.Fatal(err)
	}
	s, step := State{}, func(State) {}
	if *whole {
		s, step = kept(t, h)
	}
	s, err = h.Run(t.Context(), s, step)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Hits) != found {
		t.Errorf("%d of %d found", len(s.Hits), found)
	}
	for _, hit := range s.Hits {
		want := all[hit.Target]
		if want.none || hit.Seed != want.seed || want.p != "" && !strings.EqualFold(hit.Factor.Text(16), want.p) && !strings.EqualFold(hit.Factor.Text(16), want.q) || want.p == "" && hit.Factor != nil {
			t.Errorf("%d bits: %v, %X, want %v", want.Number.BitLen(), hit.Seed, hit.Factor, want.seed)
		}
	}
}

// stored is the state of a hunt as it is in -state.
type stored struct {
	Hunt  string // its ID
	State *State
}

// kept returns the state of a hunt that is in -state, and what keeps and shows it
// once in a while.
func kept(t *testing.T, h *Hunt) (s State, step func(State)) {
	b, err := os.ReadFile(*stateFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		t.Fatal(err)
	default:
		file := stored{State: &s}
		if err := json.Unmarshal(b, &file); err != nil || file.Hunt != h.ID() || !h.Takes(s) {
			t.Fatalf("%s has no state of this hunt: %v", *stateFile, err)
		}
		t.Logf("resumed at %.1f %%, %d found", 100*s.Weight/h.Weight, len(s.Hits))
	}
	before, start, shown := s.Weight, processorTime(t), time.Now()
	return s, func(s State) {
		if time.Since(shown) < 10*time.Second && s.Done < len(h.units) {
			return
		}
		shown = time.Now()
		b, err := json.Marshal(stored{h.ID(), &s})
		if err == nil {
			err = os.WriteFile(*stateFile+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(*stateFile+".new", *stateFile)
		}
		if err != nil {
			t.Fatal(err)
		}
		used := (processorTime(t) - start).Minutes()
		t.Logf("%.1f %%, %d found, %.1f core-minutes, %.1f left", 100*s.Weight/h.Weight, len(s.Hits), used, used/(s.Weight-before)*(h.Weight-s.Weight))
	}
}

// TestHuntResumes interrupts a hunt after each unit, and has the state go through
// JSON: what is found is the same.
func TestHuntResumes(t *testing.T) {
	seed := Seed{LE32, NoRnd, 200}
	k, err := RSA(t.Context(), 512, 65537, seed)
	if err != nil {
		t.Fatal(err)
	}
	x, err := EC(elliptic.P256(), seed)
	if err != nil {
		t.Fatal(err)
	}
	origins := []Origin{{LE32, NoRnd}, {LE32, Rnd}}
	h, err := NewHunt([]Target{{Number: k.N, Exponent: 65537, Origins: origins}, {Number: x.X, Curve: elliptic.P256(), Origins: origins}}, 128, 255)
	if err != nil {
		t.Fatal(err)
	}
	var s State
	rounds := 0
	for ; ; rounds++ {
		ctx, cancel := context.WithCancel(t.Context())
		before := s.Done
		s, err = h.Run(ctx, s, func(now State) {
			if now.Done > before {
				cancel()
			}
		})
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		s = State{}
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		if rounds > 100 {
			t.Fatal("it never ends")
		}
	}
	if len(s.Hits) != 2 || s.Hits[0].Seed != seed || s.Hits[1].Seed != seed || s.Done != len(h.units) || rounds < 2 {
		t.Errorf("after %d rounds: %+v", rounds, s)
	}
	for name, bad := range map[string]State{
		"units":   {Done: len(h.units) + 1},
		"before":  {Done: -1},
		"targets": {Hits: []Hit{{Target: 2}}},
	} {
		if _, err := h.Run(t.Context(), bad, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNewHuntRefuses(t *testing.T) {
	for name, target := range map[string]Target{
		"no number":   {Exponent: 3},
		"zero":        {Number: new(big.Int), Exponent: 3},
		"a short key": {Number: big.NewInt(77), Exponent: 3},
		"a long key":  {Number: new(big.Int).Lsh(big.NewInt(1), MaxRSABits), Exponent: 3},
		"a curve":     {Number: big.NewInt(77), Curve: elliptic.P256().Params()},
	} {
		if h, err := NewHunt([]Target{target}, 0, MaxPID); err == nil || h != nil {
			t.Errorf("%s: no error", name)
		}
	}
	one := Target{Number: new(big.Int).Lsh(big.NewInt(1), 1023), Exponent: 3, Origins: allOrigins()}
	two := one
	two.Exponent = 4 // no exponent that Debian's tools could be given: hunted for as 3 is
	a, err := NewHunt([]Target{one}, 0, MaxPID)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewHunt([]Target{two, one}, 0, MaxPID)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.groups) != 1 || len(b.groups) != 1 || a.ID() == b.ID() || a.Weight >= b.Weight || b.Weight > 1.5*a.Weight {
		t.Errorf("%d and %d groups, %v and %v seconds", len(a.groups), len(b.groups), a.Weight, b.Weight)
	}
}

// BenchmarkHunt takes a 64th of the seeds of RSA-3072 for one modulus and for ten,
// and states by calculation how many minutes of a core all of them take. Processor
// time counts, so that the figure is the same on a busy machine.
func BenchmarkHunt(b *testing.B) {
	for _, n := range []int{1, 10} {
		var targets []Target
		for range n {
			targets = append(targets, Target{Number: new(big.Int).Mul(randomOdd(b, 1536), randomOdd(b, 1536)), Exponent: 65537, Origins: allOrigins()})
		}
		b.Run(map[int]string{1: "1 modulus", 10: "10 moduli"}[n], func(b *testing.B) {
			h, err := NewHunt(targets, 0, MaxPID/64)
			if err != nil {
				b.Fatal(err)
			}
			start := processorTime(b)
			for b.Loop() {
				if s, err := h.Run(b.Context(), State{}, nil); err != nil || len(s.Hits) > 0 {
					b.Fatal(s, err)
				}
			}
			b.ReportMetric((processorTime(b)-start).Minutes()/float64(b.N)*64, "core-min-all")
		})
	}
}

// processorTime is the time that this process had of all processors.
func processorTime(t testing.TB) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
