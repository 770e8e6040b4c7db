package vet

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/durable"
)

// Thorough has a check search Debian's generator for the keys that no list of its
// weak keys covers.
type Thorough struct {
	Dir  string            // where the state of a search is kept, to resume it; "": nowhere
	Show func(SearchState) // how far it is, some times a second; nil: nobody looks

	lastPID uint16 // of tests; 0: all
}

// SearchState is how far a search is.
type SearchState struct {
	Keys, Found int     // that are searched for, and that were found
	Done        float64 // of 1
	Left        time.Duration
}

// search is a search that is to be made.
type search struct {
	Thorough
	lists   blocklist.Lists
	targets []debian.Target
	keys    [][]searched // of each target
	at      map[string]int
}

// searched is a key that is searched for.
type searched struct{ id, algorithm, lacking string }

// expect has the keys searched for that no list covers.
func (s *search) expect(ctx context.Context, keys []device.Key) {
	if s == nil {
		return
	}
	var lists check.Blocklist = s.lists
	for _, k := range keys {
		lacking := check.Lacking(ctx, k, lists)
		if lacking == "" {
			continue
		}
		target, ok := s.lists.Target(k.Public)
		if !ok {
			continue
		}
		name := fmt.Sprintf("%v %d %x", k.Algorithm(), target.Exponent, target.Number)
		at, known := s.at[name]
		if !known {
			at = len(s.targets)
			s.at[name] = at
			target.Number = new(big.Int).Set(target.Number)
			s.targets, s.keys = append(s.targets, target), append(s.keys, nil)
		}
		s.keys[at] = append(s.keys[at], searched{k.ID, k.Algorithm(), lacking})
	}
}

// stateInterval is how often the state of a search is kept.
const stateInterval = 10 * time.Second

// run searches, and reports. What it takes to resume is kept until it is done.
func (s *search) run(ctx context.Context, r *device.Report) {
	if s == nil || len(s.targets) == 0 {
		return
	}
	gap := func(err error) {
		r.Gaps = append(r.Gaps, device.Gap{What: "search of Debian's generator", Why: err.Error()})
	}
	last := uint16(debian.MaxPID)
	if s.lastPID > 0 {
		last = s.lastPID
	}
	hunt, err := debian.NewHunt(s.targets, 0, last)
	if err != nil {
		gap(err)
		return
	}
	path, state := s.load(hunt)
	start, before, kept := time.Now(), state.Weight, time.Now()
	state, err = hunt.Run(ctx, state, func(now debian.State) {
		if s.Show != nil {
			rate := (now.Weight - before) / time.Since(start).Seconds()
			s.Show(SearchState{len(s.targets), len(now.Hits), now.Weight / hunt.Weight, time.Duration((hunt.Weight - now.Weight) / rate * float64(time.Second))})
		}
		if path != "" && time.Since(kept) > stateInterval {
			kept = time.Now()
			keep(path, now)
		}
	})
	s.report(r, state, err == nil)
	if err != nil {
		how := "start it again"
		if path != "" && keep(path, state) == nil {
			how = "the same command resumes it"
		}
		gap(fmt.Errorf("interrupted after %.1f %% of it: %s", 100*state.Weight/hunt.Weight, how))
		return
	}
	if path != "" {
		_ = durable.Remove(path) // a state that is done does no harm
	}
}

// load returns where the state of a hunt is kept, and the state if there is one. One
// with a hit that is none, as a damaged file may have, is begun again.
func (s *search) load(hunt *debian.Hunt) (path string, state debian.State) {
	if s.Dir == "" || durable.Dir(s.Dir, 0o700) != nil {
		return "", state
	}
	path = filepath.Join(s.Dir, "thorough-"+hunt.ID()+".json")
	b, err := durable.ReadBounded(path, 16<<20)
	if err != nil || json.Unmarshal(b, &state) != nil || !hunt.Takes(state) {
		return path, debian.State{}
	}
	for _, hit := range state.Hits {
		if _, ok := blocklist.Found(s.targets[hit.Target], hit); !ok {
			return path, debian.State{}
		}
	}
	return path, state
}

func keep(path string, state debian.State) error {
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o600)
}

// report adds what was found, and if the search is done, what was not.
func (s *search) report(r *device.Report, state debian.State, done bool) {
	var findings []device.Finding
	for i, keys := range s.keys {
		var listing device.Listing
		if at := slices.IndexFunc(state.Hits, func(h debian.Hit) bool { return h.Target == i }); at >= 0 {
			listing, _ = blocklist.Found(s.targets[i], state.Hits[at])
		}
		if !done && !listing.Listed {
			continue
		}
		for _, k := range keys {
			findings = append(findings, check.Searched(k.id, listing, s.targets[i].Reach()))
			r.LookedUp(k.algorithm, k.lacking)
		}
	}
	r.AddAcross(findings)
}
