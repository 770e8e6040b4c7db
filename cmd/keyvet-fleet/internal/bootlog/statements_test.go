// As in cmd/keyvet-fleet's main.go.
//
//go:debug x509negativeserial=1
package bootlog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-eventlog/extract"
	gepb "github.com/google/go-eventlog/proto/state"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/tpmeventlog"
	"github.com/google/go-eventlog/wellknown"

	"github.com/keyvet/keyvet/tpm/evidence"
)

// statement is what a tool says of a log.
type statement struct {
	Error       string                    `json:"error"`
	PCRs        map[string]map[int]string `json:"pcrs"` // that the log adds up to
	SecureBoot  bool                      `json:"secureBoot"`
	PK          []string                  `json:"pk"` // SHA-256 of certificates
	KEK         []string                  `json:"kek"`
	DB          []string                  `json:"db"`
	DBX         []string                  `json:"dbx"`
	DBHashes    int                       `json:"dbHashes"`
	DBXHashes   int                       `json:"dbxHashes"`
	Authorities []string                  `json:"authorities"`
	Programs    []string                  `json:"programs"` // their digests
	CommandLine string                    `json:"commandLine"`
}

// ours is what a boot is in our words.
func ours(boot evidence.Boot) statement {
	s := statement{SecureBoot: boot.SecureBoot == "on", DBHashes: boot.Hashes.Allowed, DBXHashes: boot.Hashes.Forbidden, CommandLine: boot.CommandLine}
	for _, k := range slices.Concat(boot.Keys, boot.Authorities) {
		list := map[string]*[]string{"PK": &s.PK, "KEK": &s.KEK, "db": &s.DB, "dbx": &s.DBX, evidence.Authority: &s.Authorities}[k.Variable]
		*list = append(*list, k.SHA256)
	}
	for _, l := range boot.Loaders {
		s.Programs = append(s.Programs, hex.EncodeToString(l.Digest))
	}
	return s
}

// secureBoot is what of a statement is on Secure Boot.
func (s statement) secureBoot() string {
	return fmt.Sprint(s.SecureBoot, s.PK, s.KEK, s.DB, s.DBX, s.DBHashes, s.DBXHashes)
}

