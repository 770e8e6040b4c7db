package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/keyvet/keyvet/blocklist"
)

// description is what inspect -json prints.
type description struct {
	Sets   []setDescription `json:"sets"`
	Bytes  int              `json:"bytes"`
	SHA256 string           `json:"sha256"`
}

type setDescription struct {
	Name              string   `json:"name"`
	Keys              int      `json:"keys"`
	Bytes             int      `json:"bytes"`
	Exact             bool     `json:"exact"` // a hit is settled without doubt
	FalsePositiveRate float64  `json:"falsePositiveRate"`
	Complete          bool     `json:"complete"` // every origin is covered
	Origins           []string `json:"origins"`
}

func inspect(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "")
	if err := parseFlags(flags, args, 1); err != nil {
		return err
	}
	list, err := openList(flags.Arg(0))
	if err != nil {
		return err
	}
	defer list.Close()
	d := describe(list)
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(d)
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SET\tKEYS\tBYTES\tBITS/KEY\tFALSE POSITIVES\tCOVERS")
	for _, s := range list.Sets() {
		covers := "every origin"
		if !s.Complete() {
			covers = s.String()
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.2g\t%s\n",
			s.Name, s.Keys, s.Bytes, 8*float64(s.Bytes)/float64(s.Keys), s.FalsePositiveRate, covers)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\n%d bytes, SHA-256 %s\n", d.Bytes, d.SHA256)
	return err
}

func describe(list *blocklist.List) description {
	d := description{Bytes: list.Bytes(), SHA256: list.Info().SHA256}
	for _, s := range list.Sets() {
		one := setDescription{
			Name: s.Name, Keys: s.Keys, Bytes: s.Bytes, FalsePositiveRate: s.FalsePositiveRate, Complete: s.Complete(),
		}
		for _, o := range s.Origins {
			one.Origins = append(one.Origins, o.String())
		}
		d.Sets = append(d.Sets, one)
	}
	return d
}
