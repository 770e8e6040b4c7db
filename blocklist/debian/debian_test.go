package debian

import (
	"bufio"
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// vectors yields the fields of each line of a file, which has to have as many
// as want.
func vectors(t *testing.T, file string, want int) [][]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		row := strings.Fields(lines.Text())
		if len(row) != want {
			t.Fatalf("%s: line %d has %d fields, want %d", file, len(rows)+1, len(row), want)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return rows
}

// parseRow reads the size or curve, architecture, variant and process id.
func parseRow(t *testing.T, row []string) (string, Seed) {
	t.Helper()
	arch, errA := ParseArch(row[1])
	variant, errV := ParseVariant(row[2])
	pid, errP := strconv.ParseUint(row[3], 10, 16)
	if err := errors.Join(errA, errV, errP); err != nil {
		t.Fatal(err)
	}
	return row[0], Seed{arch, variant, uint16(pid)}
}

func parseInt(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// exponent is what the programs of that time took without being told.
func exponent(v Variant) int {
	if v == SSH {
		return 35
	}
	return 65537
}

func TestRSA(t *testing.T) {
	for _, name := range []string{"rsa1024", "rsa2048", "rsa2048-ssh", "rsa3072", "rsa4096"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRSA(t, filepath.Join("testdata", name+".txt"))
		})
	}
}

// testRSA makes every key of a file of vectors and returns their number.
func testRSA(t *testing.T, file string) int {
	rows := vectors(t, file, 9)
	for _, row := range rows {
		size, seed := parseRow(t, row)
		bits, e := parseInt(t, size), exponent(seed.Variant)
		k, err := RSA(t.Context(), bits, e, seed)
		if err != nil {
			t.Fatal(err)
		}
		p, q := k.P, k.Q
		if p.Cmp(q) < 0 {
			p, q = q, p
		}
		sha256, sha1 := Fingerprint(k.N), OpenSSLBlacklist(k.N)
		got := fmt.Sprintf("%x %x %X %X %X", sha1, sha256, k.N, p, q)
		if want := strings.Join(row[4:], " ")[20:]; got != want {
			t.Errorf("RSA-%d of %v:\n got %s\nwant %s", bits, seed, got, want)
		}
		r, err := Replay(t.Context(), bits, e, seed, k.Failed)
		if err != nil {
			t.Fatal(err)
		}
		if r.N.Cmp(k.N) != 0 || r.P.Cmp(k.P) != 0 || r.Q.Cmp(k.Q) != 0 || r.Failed != k.Failed {
			t.Errorf("RSA-%d of %v: a replay of %+v makes another key", bits, seed, k.Failed)
		}
	}
	return len(rows)
}

// TestExponent has the keys for which 65537 and a small exponent part: a
// prime that is 1 modulo 65537 was drawn.
func TestExponent(t *testing.T) {
	for _, row := range vectors(t, filepath.Join("testdata", "exponent.txt"), 8) {
		t.Run(strings.Join(row[:5], " "), func(t *testing.T) {
			t.Parallel()
			size, seed := parseRow(t, row)
			bits, e := parseInt(t, size), parseInt(t, row[4])
			failed := Failed{parseInt(t, row[6]), parseInt(t, row[7])}
			k, err := RSA(t.Context(), bits, e, seed)
			if err != nil {
				t.Fatal(err)
			}
			if sum := Fingerprint(k.N); hex.EncodeToString(sum[:]) != row[5] {
				t.Errorf("the modulus is %X", k.N)
			}
			if k.Failed != failed {
				t.Errorf("%+v candidates failed, want %+v", k.Failed, failed)
			}
			r, err := Replay(t.Context(), bits, e, seed, failed)
			if err != nil {
				t.Fatal(err)
			}
			if r.N.Cmp(k.N) != 0 {
				t.Error("a replay makes another key")
			}
			if k.Refused != (e == 65537) || r.Refused != k.Refused {
				t.Errorf("a prime was refused: %t, by a replay %t", k.Refused, r.Refused)
			}
		})
	}
}

