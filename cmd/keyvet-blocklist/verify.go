package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math/big"
	mathrand "math/rand/v2"
	"slices"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
)

func verify(flags *flag.FlagSet) cli.Action {
	data := flags.String("data", "", "look up every key of `DIR` that belongs to the list's sets")
	sample := flags.Int("sample", 10, "make `N` random weak keys of each set from their seeds and look them up (default 10)")
	all := flags.Bool("all", false, "make all weak keys of each set from their seeds and look them up")
	random := flags.Int("random", 0, "look up `N` random keys for each set: none may be found")
	return action(func(ctx context.Context, s cli.IO, args []string) error {
		if *sample < 0 || *random < 0 {
			return errUsage{errors.New("verify: -sample and -random take no negative number")}
		}
		list, err := openList(args[0])
		if err != nil {
			return err
		}
		defer list.Close()
		v := &verifier{list: list, name: args[0], stderr: s.Err}
		say(s.Err, "%s: structure and digest are right", v.name)

		var f *folder
		if *data != "" {
			if f, err = openFolder(*data); err != nil {
				return err
			}
		}
		for _, s := range list.Sets() {
			if s.Kind == blocklist.Named {
				if err := v.names(s); err != nil {
					return err
				}
			}
			if s.Kind != blocklist.Debian {
				continue
			}
			k, err := kindNamed(s.Name)
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			if f != nil {
				err = v.data(ctx, s, k, f)
			}
			if err == nil && *sample > 0 && !*all {
				err = v.seeds(ctx, s, k, randomSeeds(s.Origins, *sample), *sample, "random weak")
			}
			if err == nil && *all {
				err = v.seeds(ctx, s, k, allSeeds(s.Origins), len(s.Origins)*rowsPerFile, "weak")
			}
			if err == nil && *random > 0 {
				err = v.random(ctx, s, k, *random)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// verifier holds a list against keys.
type verifier struct {
	list   *blocklist.List
	name   string
	stderr io.Writer
}

// names reads every name of a set.
func (v *verifier) names(s blocklist.Set) error {
	for _, err := range v.list.Entries(s.Name) {
		if err != nil {
			return err
		}
	}
	say(v.stderr, "%s: %s: all %d names can be read", v.name, s.Name, s.Keys)
	return nil
}

// data looks up every key that a folder has of a set.
func (v *verifier) data(ctx context.Context, s blocklist.Set, k kind, f *folder) error {
	there, _ := f.origins(k)
	var origins, missing []blocklist.Origin
	for _, o := range s.Origins {
		if slices.Contains(there, o) {
			origins = append(origins, o)
		} else {
			missing = append(missing, o)
		}
	}
	if len(missing) > 0 {
		say(v.stderr, "%s: %s: %s has no files for %v: those keys are not looked up", v.name, s.Name, f.dir, missing)
	}
	p := newProgress(v.stderr, len(origins)*rowsPerFile)
	defer p.end()
	for _, o := range origins {
		for key, err := range f.keys(ctx, k, o) {
			if err == nil {
				err = v.found(ctx, s, k, key)
			}
			if err != nil {
				return err
			}
			p.step(s.Name + " " + o.String())
		}
	}
	p.printf("%s: %s: all %d keys of %s found, each with its seed", v.name, s.Name, p.done, f.dir)
	return nil
}

// seeds makes keys from nothing but their seeds and looks them up.
func (v *verifier) seeds(ctx context.Context, s blocklist.Set, k kind, seeds iter.Seq[debian.Seed], total int, what string) error {
	p := newProgress(v.stderr, total)
	defer p.end()
	for key, err := range debian.Generate(ctx, seeds, k.generate) {
		if err == nil {
			err = v.found(ctx, s, k, key)
		}
		if err != nil {
			return err
		}
		p.step(s.Name)
	}
	p.printf("%s: %s: %d %s keys regenerated and found, each with its seed", v.name, s.Name, total, what)
	return nil
}

// found looks up a weak key, which must come back exact with the right seed.
func (v *verifier) found(ctx context.Context, s blocklist.Set, k kind, key weakKey) error {
	got, err := v.list.Lookup(ctx, k.public(key.number))
	if err != nil {
		return err
	}
	if !got.Listed || !got.Exact || got.Proof["pid"] != int(key.seed.PID) ||
		got.Proof["architecture"] != key.seed.Arch.String() || got.Proof["variant"] != key.seed.Variant.String() {
		return fmt.Errorf("%s: set %s does not find the key of %v: %+v", v.name, s.Name, key.seed, got)
	}
	return nil
}

// random looks up keys that nobody made, of which none may be found.
func (v *verifier) random(ctx context.Context, s blocklist.Set, k kind, total int) error {
	p := newProgress(v.stderr, total)
	defer p.end()
	b := make([]byte, s.Bits/8)
	passed := 0
	for range total {
		rand.Read(b)
		if k.curve == nil {
			b[0] |= 0xc0
			b[len(b)-1] |= 1
		}
		n := new(big.Int).SetBytes(b)
		got, err := v.list.Lookup(ctx, k.public(n))
		if err != nil {
			return err
		}
		if got.Listed {
			return fmt.Errorf("%s: set %s lists a random key, %x: %+v", v.name, s.Name, n, got)
		}
		if passes, err := v.list.Passes(s.Name, blocklist.NewKeyID(n)); err != nil {
			return err
		} else if passes {
			passed++
		}
		p.step(s.Name + ", random")
	}
	p.printf("%s: %s: %d random keys, none found; %d had to be confirmed, %.0f expected",
		v.name, s.Name, total, passed, float64(total)*s.FilterRate)
	return nil
}

// public is a key to look up; of an EC key x alone is looked at.
func (k kind) public(n *big.Int) crypto.PublicKey {
	if k.curve != nil {
		return &ecdsa.PublicKey{Curve: k.curve, X: n, Y: new(big.Int)} //nolint:staticcheck // made up
	}
	return &rsa.PublicKey{N: n, E: k.exponent}
}

func allSeeds(origins []blocklist.Origin) iter.Seq[debian.Seed] {
	return func(yield func(debian.Seed) bool) {
		for _, o := range origins {
			for seed := range debian.Seeds(o.Arch, o.Variant, 0, debian.MaxPID) {
				if !yield(seed) {
					return
				}
			}
		}
	}
}

func randomSeeds(origins []blocklist.Origin, n int) iter.Seq[debian.Seed] {
	return func(yield func(debian.Seed) bool) {
		for range n {
			o := origins[mathrand.IntN(len(origins))]
			if !yield(debian.Seed{Arch: o.Arch, Variant: o.Variant, PID: uint16(mathrand.IntN(rowsPerFile))}) {
				return
			}
		}
	}
}
