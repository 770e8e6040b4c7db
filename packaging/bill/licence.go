package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// licenceFiles are the names of the files in dir that hold licence or notice,
// the one that decides first.
func licenceFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, prefix := range []string{"licen", "copying", "edl-v", "notice"} {
		for _, e := range entries {
			if e.Type().IsRegular() && strings.HasPrefix(strings.ToLower(e.Name()), prefix) {
				names = append(names, e.Name())
			}
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no licence")
	}
	return names, nil
}

// phrases tell licences apart. The first whose every phrase is in the text,
// white space apart, is the one.
var phrases = []struct {
	spdx string
	all  []string
}{
	{"EPL-2.0 OR BSD-3-Clause", []string{"made available under the terms of the Eclipse Public License v2.0 and Eclipse Distribution License v1.0"}},
	{"Apache-2.0", []string{"Apache License Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"}},
	{"Apache-2.0", []string{"Apache License Version 2.0, January 2004", "9. Accepting Warranty or Additional Liability"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy", "The above copyright notice and this permission notice shall be included in all"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms, with or without modification", "contributors may be used to endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms, with or without modification"}},
}

// licence is the SPDX expression of a licence's text; "" if it is not known.
func licence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, p := range phrases {
		if !slices.ContainsFunc(p.all, func(s string) bool { return !strings.Contains(text, s) }) {
			return p.spdx
		}
	}
	return ""
}

// copyright writes what every licence asks to go with a binary: its text.
func copyright(w io.Writer, modules []module) error {
	slices.SortStableFunc(modules, func(a, b module) int { // keyvet first
		switch {
		case a.Path == self:
			return -1
		case b.Path == self:
			return 1
		}
		return 0
	})
	fmt.Fprintln(w, "keyvet is static binaries; these modules are linked into them, each under its licence.")
	fmt.Fprintln(w)
	for _, m := range modules {
		fmt.Fprintf(w, "%s %s: %s\n", m.Path, m.Version, m.Licence)
	}
	if err := goLicence(w); err != nil {
		return err
	}
	for _, m := range modules {
		for _, name := range m.Texts {
			text, err := os.ReadFile(filepath.Join(m.Dir, name))
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "\n==== %s: %s\n\n%s", m.Path, name, text)
		}
	}
	return nil
}

// goLicence writes the licence of Go's standard library and runtime.
func goLicence(w io.Writer) error {
	root, err := goCommand(nil, "env", "GOROOT")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "LICENSE"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "The Go standard library and runtime: BSD-3-Clause\n\n==== Go: LICENSE\n\n%s", text)
	return err
}
