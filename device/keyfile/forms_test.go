package keyfile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

func good(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/good/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func read(data []byte) ([]device.Key, []device.Gap) {
	return keyfile.ReadFrom(bytes.NewReader(data), "-")
}

// wants holds what was read to so many keys, and to gaps with these words.
func wants(t *testing.T, name string, data []byte, keys int, gaps ...string) []device.Key {
	t.Helper()
	got, found := read(data)
	ok := len(got) == keys && len(found) == len(gaps)
	for i := range min(len(gaps), len(found)) {
		ok = ok && strings.Contains(found[i].What+": "+found[i].Why, gaps[i])
	}
	if !ok {
		t.Errorf("%s: %d keys, gaps %v; want %d, %q", name, len(got), found, keys, gaps)
	}
	return got
}

func certificates(t testing.TB, file string) (ders [][]byte) {
	t.Helper()
	for block, rest := pem.Decode(good(t, file)); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	return ders
}

func label(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestPKCS7 reads what openssl crl2pkcs7 writes, under every label, and with the
// indefinite lengths of Java and of streams.
func TestPKCS7(t *testing.T) {
	der := good(t, "pkcs7.der")
	for _, kind := range []string{"PKCS7", "PKCS #7 SIGNED DATA", "CMS", "CERTIFICATE", "CERTIFICATE CHAIN"} {
		wants(t, kind, label(kind, der), 3)
	}
	want := certificates(t, "fullchain.pem")
	for name, data := range map[string][]byte{"DER": der, "BER": indefinite(der), "BER in PEM": label("PKCS7", indefinite(der))} {
		for i, k := range wants(t, name, data, 3) {
			if !bytes.Equal(k.Leaf().Raw, want[i]) || k.Object != i+1 {
				t.Errorf("%s: certificate %d is another one", name, i+1)
			}
		}
	}
	wants(t, "between others", slices.Concat(good(t, "leaf.pem"), label("PKCS7", der), good(t, "root.pem")), 5)
	oid := []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}
	set := func(content ...byte) []byte { return append([]byte{0x31, byte(len(content))}, content...) }
	wrap := func(fields ...[]byte) []byte {
		content := sequence(fields...)
		return sequence(oid, append([]byte{0xa0, 0x82, byte(len(content) >> 8), byte(len(content))}, content...))
	}
	field := func(tag byte, content []byte) []byte {
		return append([]byte{tag, 0x82, byte(len(content) >> 8), byte(len(content))}, content...)
	}
	version, data := []byte{2, 1, 1}, sequence([]byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1})
	wants(t, "and a revocation list", wrap(version, set(), data, field(0xa0, want[0]), field(0xa1, sequence()), set()), 1, "object 2: a revocation list")
	wants(t, "an attribute certificate", wrap(version, set(), data, field(0xa0, append(field(0xa2, []byte{5, 0}), want[0]...)), set()), 1, "attribute certificate")
	wants(t, "no certificate", wrap(version, set(), data, set()), 0, "without a certificate")
	wants(t, "nothing in it", sequence(oid, []byte{0xa0, 2, 5, 0}), 0, "damaged PKCS#7")
	wants(t, "encrypted", sequence(append(bytes.Clone(oid[:10]), 3), []byte{0xa0, 2, 0x30, 0}), 0, "PKCS#7")
	gapped := []byte{0x30, 0x80, 2, 1, 3, 0x30, 0x80, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1, 0xa0, 0x80, 0x24, 0x80, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	wants(t, "PKCS#12 of indefinite length", gapped, 0, "PKCS#12")
}

// TestJWK reads keys that crypto/* made, as RFC 7517 writes them.
func TestJWK(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]map[string]string{}
	public := map[string]crypto.PublicKey{}
	number := func(i *big.Int) string { return b64(i.Bytes()) }
	keys["RSA"] = map[string]string{"kty": "RSA", "n": number(rsaKey.N), "e": "AQAB", "d": number(rsaKey.D), "p": number(rsaKey.Primes[0]), "q": number(rsaKey.Primes[1]),
		"dp": number(rsaKey.Precomputed.Dp), "dq": number(rsaKey.Precomputed.Dq), "qi": number(rsaKey.Precomputed.Qinv)}
	public["RSA"] = rsaKey.Public()
	for name, c := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		k, _ := ecdsa.GenerateKey(c, rand.Reader)
		point, _ := k.PublicKey.Bytes()
		d, _ := k.Bytes()
		size := len(point) / 2
		keys[name] = map[string]string{"kty": "EC", "crv": name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:]), "d": b64(d)}
		public[name] = k.Public()
	}
	edPublic, edPrivate, _ := ed25519.GenerateKey(rand.Reader)
	keys["Ed25519"], public["Ed25519"] = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": b64(edPublic), "d": b64(edPrivate.Seed())}, edPublic
	x, _ := ecdh.X25519().GenerateKey(rand.Reader)
	keys["X25519"], public["X25519"] = map[string]string{"kty": "OKP", "crv": "X25519", "x": b64(x.PublicKey().Bytes()), "d": b64(x.Bytes())}, x.PublicKey()

	encode := func(v any) []byte { b, _ := json.MarshalIndent(v, "", "  "); return b }
	var set []map[string]string
	for name, k := range keys {
		want, err := x509.MarshalPKIXPublicKey(public[name])
		if err != nil {
			t.Fatal(err)
		}
		got := wants(t, name, encode(k), 1)
		if len(got) == 1 && (!bytes.Equal(got[0].SPKI, want) || got[0].Private == nil || got[0].Private.Numbers.Status != device.Pass || !bytes.Equal(got[0].Private.SPKI, want)) {
			t.Errorf("%s: %+v, private %+v", name, got[0], got[0].Private)
		}
		open := map[string]string{"kid": name}
		for member, value := range k {
			if !slices.Contains([]string{"d", "p", "q", "dp", "dq", "qi"}, member) {
				open[member] = value
			}
		}
		set = append(set, open)
		if got := wants(t, name+", public", encode(open), 1); len(got) == 1 && (!bytes.Equal(got[0].SPKI, want) || got[0].Private != nil) {
			t.Errorf("%s, public: %+v", name, got[0])
		}
		if bad := wants(t, name+" of another", encode(merge(k, map[string]string{"d": keys[map[bool]string{true: "X25519", false: "Ed25519"}[name == "Ed25519"]]["d"]})), 1); len(bad) == 1 && bad[0].Private.Numbers.Status != device.Fail {
			t.Errorf("%s, of another private key: %+v", name, bad[0].Private)
		}
	}
	got := wants(t, "a set", encode(map[string]any{"keys": set}), len(set))
	if len(got) > 1 && (got[1].Object != 2 || got[1].Line <= got[0].Line) {
		t.Errorf("in the set at %d, %d", got[1].Object, got[1].Line)
	}
	wants(t, "a list", encode(set), len(set))
	k1 := map[string]string{"kty": "EC", "crv": "secp256k1", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}
	if got := wants(t, "secp256k1", encode(k1), 1); len(got) == 1 && got[0].Algorithm() != "ECDSA-secp256k1" {
		t.Error(got[0].Algorithm())
	}
	for name, c := range map[string]struct {
		key  any
		gaps []string
	}{
		"symmetric":    {map[string]string{"kty": "oct", "k": "AAAA"}, []string{"symmetric"}},
		"unknown":      {map[string]string{"kty": "XYZ"}, []string{"unknown type"}},
		"no modulus":   {map[string]string{"kty": "RSA", "e": "AQAB"}, []string{"n is missing"}},
		"not base64":   {map[string]string{"kty": "RSA", "n": "!", "e": "AQAB"}, []string{"not base64url"}},
		"too long":     {map[string]string{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 33)), "y": "AA"}, []string{"too long"}},
		"wrong type":   {map[string]any{"kty": "RSA", "n": 1}, []string{"not of its type"}},
		"other JSON":   {map[string]string{"hello": "world"}, []string{"neither PEM"}},
		"an empty set": {map[string]any{"keys": []any{}}, []string{"neither PEM"}},
	} {
		wants(t, name, encode(c.key), 0, c.gaps...)
	}

	// The certificate beside a key must be its own.
	chain := certificates(t, "fullchain.pem")
	x5c := []string{base64.StdEncoding.EncodeToString(chain[0]), base64.StdEncoding.EncodeToString(chain[1])}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	point, _ := leaf.PublicKey.(*ecdsa.PublicKey).Bytes()
	own := map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:]), "x5c": x5c}
	if got := wants(t, "x5c", encode(own), 2); len(got) == 2 && (got[0].Leaf() == nil || len(got[0].Chain) != 2 || !bytes.Equal(got[0].SPKI, leaf.RawSubjectPublicKeyInfo)) {
		t.Errorf("x5c: %+v", got[0])
	}
	foreign := map[string]any{"kty": "EC", "crv": "P-256", "x": keys["P-256"]["x"], "y": keys["P-256"]["y"], "x5c": x5c[:1]}
	if got := wants(t, "x5c of another", encode(foreign), 1); len(got) == 1 && (got[0].Leaf() == nil || bytes.Equal(got[0].SPKI, leaf.RawSubjectPublicKeyInfo)) {
		t.Errorf("x5c of another: %+v", got[0])
	}
}

