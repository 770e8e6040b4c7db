package keyfile

import (
	"crypto/x509"
	"errors"
)

// Certificates returns every certificate of the files. What cannot be read, and a
// file without one, goes to gap.
func Certificates(names []string, gap func(what string, why error)) []*x509.Certificate {
	var all []*x509.Certificate
	for _, name := range names {
		keys, gaps := Read(name)
		for _, g := range gaps {
			gap(g.What, errors.New(g.Why))
		}
		found := false
		for _, k := range keys {
			if leaf := k.Leaf(); leaf != nil {
				all, found = append(all, leaf), true
			}
		}
		if !found && len(gaps) == 0 {
			gap(name, errors.New("holds no certificate"))
		}
	}
	return all
}
