package keyfile

import (
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// secretPackets are the key packets with private halves of a file that GnuPG wrote.
func secretPackets(t testing.TB, name string) (bodies [][]byte) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n\n")
	body, _, _ = strings.Cut(body, "\n=")
	data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		packet, body, rest, err := readPacket(data)
		if err != nil {
			t.Fatal(err)
		}
		if data = rest; packet == pgpSecretKey || packet == pgpSecretSubkey {
			bodies = append(bodies, body)
		}
	}
	return bodies
}

// TestPGPPrivate has keys of GnuPG as they are, with another private number, and
// with damage.
func TestPGPPrivate(t *testing.T) {
	names, err := filepath.Glob("testdata/gpg/*-secret.asc")
	if err != nil || len(names) == 0 {
		t.Fatal("no keys")
	}
	looked := 0
	for _, name := range names {
		for i, body := range secretPackets(t, name) {
			judge := func(change func(b []byte) []byte) device.Answer {
				k, err := parsePGPKey(change(slices.Clone(body)))
				if err != nil {
					t.Fatalf("%s, %d: %v", name, i, err)
				}
				o := k.withPrivate()
				if o.test != nil && o.numbers.Status == device.Pass {
					e := maxEffort
					return o.test(&e)
				}
				return o.numbers
			}
			whole := judge(func(b []byte) []byte { return b })
			if whole.Status == device.NotApplicable && strings.Contains(whole.Why, "not looked at") {
				continue // ElGamal
			}
			if looked++; whole.Status != device.Pass {
				t.Errorf("%s, %d: %+v", name, i, whole)
			}
			if a := judge(func(b []byte) []byte {
				b[len(b)-3] ^= 8 // of the last number
				sum := binary.BigEndian.Uint16(b[len(b)-2:])
				binary.BigEndian.PutUint16(b[len(b)-2:], sum+uint16(b[len(b)-3])-uint16(b[len(b)-3]^8))
				return b
			}); a.Status != device.Fail {
				t.Errorf("%s, %d: with another number: %+v", name, i, a)
			}
			for what, change := range map[string]func(b []byte) []byte{
				"checksum": func(b []byte) []byte { b[len(b)-1]++; return b },
				"cut":      func(b []byte) []byte { return b[:len(b)-3] },
				"longer":   func(b []byte) []byte { return append(b, 0) },
			} {
				if a := judge(change); a.Status != device.Undecided {
					t.Errorf("%s, %d, %s: %+v", name, i, what, a)
				}
			}
		}
	}
	if looked < len(names) {
		t.Errorf("the private numbers of %d keys in %d files were looked at", looked, len(names))
	}
	// Version 6 has no checksum; an encrypted key says nothing.
	body := []byte{6, 0, 0, 0, 1, 27, 0, 0, 0, 32}
	body = append(body, make([]byte, 32)...)
	for behind, want := range map[string]device.Status{
		"\x00" + strings.Repeat("\x01", 32):         device.Fail,
		"\x00" + strings.Repeat("\x01", 31):         device.Undecided,
		"\xfe\x09\x03\x08" + strings.Repeat("x", 9): device.NotApplicable,
		"": device.Undecided,
	} {
		k, err := parsePGPKey(append(slices.Clone(body), behind...))
		if a := k.withPrivate().numbers; err != nil || a.Status != want {
			t.Errorf("%x: %+v, %v", behind, a, err)
		}
	}
}

func FuzzOpenPGPPrivate(f *testing.F) {
	names, _ := filepath.Glob("testdata/gpg/*-secret.asc")
	for _, name := range names {
		for _, body := range secretPackets(f, name) {
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		k, err := parsePGPKey(body)
		if err != nil {
			return
		}
		o := k.withPrivate()
		if !o.private {
			t.Error("not a private key")
		}
		if o.numbers.Status == device.Pass && o.test == nil && !device.SameKey(o.spki, o.privateSPKI) {
			t.Errorf("passed with another key")
		}
	})
}
