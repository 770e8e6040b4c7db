package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
)

// description is what inspect -json prints.
type description struct {
	Sets []setDescription `json:"sets"`
	// Which of Debian's keys all sets together have.
	Coverage []blocklist.Coverage `json:"coverage,omitempty"`
	Bytes    int                  `json:"bytes"`
	SHA256   string               `json:"sha256"`
}

type setDescription struct {
	Name              string   `json:"name"`
	Keys              int      `json:"keys"`                        // of Debian's sets, a key for each process id, architecture and variant
	SmallExponentKeys int      `json:"smallExponentKeys,omitempty"` // further ones, that differ for a public exponent such as 3
	Bytes             int      `json:"bytes"`
	Exact             bool     `json:"exact"` // there is no doubt about a key that is found
	FalsePositiveRate float64  `json:"falsePositiveRate"`
	FilterRate        float64  `json:"filterRate,omitempty"` // the part of other keys that have to be confirmed
	Complete          bool     `json:"complete"`             // of Debian's sets: all that openssl's tools made, or all that ssh-keygen made
	Origins           []string `json:"origins,omitempty"`    // the groups of Debian's keys that the set has
	Title             string   `json:"title,omitempty"`
	Cite              string   `json:"cite,omitempty"`
	ReasonCode        string   `json:"reasonCode,omitempty"`
	Licence           string   `json:"licence,omitempty"`
	Classes           []count  `json:"classes,omitempty"` // of a set of named keys: where they were found
	Sources           []count  `json:"sources,omitempty"` // the same: whose collections they are from
}

type count struct {
	Name string `json:"name"`
	Keys int    `json:"keys"`
}

// describeNamed says where the keys of a set were found.
func (d *setDescription) describeNamed(list *blocklist.List) error {
	classes, sources := make(map[string]int), make(map[string]int)
	for e, err := range list.Entries(d.Name) {
		if err != nil {
			return err
		}
		classes[e.Class]++
		sources[e.Source]++
	}
	d.Classes, d.Sources = counts(classes), counts(sources)
	return nil
}

// counts orders names by how often they are there.
func counts(of map[string]int) (all []count) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, count{name, of[name]})
	}
	slices.SortStableFunc(all, func(a, b count) int { return b.Keys - a.Keys })
	return all
}

func inspect(flags *flag.FlagSet) cli.Action {
	asJSON := flags.Bool("json", false, "one JSON document on standard output")
	return action(func(ctx context.Context, s cli.IO, args []string) error {
		list, err := openList(args[0])
		if err != nil {
			return err
		}
		defer list.Close()
		d, err := describe(list)
		if err != nil {
			return err
		}
		if *asJSON {
			enc := json.NewEncoder(s.Out)
			enc.SetIndent("", "  ")
			return enc.Encode(d)
		}
		var lines []terminal.Line
		for _, s := range list.Sets() {
			answer, confirm, covers := "exact", "none", ""
			if !s.Exact() {
				answer = fmt.Sprintf("%.2g false", s.FalsePositiveRate)
			}
			if s.Kind != blocklist.Debian {
				covers = s.Title + ", " + s.Reason
				if s.Cite != "" {
					covers += ", " + s.Cite
				}
			} else {
				confirm = fmt.Sprintf("%.2g", s.FilterRate)
				covers = s.Covers()
			}
			keys := strconv.Itoa(s.Keys - smallExponentKeys(s))
			if n := smallExponentKeys(s); n > 0 {
				keys += fmt.Sprintf("+%d", n)
			}
			bits := fmt.Sprintf("%.1f", 8*float64(s.Bytes)/float64(s.Keys))
			lines = append(lines, terminal.Line{Cells: []string{s.Name, keys, strconv.Itoa(s.Bytes), bits, answer, confirm, covers}})
		}
		style := terminal.Of(s.Out)
		text := style.Table([]string{"SET", "KEYS", "BYTES", "BITS/KEY", "ANSWER", "TO CONFIRM", "COVERS"}, lines) + "\n"
		for _, c := range d.Coverage {
			if c.Lacks != "" {
				text += style.Text(fmt.Sprintf("not covered: %s of %s", c.Algorithm, c.Lacks))
			}
		}
		for _, set := range d.Sets {
			text += set.named(style)
		}
		_, err = io.WriteString(s.Out, text+style.Text(fmt.Sprintf("%d bytes, SHA-256 %s", d.Bytes, d.SHA256)))
		return err
	})
}

// smallExponentKeys is how many keys a set has beyond those of its seeds: where
// 65537 divides p-1, another exponent makes another key of the same seed.
func smallExponentKeys(s blocklist.Set) int {
	if s.Kind != blocklist.Debian {
		return 0
	}
	return s.Keys - (debian.MaxPID+1)*len(s.Origins)
}

// maxSources is how many of the sources of named keys are shown; -json has all.
const maxSources = 5

// named shows where the keys of a set were found.
func (d *setDescription) named(style terminal.Style) (text string) {
	if d.Classes == nil {
		return ""
	}
	line := func(what string, of []count, most int) {
		var words []string
		for _, c := range of[:min(len(of), most)] {
			words = append(words, fmt.Sprintf("%s %d", c.Name, c.Keys))
		}
		if more := len(of) - most; more > 0 {
			words = append(words, fmt.Sprintf("and %d more", more))
		}
		text += style.Text(d.Name + " " + what + ": " + strings.Join(words, ", "))
	}
	if d.Licence != "" {
		text += style.Text(d.Name + " licence: " + d.Licence)
	}
	line("classes", d.Classes, len(d.Classes))
	line("sources", d.Sources, maxSources)
	return text
}

func describe(list *blocklist.List) (description, error) {
	d := description{Bytes: list.Bytes(), SHA256: list.Info().SHA256, Coverage: list.Coverage()}
	for _, s := range list.Sets() {
		one := setDescription{
			Name: s.Name, Keys: s.Keys - smallExponentKeys(s), SmallExponentKeys: smallExponentKeys(s), Bytes: s.Bytes, Exact: s.Exact(), FalsePositiveRate: s.FalsePositiveRate,
			FilterRate: s.FilterRate, Complete: s.Complete(), Title: s.Title, Cite: s.Cite, ReasonCode: s.Reason, Licence: s.Licence,
		}
		if s.Kind == blocklist.Named {
			if err := one.describeNamed(list); err != nil {
				return d, err
			}
		}
		for _, o := range s.Origins {
			one.Origins = append(one.Origins, o.String())
		}
		d.Sets = append(d.Sets, one)
	}
	return d, nil
}

// openList opens a list by its path, or the one inside this program, and checks
// all of it.
func openList(path string) (l *blocklist.List, err error) {
	if path == "embedded" {
		l, err = blocklist.Embedded()
	} else {
		l, err = blocklist.Open(path)
	}
	switch {
	case errors.Is(err, blocklist.ErrNotEmbedded):
		return nil, errUsage{err}
	case err != nil:
		return nil, err
	}
	if err := l.Check(); err != nil {
		_ = l.Close() // what went wrong is told already
		return nil, err
	}
	return l, nil
}
