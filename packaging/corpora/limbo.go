package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
)

// limbo is the test suite of x509-limbo: paths from a certificate to trusted ones.
// What it expects is for TLS and a host's name, so the two programs are held
// against each other and not against that.
func limbo(dir string, c *comparison) error {
	data, err := os.ReadFile(filepath.Join(dir, "x509-limbo", "limbo.json"))
	if err != nil {
		return err
	}
	var suite struct {
		Cases []limboCase `json:"testcases"`
	}
	if err := json.Unmarshal(data, &suite); err != nil {
		return err
	}
	each(len(suite.Cases), func(i int) {
		l := suite.Cases[i]
		c.object("x509-limbo")
		at := time.Now()
		if l.At != nil {
			at = *l.At
		}
		ours, why := l.keyvet(c, at)
		theirs := c.openssl.verify(at, l.trusted(), l.untrusted(), []byte(l.Leaf))
		if ours == device.Pass && theirs == nil || ours == device.Fail && theirs != nil {
			return
		}
		opinion := "OK"
		if theirs != nil {
			opinion = theirs.Error()
		}
		c.add("x509-limbo", l.ID, fmt.Sprintf("%s %s", ours, why), opinion)
	})
	return nil
}

type limboCase struct {
	ID        string     `json:"id"`
	At        *time.Time `json:"validation_time"` // nil: any time of today
	Trusted   []string   `json:"trusted_certs"`
	Untrusted []string   `json:"untrusted_intermediates"`
	Leaf      string     `json:"peer_certificate"`
}

func (l limboCase) trusted() []byte   { return []byte(strings.Join(l.Trusted, "\n")) }
func (l limboCase) untrusted() []byte { return []byte(strings.Join(l.Untrusted, "\n")) }

// keyvet judges the path of the leaf and its validity at a time, whatever its key:
// Pass, Fail or Undecided.
func (l limboCase) keyvet(c *comparison, at time.Time) (device.Status, string) {
	file := []byte(l.Leaf + "\n" + string(l.untrusted()))
	env := check.Env{Now: at, Floor: time.Unix(1, 0), Only: []string{"chain", "expiry"}}
	for block, rest := pem.Decode(l.trusted()); block != nil; block, rest = pem.Decode(rest) {
		root, _, err := keyfile.ParseCertificate(block.Bytes)
		if err != nil {
			return device.Undecided, "a trusted certificate cannot be read: " + err.Error()
		}
		env.Roots = append(env.Roots, root)
	}
	keys, gaps, _ := c.judge("x509-limbo", l.ID, file, env)
	if len(keys) == 0 || keys[0].Leaf() == nil {
		why := fmt.Sprint(gaps)
		if len(keys) > 0 {
			why = keys[0].CertificateError
		}
		return device.Undecided, "the certificate cannot be read: " + why
	}
	status, why := device.Pass, ""
	for _, f := range check.OfKeys(context.Background(), keys[:1], &env) {
		s := f.Status
		switch {
		case f.ReasonCode == "KEYVET_CHAIN_UNKNOWN_CA": // a warning for a file
			s = device.Fail
		case s == device.Warn:
			s = device.Pass
		}
		if s != device.Pass && s != device.NotApplicable {
			why += fmt.Sprintf("%s: %s. ", f.ReasonCode, f.Message)
			status = device.Worst(status, s)
		}
	}
	return status, why
}
