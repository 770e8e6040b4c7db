package vet

import (
	"bytes"
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

const chainCases = "../../testdata/cases/keys"

// good is a blocklist that covers all keys.
type good struct{}

func (good) Compromised(device.Key) ([]device.Compromised, bool, error) { return nil, true, nil }

func (good) Lookup(context.Context, crypto.PublicKey) (device.Listing, error) {
	return device.Listing{Covered: true, Name: "all", Set: "all"}, nil
}

// TestChainCases has the chains that were once judged wrongly as the device's own,
// under the CA that the configuration gives.
func TestChainCases(t *testing.T) {
	const given = "chain-cross-signed-identity-ca.pem"
	for _, tt := range []struct {
		file, ca string // ca: another file; "" the last certificate of file
		want     device.Status
		says     string // of one finding
	}{
		{"chain-cross-signed-valid.pem", given, device.Pass, "leads to the given CA CN=New Root"},
		{"chain-order-a.pem", given, device.Pass, ""},
		{"chain-order-b.pem", given, device.Pass, ""},
		{"chain-issuer-case-differs.pem", "", device.Pass, "leads to the given CA CN=Test CA"},
		{"chain-issuer-printable-vs-utf8.pem", "", device.Pass, "leads to the given CA CN=Test CA"},
		{"chain-critical-nameconstraints-directoryname.pem", "", device.Pass, ""},
		{"idevid-critical-san-othername-chain.pem", "", device.Pass, ""},
		{"idevid-critical-san-othername-alone.pem", "idevid-critical-san-othername-chain.pem", device.Pass, ""},
		{"dice-critical-tcbinfo-chain.pem", "", device.Undecided, "CN=device-1 has critical extensions that keyvet does not know: 2.23.133.5.4.1 (DICE TcbInfo)"},
		{"chain-rsapss-ca.pem", "", device.Pass, ""},
		{"chain-mldsa-ca.pem", "", device.Fail, "ML-DSA-65 (2.16.840.1.101.3.4.3.18)"},
		{"chain-wrong-intermediate.pem", "", device.Fail, "the CA certificate of that name which is there did not sign it"},
		{"chain-missing-intermediate.pem", "", device.Fail, "its issuer CN=Issuing CA is not in the file"},
		{"chain-unrelated-ca.pem", "", device.Fail, "no certificate in the file issued it"},
		{"chain-missing-intermediate.pem", given, device.Fail, "none of the given CAs"},
	} {
		keys, gaps := keyfile.Read(filepath.Join(chainCases, tt.file))
		if len(gaps) > 0 || len(keys) == 0 {
			t.Fatalf("%s: %d keys, %v", tt.file, len(keys), gaps)
		}
		ca := keys[len(keys)-1].Leaf()
		if tt.ca != "" {
			others, _ := keyfile.Read(filepath.Join(chainCases, tt.ca))
			ca = others[len(others)-1].Leaf()
		}
		// The file as it is, and without the CA that is given.
		without := keys[0]
		without.Beside = slices.DeleteFunc(slices.Clone(without.Beside), ca.Equal)
		for i, k := range []device.Key{keys[0], without} {
			k.Role = device.RoleDevice
			env := &check.Env{
				Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Blocklist: good{},
				Roots: []*x509.Certificate{ca}, Only: []string{"chain", "belongs", "expiry"},
			}
			found := check.Run(t.Context(), device.Inventory{Keys: []device.Key{k}}, env)
			var all []device.Status
			for _, f := range found {
				all = append(all, f.Status)
				if strings.Contains(f.Message, "does not take 0") {
					t.Errorf("%s: %s", tt.file, f.Message)
				}
			}
			says := slices.ContainsFunc(found, func(f device.Finding) bool { return strings.Contains(f.Message, tt.says) })
			if status := device.Worst(all...); status != tt.want || !says && i == 0 {
				t.Errorf("%s, %d: %v, want %v and %q: %+v", tt.file, i, status, tt.want, tt.says, found)
			}
		}

		// A forged one never passes.
		forged := keys[0]
		der := bytes.Clone(forged.Leaf().Raw)
		der[len(der)-1] ^= 1
		leaf, _, err := keyfile.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		forged.Role, forged.Chain = device.RoleDevice, []*x509.Certificate{leaf}
		forged.Beside = []*x509.Certificate{ca}
		env := &check.Env{Now: time.Now(), Blocklist: good{}, Roots: []*x509.Certificate{ca}, Only: []string{"chain"}}
		for _, f := range check.Run(t.Context(), device.Inventory{Keys: []device.Key{forged}}, env) {
			if f.Status == device.Pass {
				t.Errorf("%s, forged: %+v", tt.file, f)
			}
		}
	}
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
