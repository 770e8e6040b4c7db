package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
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
}

func inspect(flags *flag.FlagSet) cli.Action {
	asJSON := flags.Bool("json", false, "one JSON document on standard output")
	return action(func(ctx context.Context, s cli.IO, args []string) error {
		list, err := openList(args[0])
		if err != nil {
			return err
		}
		defer list.Close()
		d := describe(list)
		if *asJSON {
			enc := json.NewEncoder(s.Out)
			enc.SetIndent("", "  ")
			return enc.Encode(d)
		}
		w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SET\tKEYS\tBYTES\tBITS/KEY\tANSWER\tTO CONFIRM\tCOVERS")
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
			fmt.Fprintf(w, "%s\t%s\t%d\t%.1f\t%s\t%s\t%s\n",
				s.Name, keys, s.Bytes, 8*float64(s.Bytes)/float64(s.Keys), answer, confirm, covers)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(s.Out)
		for _, c := range d.Coverage {
			if c.Lacks != "" {
				fmt.Fprintf(s.Out, "not covered: %s of %s\n", c.Algorithm, c.Lacks)
			}
		}
		_, err = fmt.Fprintf(s.Out, "%d bytes, SHA-256 %s\n", d.Bytes, d.SHA256)
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

func describe(list *blocklist.List) description {
	d := description{Bytes: list.Bytes(), SHA256: list.Info().SHA256, Coverage: list.Coverage()}
	for _, s := range list.Sets() {
		one := setDescription{
			Name: s.Name, Keys: s.Keys - smallExponentKeys(s), SmallExponentKeys: smallExponentKeys(s), Bytes: s.Bytes, Exact: s.Exact(), FalsePositiveRate: s.FalsePositiveRate,
			FilterRate: s.FilterRate, Complete: s.Complete(), Title: s.Title, Cite: s.Cite, ReasonCode: s.Reason,
		}
		for _, o := range s.Origins {
			one.Origins = append(one.Origins, o.String())
		}
		d.Sets = append(d.Sets, one)
	}
	return d
}

// openList opens a list by its path, or the one inside this program.
func openList(path string) (*blocklist.List, error) {
	if path != "embedded" {
		return blocklist.Open(path)
	}
	l, err := blocklist.Embedded()
	if errors.Is(err, blocklist.ErrNotEmbedded) {
		return nil, errUsage{err}
	}
	return l, err
}