func merge(a, b map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// TestGnuPG reads keys of every algorithm that GnuPG has, and finds in each what
// GnuPG does.
func TestGnuPG(t *testing.T) {
	golden, err := os.ReadFile("testdata/gpg.golden")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for line := range strings.Lines(string(golden)) {
		f := strings.Fields(line + " -")
		name := map[string]string{"1": "RSA-", "17": "DSA-", "16": "ElGamal-"}[f[1]] + f[2]
		if curve := f[3]; curve != "-" {
			name = map[string]string{"nistp256": "ECDSA-P256", "nistp384": "ECDSA-P384", "nistp521": "ECDSA-P521", "ed25519": "Ed25519", "cv25519": "X25519"}[curve]
			if name == "" {
				name = "ECDSA-" + curve
			}
		}
		want[f[0]] = append(want[f[0]], name)
	}
	names, _ := filepath.Glob("testdata/gpg/*")
	if len(names) != len(want) || len(want) != 24 {
		t.Fatalf("%d files, %d in gpg.golden", len(names), len(want))
	}
	spkis := map[string][][]byte{}
	for _, name := range names {
		keys, gaps := keyfile.Read(name)
		var got []string
		base := filepath.Base(name)
		id := strings.TrimSuffix(strings.TrimSuffix(base, filepath.Ext(base)), "-secret")
		for i, k := range keys {
			got = append(got, k.Algorithm())
			if (k.Private != nil) != strings.Contains(base, "-secret") {
				t.Errorf("%s: private %+v", base, k.Private)
			}
			if known := spkis[id]; len(known) > i && !bytes.Equal(known[i], k.SPKI) {
				t.Errorf("%s: key %d is another than in the other files", base, i+1)
			}
		}
		if len(spkis[id]) == 0 {
			for _, k := range keys {
				spkis[id] = append(spkis[id], k.SPKI)
			}
		}
		if !slices.Equal(got, want[base]) || len(gaps) > 0 {
			t.Errorf("%s: %v, want %v; gaps %v", base, got, want[base], gaps)
		}
	}
}

// TestOpenPGP reads packets of every version and with every kind of header.
func TestOpenPGP(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := x509.MarshalPKIXPublicKey(key.Public())
	mpi := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(8*len(b))), b...) }
	material := append(mpi(key.N.Bytes()), mpi([]byte{1, 0, 1})...)
	size := binary.BigEndian.AppendUint32(nil, uint32(len(material)))
	bodies := map[string][]byte{
		"v2": slices.Concat([]byte{2, 0, 0, 0, 1, 0, 0, 1}, material),
		"v3": slices.Concat([]byte{3, 0, 0, 0, 1, 0, 0, 1}, material),
		"v4": slices.Concat([]byte{4, 0, 0, 0, 1, 1}, material),
		"v5": slices.Concat([]byte{5, 0, 0, 0, 1, 1}, size, material),
		"v6": slices.Concat([]byte{6, 0, 0, 0, 1, 1}, size, material),
	}
	headers := map[string]func(packet byte, body []byte) []byte{
		"old, two bytes": func(p byte, b []byte) []byte {
			return slices.Concat([]byte{0x80 | p<<2 | 1, byte(len(b) >> 8), byte(len(b))}, b)
		},
		"old, four bytes": func(p byte, b []byte) []byte {
			return slices.Concat([]byte{0x80 | p<<2 | 2, 0, 0, byte(len(b) >> 8), byte(len(b))}, b)
		},
		"new, one byte": func(p byte, b []byte) []byte {
			if len(b) > 191 {
				t.Fatal(len(b))
			}
			return slices.Concat([]byte{0xc0 | p, byte(len(b))}, b)
		},
		"new, five bytes": func(p byte, b []byte) []byte { return slices.Concat([]byte{0xc0 | p, 0xff, 0, 0, 0, byte(len(b))}, b) },
		"new, in parts": func(p byte, b []byte) []byte {
			return slices.Concat([]byte{0xc0 | p, 0xe0 | 6}, b[:64], []byte{0xe0 | 4}, b[64:80], []byte{byte(len(b) - 80)}, b[80:])
		},
	}
	for version, body := range bodies {
		for header, packet := range headers {
			data := slices.Concat(packet(6, body), packet(13, bytes.Repeat([]byte("x"), 81)), packet(14, body))
			armour := fmt.Sprintf("-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: 1\nComment: a b\n\n%s\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", base64.StdEncoding.EncodeToString(data))
			for form, data := range map[string][]byte{"binary": data, "armoured": []byte(armour)} {
				for _, k := range wants(t, version+", "+header+", "+form, data, 2) {
					if !bytes.Equal(k.SPKI, want) || k.Private != nil {
						t.Errorf("%s, %s: %+v", version, header, k)
					}
				}
			}
			secret := wants(t, version+", secret", slices.Concat(packet(5, body), packet(7, body)), 2)
			for _, k := range secret {
				if k.Private == nil {
					t.Errorf("%s: no private half", version)
				}
			}
		}
	}
	whole := headers["old, two bytes"](6, bodies["v4"])
	wants(t, "cut short", append(bytes.Clone(whole), whole[:50]...), 1, "truncated or damaged OpenPGP packet")
	wants(t, "to the end", append([]byte{0x80 | 6<<2 | 3}, bodies["v4"]...), 1)
	wants(t, "key cut short", headers["old, two bytes"](6, bodies["v4"][:60]), 0, "truncated or damaged OpenPGP key")
	octets := func(algorithm byte, n int) []byte {
		return headers["new, one byte"](6, slices.Concat([]byte{6, 0, 0, 0, 1, algorithm, 0, 0, 0, byte(n)}, make([]byte, n)))
	}
	for algorithm, name := range map[byte]string{25: "X25519", 26: "X448", 27: "Ed25519", 28: "Ed448", 99: "OpenPGP-algorithm-99"} {
		n := map[byte]int{26: 56, 28: 57}[algorithm]
		if n == 0 {
			n = 32
		}
		if got := wants(t, name, octets(algorithm, n), 1); len(got) == 1 && got[0].Algorithm() != name {
			t.Error(got[0].Algorithm())
		}
	}
	wants(t, "a message", []byte("-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n"), 0, "decrypt")
	wants(t, "signed text", append([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nhello\n-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"), good(t, "leaf.pem")...), 1)
}

// TestSSH2 reads the form of RFC 4716.
func TestSSH2(t *testing.T) {
	want := only(t, good(t, "ssh-rsa-2048.pub")).SPKI
	text := string(good(t, "rfc4716.pub"))
	headers := strings.Replace(text, "\n", "\nSubject: me\nComment: \"goes on \\\nhere: and \\\nhere\"\nx-private: y\n", 1)
	for name, data := range map[string]string{"plain": text, "a blank line first": "\n\n" + text, "headers": headers, "CRLF": strings.ReplaceAll(text, "\n", "\r\n"), "before": "what is this\n" + text} {
		for _, k := range wants(t, name, []byte(data), 1) {
			if !bytes.Equal(k.SPKI, want) || k.Role != device.RoleSSH {
				t.Errorf("%s: %+v", name, k)
			}
		}
	}
	wants(t, "two", []byte(text+text), 2)
	wants(t, "damaged", []byte(strings.Replace(text, "AAAA", "A!AA", 1)), 0, "damaged SSH2")
	wants(t, "private", []byte("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nAAAA\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n"), 0, "give its public key")
}

// TestStoredCertificates reads endorsement key certificates as programs take
// them out of a TPM: padded, wrapped, one after the other.
func TestStoredCertificates(t *testing.T) {
	der := certificates(t, "leaf.pem")[0]
	other := certificates(t, "intermediate.pem")[0]
	pad := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	stored := func(full bool, der []byte) []byte {
		if full {
			der = append([]byte{0x10, 2}, der...)
		}
		return slices.Concat([]byte{0x10, 1, 0, byte(len(der) >> 8), byte(len(der))}, der)
	}
	for name, c := range map[string]struct {
		data []byte
		keys int
		gaps []string
	}{
		"ff":                     {slices.Concat(der, pad(0xff, 431)), 1, []string{"431 bytes of padding (ff)"}},
		"00":                     {slices.Concat(der, pad(0, 100)), 1, []string{"padding (00)"}},
		"11":                     {slices.Concat(der, pad(0x11, 192)), 1, []string{"padding (11)"}},
		"00 and ff":              {slices.Concat(der, pad(0, 3), pad(0xff, 9)), 1, []string{"padding"}},
		"a newline":              {append(bytes.Clone(der), '\n'), 1, nil},
		"newlines":               {append(bytes.Clone(der), "\r\n\r\n"...), 1, nil},
		"two":                    {slices.Concat(der, other), 2, nil},
		"two, a newline between": {slices.Concat(der, []byte("\n"), other), 2, nil},
		"two, both padded":       {slices.Concat(der, pad(0xff, 20), other, pad(0xff, 7)), 2, []string{"object 2: 7 bytes of padding"}},
		"three, the last cut":    {slices.Concat(der, other, der[:300]), 2, []string{"object 3: truncated DER"}},
		"wrapped":                {stored(false, der), 1, nil},
		"wrapped, 1002":          {stored(true, der), 1, nil},
		"wrapped and padded":     {slices.Concat(stored(true, der), pad(0xff, 300)), 1, []string{"padding (ff)"}},
		"wrapped twice":          {slices.Concat(stored(true, der), stored(false, other)), 2, nil},
		"wrapped, cut":           {stored(true, der)[:400], 0, []string{"truncated TCG certificate"}},
		"junk behind":            {append(bytes.Clone(der), "what is this?"...), 1, []string{"object 2: 13 bytes after its end"}},
		"padded in PEM":          {label("CERTIFICATE", slices.Concat(der, pad(0xff, 5))), 1, []string{"padding"}},
		"two in a block":         {label("CERTIFICATE", slices.Concat(der, other)), 2, nil},
	} {
		keys := wants(t, name, c.data, c.keys, c.gaps...)
		if len(keys) > 0 && !bytes.Equal(keys[0].Leaf().Raw, der) {
			t.Errorf("%s: another certificate", name)
		}
	}
	if _, gaps := read(slices.Concat(der, pad(0xff, 9))); len(gaps) != 1 || !gaps[0].Minor {
		t.Errorf("padding leaves something open: %v", gaps)
	}
	if _, gaps := read(append(bytes.Clone(der), "what is this?"...)); len(gaps) != 1 || gaps[0].Minor {
		t.Errorf("junk leaves nothing open: %v", gaps)
	}
}

// TestRevocationLists passes over lists beside keys, in PEM and in DER.
func TestRevocationLists(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Unix(1, 0), NextUpdate: time.Unix(2, 0)}, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certificates(t, "leaf.pem")[0]
	wants(t, "DER", der, 0, "no key in it, only a revocation list")
	wants(t, "PEM", label("X509 CRL", der), 0, "no key in it, only X509 CRL")
	wants(t, "beside a certificate in DER", append(bytes.Clone(leaf), der...), 1)
	wants(t, "beside a certificate in PEM", append(good(t, "leaf.pem"), label("X509 CRL", der)...), 1)
}