func TestReal(t *testing.T) {
	for _, tt := range []struct {
		bits int
		seed Seed
	}{
		{512, Seed{LE32, NoReadRnd, 7}},
		{1024, Seed{LE32, Rnd, 10}},
		{2048, Seed{LE32, Rnd, 13}},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", "real", fmt.Sprintf("debian-openssl-0.9.8c-x86-prng-bug-%d.key", tt.bits)))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		if block == nil {
			t.Fatalf("RSA-%d: no PEM", tt.bits)
		}
		want, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		k, err := RSA(t.Context(), tt.bits, want.E, tt.seed)
		if err != nil {
			t.Fatal(err)
		}
		if k.N.Cmp(want.N) != 0 {
			t.Errorf("RSA-%d of %v: got %X, want %X", tt.bits, tt.seed, k.N, want.N)
		}
	}
}

// TestWrongReplay has counts that are not those of the seed: a wrong key, no endless search.
func TestWrongReplay(t *testing.T) {
	seed := Seed{LE32, Rnd, 10}
	k, err := RSA(t.Context(), 1024, 65537, seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, failed := range []Failed{{}, {k.BeforeP + 1, k.BeforeQ}, {k.BeforeP, k.BeforeQ + 1}} {
		r, err := Replay(t.Context(), 1024, 65537, seed, failed)
		if err != nil {
			t.Fatal(err)
		}
		if r.N.Cmp(k.N) == 0 {
			t.Errorf("%+v makes the key of %+v", failed, k.Failed)
		}
	}
	if _, err := Replay(t.Context(), 1024, 65537, seed, Failed{-1, 0}); err == nil {
		t.Error("a negative count is taken")
	}
}

func TestRSARefuses(t *testing.T) {
	good := Seed{LE64, SSH, MaxPID}
	for _, tt := range []struct {
		bits, e int
		seed    Seed
	}{
		{MinRSABits - 1, 3, good},
		{MaxRSABits + 1, 3, good},
		{512, 1, good},
		{512, -3, good},
		{512, 65536, good},
		{512, 17881 * 17881, good},
		{512, 3, Seed{LE64, SSH, MaxPID + 1}},
		{512, 3, Seed{3, SSH, 0}},
		{512, 3, Seed{LE64, 4, 0}},
	} {
		if _, err := RSA(t.Context(), tt.bits, tt.e, tt.seed); err == nil {
			t.Errorf("RSA(%d, %d, %v) is no error", tt.bits, tt.e, tt.seed)
		}
	}
	if _, err := RSA(t.Context(), 512, 3, good); err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := RSA(ctx, 2048, 65537, Seed{}); !errors.Is(err, context.Canceled) {
		t.Errorf("RSA: %v", err)
	}
	if _, err := Replay(ctx, 2048, 65537, Seed{}, Failed{1, 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("Replay: %v", err)
	}
}

func TestEC(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		testEC(t, "testdata", curve)
	}
}

// testEC makes every key of a curve's file of vectors and returns their number.
func testEC(t *testing.T, dir string, curve elliptic.Curve) int {
	name := strings.ToLower(strings.ReplaceAll(curve.Params().Name, "-", ""))
	rows := vectors(t, filepath.Join(dir, name+".txt"), 8)
	for _, row := range rows {
		_, seed := parseRow(t, row)
		k, err := EC(curve, seed)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%x x=%x y=%x d=%x", Fingerprint(k.X), k.X, k.Y, k.D)
		if want := strings.Join(row[4:], " "); got != want {
			t.Errorf("%s of %v:\n got %s\nwant %s", name, seed, got, want)
		}
	}
	return len(rows)
}

// TestP224 holds a key on P-224, of which there are no vectors, to its private half.
func TestP224(t *testing.T) {
	k, err := EC(elliptic.P224(), Seed{LE32, Rnd, 1})
	if err != nil {
		t.Fatal(err)
	}
	x, y := elliptic.P224().ScalarBaseMult(k.D.Bytes()) //nolint:staticcheck // crypto/ecdh has no P-224
	if k.D.BitLen() > 224 || k.D.BitLen() < 200 || x.Cmp(k.X) != 0 || y.Cmp(k.Y) != 0 {
		t.Errorf("%x makes (%x, %x), not (%x, %x)", k.D, x, y, k.X, k.Y)
	}
}

func TestECRefuses(t *testing.T) {
	if _, err := EC(elliptic.P256().Params(), Seed{}); err == nil {
		t.Error("another curve is taken")
	}
	if _, err := EC(elliptic.P256(), Seed{Variant: SSH}); err == nil {
		t.Error("an EC key of ssh-keygen is made")
	}
	if _, err := EC(elliptic.P256(), Seed{PID: MaxPID + 1}); err == nil {
		t.Error("a process id of 32768 is taken")
	}
}
