package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
)

func verify(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	data := flags.String("data", "", "")
	if err := parseFlags(flags, args, 1); err != nil {
		return err
	}
	name := flags.Arg(0)
	list, err := openList(name)
	if err != nil {
		return err
	}
	defer list.Close()
	if *data == "" {
		fmt.Fprintf(stderr, "%s: structure and digest are right\n", name)
		return nil
	}
	f, err := openFolder(*data)
	if err != nil {
		return err
	}
	p := newProgress(stderr, "verifying")
	defer p.end()
	for _, s := range list.Sets() {
		k, ok := kindNamed(s.Name)
		if !ok {
			return fmt.Errorf("%s: there is no set %q to compare with", name, s.Name)
		}
		there, _ := f.origins(k)
		for _, o := range s.Origins {
			if !slices.Contains(there, o) {
				return fmt.Errorf("%s: set %s covers %s, of which %s has no file", name, s.Name, o, f.dir)
			}
			fingerprints, err := f.fingerprints(k, o)
			if err != nil {
				return err
			}
			for pid, fingerprint := range fingerprints {
				if has, err := list.Has(s.Name, fingerprint); err != nil {
					return err
				} else if !has {
					return fmt.Errorf("%s: set %s lacks the key of %s, process id %d", name, s.Name, o, pid)
				}
			}
			p.show("%s, %s", s.Name, o)
		}
		if want := len(s.Origins) * rowsPerFile; s.Keys != want {
			return fmt.Errorf("%s: set %s has %d keys, want %d", name, s.Name, s.Keys, want)
		}
		p.printf("%s: %s: all %d keys found\n", name, s.Name, s.Keys)
	}
	return nil
}
