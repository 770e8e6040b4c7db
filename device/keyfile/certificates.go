package keyfile

import (
	"crypto/x509"
	"errors"

	"github.com/keyvet/keyvet/device"
)

// Certificates returns every certificate of the files. What cannot be read, and a
// file without one, goes to gap.
func Certificates(names []string, gap func(what string, why error)) []*x509.Certificate {
	var all []*x509.Certificate
	for _, name := range names {
		keys, gaps := Read(name)
		found, told := false, false
		for _, g := range gaps {
			if !g.Minor { // padding, such as a line's end after DER
				told = true
				gap(g.What, errors.New(g.Why))
			}
		}
		for _, k := range keys {
			if leaf := k.Leaf(); leaf != nil {
				all, found = append(all, leaf), true
			} else if k.CertificateError != "" {
				told = true
				gap(name, errors.New(k.CertificateError))
			}
		}
		if !found && !told {
			gap(name, errors.New("holds no certificate"))
		}
	}
	return all
}

// CertificatesOf returns every certificate of the files of a directory, of which
// some may be meant as something else, such as a text on where the others are
// from: that is a minor gap. What is meant to be a certificate, and cannot be
// read, is a gap, and so is a directory without one.
func CertificatesOf(dir string, names []string) (all []*x509.Certificate, gaps []device.Gap) {
	for _, name := range names {
		keys, found, _ := ReadAny(name)
		before := len(all)
		for _, k := range keys {
			if leaf := k.Leaf(); leaf != nil {
				all = append(all, leaf)
			} else if k.CertificateError != "" {
				found = append(found, device.Gap{What: name, Why: k.CertificateError})
			}
		}
		if gaps = append(gaps, found...); len(all) == before && len(found) == 0 {
			gaps = append(gaps, device.Gap{What: name, Why: "holds no certificate", Minor: true})
		}
	}
	if len(all) == 0 && len(names) > 0 {
		gaps = append(gaps, device.Gap{What: dir, Why: "no certificate in its files"})
	}
	return all, gaps
}
