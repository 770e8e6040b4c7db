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
	Sets   []setDescription `json:"sets"`
	Bytes  int              `json:"bytes"`
	SHA256 string           `json:"sha256"`
}

type setDescription struct {
	Name              string   `json:"name"`
	Keys              int      `json:"keys"`                        // of Debian's sets, a key for each process id, architecture and variant
	SmallExponentKeys int      `json:"smallExponentKeys,omitempty"` // further ones, that differ for a public exponent such as 3
	Bytes             int      `json:"bytes"`
	Exact             bool     `json:"exact"` // there is no doubt about a key that is found
	FalsePositiveRate float64  `json:"falsePositiveRate"`
	FilterRate        float64  `json:"filterRate,omitempty"` // the part of other keys that have to be confirmed
	Complete          bool     `json:"complete"`             // every origin of Debian's keys is covered
	Origins           []string `json:"origins,omitempty"`
	Title             string   `json:"title,omitempty"`
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
			answer, confirm, covers := "exact", "none", "every origin"
			if !s.Exact() {
				answer = fmt.Sprintf("%.2g false", s.FalsePositiveRate)
			}
			if s.Kind != blocklist.Debian {
				covers = s.Title + ", " + s.Reason
			} else {
				confirm = fmt.Sprintf("%.2g", s.FilterRate)
				if !s.Complete() {
					covers = s.String()
				}
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
		_, err = fmt.Fprintf(s.Out, "\n%d bytes, SHA-256 %s\n", d.Bytes, d.SHA256)
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
	d := description{Bytes: list.Bytes(), SHA256: list.Info().SHA256}
	for _, s := range list.Sets() {
		one := setDescription{
			Name: s.Name, Keys: s.Keys - smallExponentKeys(s), SmallExponentKeys: smallExponentKeys(s), Bytes: s.Bytes, Exact: s.Exact(), FalsePositiveRate: s.FalsePositiveRate,
			FilterRate: s.FilterRate, Complete: s.Complete(), Title: s.Title, ReasonCode: s.Reason,
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
