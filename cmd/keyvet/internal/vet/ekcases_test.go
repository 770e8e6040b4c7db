package vet

import (
	"context"
	"crypto"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
)

// good is a blocklist that covers all keys.
type good struct{}

func (good) Compromised(device.Key) ([]device.Compromised, bool, error) { return nil, true, nil }

func (good) Lookup(context.Context, crypto.PublicKey) (device.Listing, error) {
	return device.Listing{Covered: true, Name: "all", Set: "all"}, nil
}

// TestEKCases has certificates as they lie in TPMs, under roots that are given. Of
// what nobody can replace, age and hash are warned of.
func TestEKCases(t *testing.T) {
	const cases = "../../testdata/cases/tpm"
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(cases, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	parse := func(der []byte) *x509.Certificate {
		c, _, err := keyfile.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var issuers []*x509.Certificate
	for chain := append(read("odca-chain.part0"), read("odca-chain.part1")...); len(chain) > 0; {
		size := 4 + int(chain[2])<<8 + int(chain[3])
		issuers, chain = append(issuers, parse(chain[:size])), chain[size:]
	}
	for _, tt := range []struct {
		ek, root string
		issuers  []*x509.Certificate
		want     device.Status
		codes    []string
	}{
		{"valid-sha1-ek.der", "sha1-ek-ca.pem", nil, device.Warn, []string{"KEYVET_SIGNATURE_SHA1"}},
		{"expired-sha1-ek.der", "sha1-ek-ca.pem", nil, device.Warn, []string{"CERTIFICATE_PAST_EXPIRATION", "KEYVET_SIGNATURE_SHA1"}},
		{"valid-sha1-ek.der", "odca-root.pem", nil, device.Fail, []string{"KEYVET_EK_CERTIFICATE_UNKNOWN_CA", "KEYVET_SIGNATURE_SHA1"}},
		{"odca-ek.der", "odca-root.pem", issuers, device.Pass, nil},
		{"odca-ek.der", "odca-root.pem", issuers[1:], device.Fail, []string{"KEYVET_EK_CERTIFICATE_UNKNOWN_CA"}},
	} {
		roots := keyfile.Certificates([]string{filepath.Join(cases, tt.root)}, func(what string, why error) { t.Errorf("%s: %v", what, why) })
		for range max(1, len(tt.issuers)) {
			ek := parse(read(tt.ek))
			k := device.Key{ID: "tpm-ek", Role: device.RoleEK, SPKI: ek.RawSubjectPublicKeyInfo, Public: ek.PublicKey, Chain: []*x509.Certificate{ek}, Beside: tt.issuers}
			env := &check.Env{Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Blocklist: good{}, EKRoots: roots, Only: []string{"ekcert", "expiry"}}
			var all []device.Status
			var codes []string
			for _, f := range check.Run(t.Context(), device.Inventory{Keys: []device.Key{k}}, env) {
				if all = append(all, f.Status); f.Status != device.Pass {
					codes = append(codes, f.ReasonCode)
				}
				if strings.HasPrefix(f.Message, " ") {
					t.Errorf("%s: nobody is named: %q", tt.ek, f.Message)
				}
			}
			slices.Sort(codes)
			if status := device.Worst(all...); status != tt.want || !slices.Equal(codes, tt.codes) {
				t.Errorf("%s under %s: %v %v, want %v %v", tt.ek, tt.root, status, codes, tt.want, tt.codes)
			}
			if len(tt.issuers) > 0 {
				tt.issuers = append(tt.issuers[1:len(tt.issuers):len(tt.issuers)], tt.issuers[0])
			}
		}
	}
}
