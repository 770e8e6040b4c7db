package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// keyvet runs one command line in this process.
func keyvet(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	status = command(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// checkJSON runs keyvet check -json and reads the report.
func checkJSON(t *testing.T, stdin string, args ...string) (int, *device.Report) {
	t.Helper()
	status, out, errs := keyvet(t, stdin, append([]string{"check", "-json"}, args...)...)
	r := new(device.Report)
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	return status, r
}

func spkiPEM(t *testing.T, pub crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func failed(r *device.Report, check string) []device.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f device.Finding) bool {
		return f.Check != check || f.Status != device.Fail
	})
}

// TestPublishedModuli holds keyvet against the verdict that the authors of the
// ROCA paper gave each modulus.
func TestPublishedModuli(t *testing.T) {
	f, err := os.Open("../../device/check/testdata/roca/moduli.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := make(map[string]int)
	for i, name := range rows[0] {
		column[name] = i
	}
	weak, good := 0, 0
	for _, row := range rows[1:] {
		name := row[column["name"]]
		n, ok := new(big.Int).SetString(row[column["n_hex"]], 16)
		e, err := strconv.Atoi(row[column["e"]])
		if !ok || err != nil {
			t.Fatalf("%s: bad row: %v", name, err)
		}
		status, r := checkJSON(t, spkiPEM(t, &rsa.PublicKey{N: n, E: e}), "-")
		findings := failed(r, "roca")
		switch row[column["dlog39"]] {
		case "1":
			weak++
			if status != cli.Fail || len(findings) != 1 || findings[0].ReasonCode != device.ReasonROCA || findings[0].Severity != device.Critical {
				t.Errorf("%s: exit %d, %v: it is weak", name, status, findings)
			}
		case "0":
			good++
			if len(findings) != 0 {
				t.Errorf("%s: %v: it is not weak", name, findings)
			}
		default:
			t.Fatalf("%s: dlog39 is %q", name, row[column["dlog39"]])
		}
	}
	if weak < 10 || good < 10 {
		t.Errorf("%d weak and %d good moduli: the vectors are not there", weak, good)
	}
}

// TestDebianVectors looks up weak keys of every architecture and variant.
func TestDebianVectors(t *testing.T) {
	files, err := filepath.Glob("../../blocklist/testdata/*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v: %v", files, err)
	}
	seen := make(map[string]int)
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			pub := vectorKey(t, strings.Fields(line))
			if pub == nil {
				continue
			}
			kind := "p256"
			if _, ok := pub.(*rsa.PublicKey); ok {
				kind = "rsa2048"
			}
			seen[kind]++
			status, r := checkJSON(t, spkiPEM(t, pub), "-")
			if f := failed(r, "debian"); status != cli.Fail || len(f) != 1 || f[0].ReasonCode != device.ReasonDebian {
				t.Errorf("%.40s…: exit %d, %v", line, status, f)
			}
		}
	}
	if seen["rsa2048"] < 9 || seen["p256"] < 9 {
		t.Errorf("vectors seen: %v", seen)
	}
}

// vectorKey is the key of a line of vectors: "2048 arch variant pid sha1 sha256
// N p q" or "p256 arch variant pid sha256 x=… y=… d=…"; nil for another line.
func vectorKey(t *testing.T, fields []string) crypto.PublicKey {
	t.Helper()
	hex := func(s string) *big.Int {
		n, ok := new(big.Int).SetString(s, 16)
		if !ok {
			t.Fatalf("bad vector: %s", s)
		}
		return n
	}
	switch {
	case len(fields) == 9 && fields[0] == "2048":
		return &rsa.PublicKey{N: hex(fields[6]), E: 65537}
	case len(fields) == 8 && fields[0] == "p256":
		return &ecdsa.PublicKey{Curve: elliptic.P256(), X: hex(fields[5][2:]), Y: hex(fields[6][2:])}
	}
	return nil
}

// TestRandomKeys looks up 10,000 keys that nobody has seen before.
func TestRandomKeys(t *testing.T) {
	dir := t.TempDir()
	args := []string{}
	for i := range 20 {
		var text strings.Builder
		for range 250 {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			modulus := make([]byte, 256)
			rand.Read(modulus)
			modulus[0] |= 0x80
			modulus[255] |= 1
			text.WriteString(spkiPEM(t, key.Public()))
			text.WriteString(spkiPEM(t, &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}))
		}
		name := filepath.Join(dir, strconv.Itoa(i)+".pem")
		if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	_, r := checkJSON(t, "", args...)
	if len(r.Keys) != 10_000 {
		t.Errorf("%d keys read", len(r.Keys))
	}
	// Random moduli are no products of two primes: factors finds something, as it should.
	for _, check := range []string{"debian", "roca"} {
		for _, f := range r.Findings {
			if f.Check == check {
				t.Errorf("%v", f)
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.pem")
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	os.WriteFile(good, []byte(spkiPEM(t, key.Public())), 0o600)
	for _, tt := range []struct {
		args   []string
		status int
		out    string // in one of the streams
	}{
		{nil, 2, "usage:"},
		{[]string{"help"}, 0, "usage:"},
		{[]string{"help", "check"}, 0, "usage: keyvet check"},
		{[]string{"check", "-h"}, 0, "usage: keyvet check"},
		{[]string{"help", "chek"}, 2, `did you mean "check"?`},
		{[]string{"chek"}, 2, `did you mean "check"?`},
		{[]string{"version"}, 0, "keyvet "},
		{[]string{"version", "x"}, 2, "no arguments"},
		{[]string{"check", "-jsn", good}, 2, "-jsn"},
		{[]string{"check", "-root", "/", good}, 2, "-root"},
		{[]string{"check", good, "-json"}, 0, `"verdict": "PASS"`},
		{[]string{"check", "--json", "--", good}, 0, `"verdict": "PASS"`},
		{[]string{"check", "--", "-json"}, 3, "-json"},
		{[]string{"check", good}, 0, "PASS"},
		{[]string{"check", "-v", good}, 0, "pass  point"},
		{[]string{"check", "-config", filepath.Join(dir, "none.toml"), good}, 2, "none.toml"},
		{[]string{"check", "-tpm", "unix:" + filepath.Join(dir, "none"), good}, 3, "TPM"},
		{[]string{"check", "-tpm", "nonsense", good}, 2, "not an address"},
		{[]string{"check", "-tpm", "tcp:localhost"}, 2, "missing port"},
		{[]string{"check", "-tpm", "spi:/dev/tpm0"}, 2, "not a SPI device"},
		{[]string{"run", "x"}, 2, "no arguments"},
		{[]string{"status", "x"}, 2, "no arguments"},
	} {
		status, out, errs := keyvet(t, "", tt.args...)
		if status != tt.status || !strings.Contains(out+errs, tt.out) {
			t.Errorf("keyvet %q: exit %d, want %d with %q\n%s%s", tt.args, status, tt.status, tt.out, out, errs)
		}
		lines := 0 // of what was checked, the text is on standard output
		if status != 0 && tt.args != nil && !(status == 3 && tt.args[0] == "check") {
			lines = 1
		}
		if tt.args != nil && strings.Count(errs, "\n") != lines {
			t.Errorf("keyvet %q: not %d lines of error:\n%s", tt.args, lines, errs)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	var out, errs strings.Builder
	if status := command(ctx, []string{"check", "-"}, strings.NewReader(spkiPEM(t, key.Public())), &out, &errs); status != cli.Undecided {
		t.Errorf("exit %d\n%s%s", status, &out, &errs)
	}
}