// said are the statements that a tool made of our logs (testdata/statements/README.md).
func said[T any](t *testing.T, tool string) map[string]T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/statements", tool+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]T
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/logs/*.bin")
	if err != nil || len(files) != len(all) {
		t.Fatalf("%d logs, %s on %d: %v", len(files), tool, len(all), err)
	}
	return all
}

// of the banks of a log, what it adds up to in each.
func banksOf(t *testing.T, log []byte) map[string][]evidence.PCR {
	t.Helper()
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]evidence.PCR)
	for bank, hash := range banks {
		if pcrs := addsUp(parsed, bank, hash); len(pcrs) > 0 {
			all[bank] = pcrs
		}
	}
	return all
}

// TestAsGoTPMTools says of each log, in each bank, what the library of go-tpm-tools
// says where it is called for all at once.
func TestAsGoTPMTools(t *testing.T) {
	files, err := filepath.Glob("testdata/logs/*.bin")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".bin")
		log := other(t, name)
		for bank, pcrs := range banksOf(t, log) {
			boot, err := replay(log, pcrs)
			if err != nil {
				t.Fatal(err)
			}
			theirs := register.PCRBank{TCGHashAlgo: map[string]gepb.HashAlgo{"sha1": gepb.HashAlgo_SHA1, "sha256": gepb.HashAlgo_SHA256, "sha384": gepb.HashAlgo_SHA384}[bank]}
			for _, p := range pcrs {
				theirs.PCRs = append(theirs.PCRs, register.PCR{Index: p.Index, Digest: p.Value, DigestAlg: banks[bank]})
			}
			state, err := tpmeventlog.ReplayAndExtract(log, theirs, extract.Opts{Loader: extract.GRUB, AllowEmptySBVar: true, AllowEFIAppBeforeCallingEvent: true})
			if state == nil {
				t.Errorf("%s, %s: %v", name, bank, err)
				continue
			}
			compared++
			we := ours(boot)
			want := we
			want.Programs, want.CommandLine = nil, clip(strings.TrimRight(state.GetLinuxKernel().GetCommandLine(), "\x00"))
			for _, app := range state.GetEfi().GetApps() {
				want.Programs = append(want.Programs, hex.EncodeToString(app.GetDigest()))
			}
			if sb := state.GetSecureBoot(); sb != nil && slices.ContainsFunc(pcrs, func(p evidence.PCR) bool { return p.Index == 7 }) {
				want.SecureBoot, want.PK, want.KEK, want.DB, want.DBX = sb.GetEnabled(), certificates(sb.GetPk()), certificates(sb.GetKek()), certificates(sb.GetDb()), certificates(sb.GetDbx())
				want.DBHashes, want.DBXHashes = len(sb.GetDb().GetHashes()), len(sb.GetDbx().GetHashes())
			} else if boot.SecureBoot != "" {
				t.Errorf("%s, %s: we say Secure Boot is %s, they say %v", name, bank, boot.SecureBoot, err)
			}
			if state.GetPlatform() != nil && boot.Firmware != version(state.GetPlatform()) {
				t.Errorf("%s, %s: we say the firmware is %q, they %q", name, bank, boot.Firmware, version(state.GetPlatform()))
			}
			if fmt.Sprint(want) != fmt.Sprint(we) {
				t.Errorf("%s, %s:\nwe   %v\nthey %v", name, bank, we, want)
			}
		}
	}
	if compared < 20 {
		t.Errorf("%d compared", compared)
	}
}

// certificates are the SHA-256 of those of a variable.
func certificates(db *gepb.Database) (all []string) {
	for _, c := range db.GetCerts() {
		der := c.GetDer()
		switch c.GetWellKnown() {
		case gepb.WellKnownCertificate_MS_WINDOWS_PROD_PCA_2011:
			der = wellknown.WindowsProductionPCA2011Cert
		case gepb.WellKnownCertificate_MS_THIRD_PARTY_UEFI_CA_2011:
			der = wellknown.MicrosoftUEFICA2011Cert
		case gepb.WellKnownCertificate_MS_THIRD_PARTY_KEK_CA_2011:
			der = wellknown.MicrosoftKEKCA2011Cert
		case gepb.WellKnownCertificate_GCE_DEFAULT_PK:
			der = wellknown.GceDefaultPKCert
		}
		sum := sha256.Sum256(der)
		all = append(all, hex.EncodeToString(sum[:]))
	}
	return all
}

// TestAsGoAttestation says of each log, in each bank, what go-attestation says; where
// that says nothing, why is known.
func TestAsGoAttestation(t *testing.T) {
	silent := []string{
		"SecureBoot data len is 0",         // an empty variable, which is off
		"cannot compare hash of length 48", // it does not read SHA-384
		"x509: negative serial number",     // of a PK: Go's default, which our program does not keep
	}
	compared := 0
	for name, perBank := range said[map[string]statement](t, "go-attestation") {
		log := other(t, name)
		for bank, pcrs := range banksOf(t, log) {
			boot, err := replay(log, pcrs)
			if err != nil {
				t.Fatal(err)
			}
			they, we := perBank[bank], ours(boot)
			switch {
			case they.Error == "":
				compared++
				if we.secureBoot() != they.secureBoot() || boot.SecureBoot == "" || !slices.Equal(we.Authorities, once(they.Authorities)) {
					t.Errorf("%s, %s:\nwe   %v\nthey %v", name, bank, we, they)
				}
			case !slices.ContainsFunc(silent, func(why string) bool { return strings.Contains(they.Error, why) }) || boot.SecureBoot == "":
				t.Errorf("%s, %s: they say %s, we %+v", name, bank, they.Error, boot)
			}
		}
	}
	if compared < 20 {
		t.Errorf("%d compared", compared)
	}
}

func once(list []string) (all []string) {
	for _, entry := range list {
		if !slices.Contains(all, entry) {
			all = append(all, entry)
		}
	}
	return all
}

// TestAsKeylime says of each log what keylime says by tpm2_eventlog, and takes the
// PCRs that it computes. docs/security.md explains where they differ.
func TestAsKeylime(t *testing.T) {
	compared := 0
	for name, they := range said[statement](t, "keylime") {
		log := other(t, name)
		var boot evidence.Boot
		for bank, values := range they.PCRs {
			var pcrs []evidence.PCR
			for i, value := range values {
				v, err := hex.DecodeString(value)
				if err != nil {
					t.Fatal(err)
				}
				pcrs = append(pcrs, evidence.PCR{Bank: bank, Index: i, Value: v})
			}
			b, err := replay(log, pcrs)
			if err != nil || len(b.Explained) != len(pcrs) || len(pcrs) < 4 {
				t.Errorf("%s, %s: %v, %d PCRs, of which the log explains %v", name, bank, err, len(pcrs), b.Explained)
			}
			if bank == "sha256" {
				boot = b
			}
		}
		if they.Error != "" {
			t.Logf("%s: they say %s", name, they.Error)
			continue
		}
		compared++
		we := ours(boot)
		if we.secureBoot() != they.secureBoot() {
			t.Errorf("%s:\nwe   %v\nthey %v", name, we, they)
		}
		if len(they.Programs) == 0 || name == "sb_cert_eventlog" {
			continue // it expects two or three; that log ends before a separator
		}
		if len(we.Programs) == 0 { // the log does not have the end of the boot services: what could be started as well came after it
			for _, m := range boot.After {
				if m.PCR == 4 && m.Type == "EV_EFI_BOOT_SERVICES_APPLICATION" {
					we.Programs = append(we.Programs, hex.EncodeToString(m.Digest))
				}
			}
		}
		cut, _ := strings.CutPrefix(they.CommandLine, "ine ") // of "grub_kernel_cmdline", as an older GRUB names it
		if !within(they.Programs, we.Programs) || we.CommandLine != cut {
			t.Errorf("%s:\nwe   %q %q\nthey %q %q", name, we.Programs, we.CommandLine, they.Programs, they.CommandLine)
		}
	}
	if compared < 12 {
		t.Errorf("%d compared", compared)
	}
}

// within reports whether a list has all entries of another, in that order.
func within(entries, list []string) bool {
	for _, entry := range entries {
		i := slices.Index(list, entry)
		if i < 0 {
			return false
		}
		list = list[i+1:]
	}
	return true
}
