package check

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// weakKeys reads the public keys of a file in testdata/weak.
func weakKeys(tb testing.TB, name string) (keys []device.Key) {
	tb.Helper()
	rest, err := os.ReadFile(filepath.Join("testdata/weak", name))
	if err != nil {
		tb.Fatal(err)
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		var rsaPublic struct{ N, E *big.Int }
		var spki struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}
		der := block.Bytes
		if key, err := x509.ParsePKIXPublicKey(der); err == nil {
			if _, large := key.(*rsa.PublicKey); !large {
				keys = append(keys, bare(device.RoleFile, key))
				continue
			}
		}
		if _, err := asn1.Unmarshal(der, &spki); err == nil && spki.Key.Bytes != nil {
			der = spki.Key.Bytes
		}
		if _, err := asn1.Unmarshal(der, &rsaPublic); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		keys = append(keys, bare(device.RoleFile, &device.LargeRSA{N: rsaPublic.N, E: rsaPublic.E}))
	}
	if len(keys) == 0 {
		tb.Fatalf("%s: no key", name)
	}
	return keys
}

// publishedNamed is the modulus of that name in testdata/roca/moduli.csv.
func publishedNamed(t *testing.T, name string) *big.Int {
	t.Helper()
	for _, p := range publishedModuli(t) {
		if p.name == name {
			return p.n
		}
	}
	t.Fatalf("no modulus %s", name)
	return nil
}

// weakSamples are those of the ways to factor a modulus, of points and of lists.
func weakSamples(t *testing.T) (all []sample) {
	add := func(check, name string, key device.Key, env Env, want device.Status, code device.ReasonCode) {
		env.Now = now
		all = append(all, sample{check: check, name: name, key: key, env: env, want: want, code: code})
	}

	for _, f := range []struct {
		file  string
		check string
		want  device.Status
		code  device.ReasonCode
	}{
		{"rsa-short-sleeve-2048.pem", "factors", device.Fail, "KEYVET_RSA_FACTORS_PATTERN"},
		{"badkeys-rsapoly128.pem", "factors", device.Fail, "KEYVET_RSA_FACTORS_PATTERN"},
		{"badkeys-rsapoly32.pem", "factors", device.Fail, "KEYVET_RSA_FACTORS_PATTERN"},
		{"badkeys-rsa-pattern.pem", "factors", device.Fail, "KEYVET_RSA_FACTORS_PATTERN"},
		{"badkeys-rsa-vanity.pem", "factors", device.Pass, ""}, // the upper half of a modulus can be chosen
		{"badkeys-rsa-ok.pem", "factors", device.Pass, ""},
		{"rsa-small-private-exponent.pem", "factors", device.Fail, "KEYVET_RSA_PRIVATE_EXPONENT_SMALL"},
		{"badkeys-rsa-small-d.pem", "factors", device.Fail, "KEYVET_RSA_PRIVATE_EXPONENT_SMALL"},
		{"rsa-factor-65537.pem", "factors", device.Fail, "KEYVET_RSA_SMALL_FACTOR"},
		{"rsa-modulus-is-cube.pem", "factors", device.Fail, "KEYVET_RSA_MODULUS_POWER"},
		{"rsa-modulus-is-prime.pem", "factors", device.Fail, "KEYVET_RSA_MODULUS_PRIME"},
		{"badkeys-rsa-nprime.pem", "factors", device.Fail, "KEYVET_RSA_MODULUS_PRIME"},
		{"rsa-exponent-above-modulus.pem", "exponent", device.Fail, "KEYVET_EXPONENT_ABOVE_MODULUS"},
		{"badkeys-rsa-e-larger-n.pem", "exponent", device.Fail, "KEYVET_EXPONENT_ABOVE_MODULUS"},
		{"ec-public-is-generator.pem", "point", device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY"},
	} {
		add(f.check, f.file, weakKeys(t, f.file)[0], Env{}, f.want, f.code)
	}
	// Words that show a pattern, of which no primes are known.
	sleeve := randomOdd(random(12), 2048)
	for i := range 2048 {
		if i >= 128 && i < 1920 && i%128 >= 100 {
			sleeve.SetBit(sleeve, i, 0)
		}
	}
	for smallFactor(t.Context(), target{n: sleeve}) != nil {
		sleeve.Add(sleeve, big.NewInt(2))
	}
	add("factors", "pattern of zeros", rsaKey(sleeve, 65537), Env{}, device.Fail, "KEYVET_RSA_MODULUS_PATTERN")
	add("factors", "ROCA variant", rsaKey(publishedNamed(t, "paranoid-bad_rsa_roca_variant"), 65537), Env{}, device.Fail, "KEYVET_RSA_ROCA_VARIANT")
	for name, weak := range map[string]bool{
		"paranoid-bad_rsa_continued_fractions": true,
		"paranoid-good_rsa1":                   false,
	} {
		if weak {
			add("factors", name, rsaKey(publishedNamed(t, name), 65537), Env{}, device.Fail, "KEYVET_RSA_FACTORS_PATTERN")
		} else {
			add("factors", name, rsaKey(publishedNamed(t, name), 65537), Env{}, device.Pass, "")
		}
	}

	pair := weakKeys(t, "rsa-two-keys-share-a-prime.pem")
	pair[0].ID, pair[1].ID = "one.pem", "two.pem"
	same := pair[0]
	same.ID = "again.pem"
	add("factors", "shares a prime", pair[0], Env{Keys: []device.Key{pair[0], pair[1]}}, device.Fail, "KEYVET_RSA_PRIME_SHARED")
	add("factors", "shares a prime, other", pair[1], Env{Keys: []device.Key{pair[0], pair[1]}}, device.Fail, "KEYVET_RSA_PRIME_SHARED")
	add("factors", "same modulus", pair[0], Env{Keys: []device.Key{pair[0], same}}, device.Pass, "")

	// Points
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	add("point", "Ed25519", bare(device.RoleFile, ed), Env{}, device.Pass, "")
	for _, hexKey := range []string{
		"5866666666666666666666666666666666666666666666666666666666666666", // the generator (RFC 8032, section 5.1)
		"58666666666666666666666666666666666666666666666666666666666666e6", // its negative
		"c9a3f86aae465f0e56513864510f3997561fa2c9e85ea21dc2292309f3cd6022", // twice the generator
	} {
		add("point", hexKey, bare(device.RoleFile, edwards(t, hexKey)), Env{}, device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY")
	}
	for _, hexKey := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		add("point", hexKey, bare(device.RoleFile, edwards(t, hexKey)), Env{}, device.Fail, "KEYVET_POINT_SMALL_ORDER")
	}
	add("point", "Ed25519 out of range", bare(device.RoleFile, edwards(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")), Env{}, device.Fail, "KEYVET_POINT_OUT_OF_RANGE")
	add("point", "Ed25519 off the curve", bare(device.RoleFile, edwards(t, "0200000000000000000000000000000000000000000000000000000000000000")), Env{}, device.Fail, "KEYVET_POINT_OFF_CURVE")
	add("point", "Ed25519 cut", bare(device.RoleFile, ed[:31]), Env{}, device.Fail, "KEYVET_POINT_OUT_OF_RANGE")
	for _, tt := range []struct {
		key  string
		want device.Status
		code device.ReasonCode
	}{
		{"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", device.Pass, ""}, // RFC 7748, section 5.2
		{"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f", device.Pass, ""}, // section 6.1
		{"0000000000000000000000000000000000000000000000000000000000000000", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"0100000000000000000000000000000000000000000000000000000000000000", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", device.Fail, "KEYVET_POINT_SMALL_ORDER"}, // https://cr.yp.to/ecdh.html#validate
		{"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", device.Fail, "KEYVET_POINT_SMALL_ORDER"},
		{"0900000000000000000000000000000000000000000000000000000000000000", device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY"},
		{"2fe57da347cd62431528daac5fbb290730fff684afc4cfc2ed90995f58cb3b74", device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY"}, // of the private key 0
		{"090000", device.Fail, "KEYVET_POINT_OUT_OF_RANGE"},
	} {
		add("point", "X25519 "+tt.key, xKey(t, tt.key), Env{}, tt.want, tt.code)
	}
	null := xKey(t, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
	null.SPKI = slices.Concat([]byte{0x30, 44, 0x30, 7}, null.SPKI[4:9], []byte{5, 0}, null.SPKI[9:])
	add("point", "X25519 with a NULL", null, Env{}, device.Pass, "")
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for _, k := range []int64{1, 2, 3, curve.SmallMultiples} {
			x, y := c.ScalarBaseMult(big.NewInt(k).Bytes()) //nolint:staticcheck // the private key is to be seen
			add("point", c.Params().Name+" multiple", bare(device.RoleFile, ecKey(c, x, y)), Env{}, device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY")
			add("point", c.Params().Name+" negative multiple", bare(device.RoleFile, ecKey(c, x, new(big.Int).Sub(c.Params().P, y))), Env{}, device.Fail, "KEYVET_POINT_KNOWN_PRIVATE_KEY")
		}
		x, y := c.ScalarBaseMult(big.NewInt(123456789).Bytes()) //nolint:staticcheck // see above
		add("point", c.Params().Name, bare(device.RoleFile, ecKey(c, x, y)), Env{}, device.Pass, "")
	}

	// compromised
	leaked := weakList{weak: []crypto.PublicKey{ed}, compromised: true}
	own := weakList{weak: []crypto.PublicKey{ed}, compromised: true, reason: "KEYVET_LEAKED"}
	add("compromised", "listed", bare(device.RoleFile, ed), Env{Blocklist: leaked}, device.Fail, "KEYVET_COMPROMISED_KEY")
	add("compromised", "not listed", weakKeys(t, "badkeys-rsa-ok.pem")[0], Env{Blocklist: own}, device.Pass, "")
	add("compromised", "no such list", bare(device.RoleFile, ed), Env{Blocklist: weakList{}}, device.NotApplicable, "")
	add("compromised", "no list", bare(device.RoleFile, ed), Env{}, device.NotApplicable, "")
	for name, code := range map[string]device.ReasonCode{
		"DO NOT TRUST - AMI Test PK": "KEYVET_LABELLED_TEST_KEY",
		"Do Not Ship PK":             "KEYVET_LABELLED_TEST_KEY",
		"OEM test-PK (2019)":         "KEYVET_NAMED_TEST_KEY",
		"TestRoot":                   "KEYVET_NAMED_TEST_KEY",
		"UEFI code TEST KEY":         "KEYVET_NAMED_TEST_KEY",
	} {
		want := map[device.ReasonCode]device.Status{"KEYVET_LABELLED_TEST_KEY": device.Fail, "KEYVET_NAMED_TEST_KEY": device.Warn}[code]
		add("compromised", name, certified(device.RoleFile, issue(t, name, nil, asCA).cert), Env{Blocklist: own}, want, code)
		add("compromised", "issued by "+name, certified(device.RoleDevice, issue(t, "dev", issue(t, name, nil, asCA)).cert), Env{}, want, code)
	}
	for _, name := range []string{"Test CA", "Latest PK", "Attestation Root", "contest key", "We do trust", "Test Instruments Root CA", "do nottrust", "trust", "Test"} {
		add("compromised", name, certified(device.RoleFile, issue(t, name, nil, asCA).cert), Env{Blocklist: own}, device.Pass, "")
	}
	one := leaked
	one.err = os.ErrClosed
	add("compromised", "listed by one, another list fails", bare(device.RoleFile, ed), Env{Blocklist: one}, device.Fail, "KEYVET_COMPROMISED_KEY")
	add("compromised", "list fails", bare(device.RoleFile, ed), Env{Blocklist: weakList{err: os.ErrClosed}}, device.Undecided, "KEYVET_BLOCKLIST_UNAVAILABLE")

	// age
	day := 24 * time.Hour
	root := issue(t, "Root", nil, asCA)
	aged := func(days time.Duration) device.Key {
		return certified(device.RoleDevice, issue(t, "device", root, valid(now.Add(-days*day), now.Add(9000*day))).cert)
	}
	add("age", "young", aged(364), Env{MaxAge: 365 * day}, device.Pass, "")
	add("age", "old", aged(366), Env{MaxAge: 365 * day}, device.Warn, device.ReasonAge)
	add("age", "not asked", aged(4000), Env{}, device.NotApplicable, "")
	all = append(all, sample{check: "age", name: "no clock", key: aged(366), env: Env{MaxAge: 365 * day, Now: time.Unix(0, 0)}, want: device.Undecided, code: "KEYVET_CLOCK_IMPLAUSIBLE"})
	return all
}

// xKey is a key of X25519.
func xKey(t *testing.T, digits string) device.Key {
	t.Helper()
	public := []byte(edwards(t, digits))
	spki := slices.Concat([]byte{0x30, byte(10 + len(public)), 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 3, byte(1 + len(public)), 0}, public)
	return device.Key{ID: "x", Role: device.RoleFile, Public: &device.OtherKey{Algorithm: x25519}, SPKI: spki}
}

// TestMontgomeryMultiples holds them to each other.
func TestMontgomeryMultiples(t *testing.T) {
	all := montgomeryKnown()
	if len(all.multiples) != curve.SmallMultiples || len(all.ofPrivate) != curve.SmallMultiples {
		t.Fatalf("%d multiples, %d private keys", len(all.multiples), len(all.ofPrivate))
	}
	for i, u := range all.multiples {
		if double := montgomeryDouble(u); 2*i+1 < len(all.multiples) && double.Cmp(all.multiples[2*i+1]) != 0 {
			t.Errorf("twice %d times the generator is %x", i+1, double)
		}
	}
	if got := all.multiples[1].Text(16); got != "20d342d51873f1b7d9750c687d1571148f3f5ced1e350b5c5cae469cdd684efb" {
		t.Errorf("twice the generator is %s", got)
	}
}

func edwards(t *testing.T, digits string) ed25519.PublicKey {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// BenchmarkFactors takes each attack by itself on a modulus that none breaks.
func BenchmarkFactors(b *testing.B) {
	for _, bits := range []int{2048, 4096, 16384} {
		n := randomOdd(random(8), bits)
		for smallFactor(b.Context(), target{n: n}) != nil || largerFactor(b.Context(), target{n: n}) != nil {
			n.Add(n, big.NewInt(2))
		}
		for _, try := range slices.Concat(attacks, costly) {
			_, name, _ := strings.Cut(runtime.FuncForPC(reflect.ValueOf(try).Pointer()).Name(), "check.")
			b.Run(fmt.Sprint(name, "/", bits), func(b *testing.B) {
				t := target{n, big.NewInt(65537)}
				if name == "wiener" {
					t.e = new(big.Int).Sub(n, big.NewInt(1<<40))
				}
				for b.Loop() {
					try(b.Context(), t)
				}
			})
		}
		b.Run(fmt.Sprint("all/", bits), func(b *testing.B) {
			for b.Loop() {
				runFactors(b.Context(), rsaKey(n, 65537), &Env{})
			}
		})
	}
}

// TestGoodKeysPass takes the products of random primes of each size: none may be
// factored or have a pattern. (11,175 of RSA-2048 and 4,950 of RSA-4096 were once
// taken so.)
func TestGoodKeysPass(t *testing.T) {
	for bits, count := range map[int]int{512: 16, 1024: 8} {
		var primes []*big.Int
		for range count {
			p, err := rand.Prime(rand.Reader, bits)
			if err != nil {
				t.Fatal(err)
			}
			primes = append(primes, p)
		}
		for i, p := range primes {
			for _, q := range primes[:i] {
				n := new(big.Int).Mul(p, q)
				for at, try := range attacks {
					if b := try(t.Context(), target{n, new(big.Int).Sub(n, big.NewInt(int64(2*at+2)))}); b != nil && !tooClose(p, q) {
						t.Errorf("%x: %s", n, b.how)
					}
				}
			}
		}
	}
}

// tooClose reports whether Fermat's method finds two primes, as it should.
func tooClose(p, q *big.Int) bool {
	apart := new(big.Int).Sub(p, q)
	return apart.BitLen() < p.BitLen()/2+8
}

// TestShortSleeves makes primes whose words have few random bits, in the ways
// that broken generators might: those bits at the bottom or the top of a word,
// and the highest word as the others are, with its top bits set, or random.
func TestShortSleeves(t *testing.T) {
	random := random(11)
	bits := func(n uint) *big.Int {
		b := make([]byte, n/8)
		random.Read(b)
		return new(big.Int).SetBytes(b)
	}
	for _, tt := range []struct {
		width, few, at uint
		top            string
		proven         bool
	}{
		{32, 8, 0, "", true}, {32, 8, 0, "set", true}, {32, 8, 24, "", true},
		{64, 16, 0, "", true}, {64, 16, 0, "set", true}, {64, 24, 0, "", true}, {64, 16, 48, "", true}, {64, 16, 0, "random", true},
		{128, 32, 0, "", true}, {128, 32, 0, "set", true}, {128, 32, 96, "", true}, {128, 48, 0, "random", false}, {128, 32, 0, "random", true},
		{256, 64, 0, "", true}, {256, 64, 0, "set", true},
	} {
		size := uint(512)
		if tt.width > 64 {
			size = 1024
		}
		prime := func() *big.Int {
			for {
				n := new(big.Int)
				for i := size / tt.width; i > 0; i-- {
					word := new(big.Int).Lsh(bits(tt.few), tt.at)
					if i == size/tt.width && tt.top == "random" {
						word = bits(tt.width)
					}
					n.Lsh(n, tt.width).Add(n, word)
				}
				if tt.top == "set" {
					n.SetBit(n, int(size)-1, 1).SetBit(n, int(size)-2, 1)
				}
				if n = nextPrime(n.SetBit(n, 0, 1)); n.BitLen() > int(size)-24 || tt.top == "" {
					return n
				}
			}
		}
		n := new(big.Int).Mul(prime(), prime())
		found := runFactors(t.Context(), rsaKey(n, 65537), &Env{})[0]
		if found.Status != device.Fail || (found.Proof["factor"] != nil) != tt.proven {
			t.Errorf("%+v: %v %s", tt, found.Status, found.Message)
		}
	}
}

// TestSharedPrimes has two keys with a prime in common, a key that is there
// twice, a CA above a key, and a key that shares both its primes.
func TestSharedPrimes(t *testing.T) {
	pair := weakKeys(t, "rsa-two-keys-share-a-prime.pem")
	good := weakKeys(t, "badkeys-rsa-ok.pem")[0]
	pair[0].ID, pair[1].ID, good.ID = "one.pem", "two.pem", "good.pem"
	again := good
	again.ID = "again.pem"
	n0, _, _ := pair[0].RSA()
	n1, _, _ := pair[1].RSA()
	p := new(big.Int).GCD(nil, nil, n0, n1)
	third := nextPrime(randomOdd(random(9), 1024))
	both := rsaKey(new(big.Int).Mul(p, third), 65537)
	both.ID = "both.pem"
	last := rsaKey(new(big.Int).Mul(third, nextPrime(randomOdd(random(10), 1024))), 65537)
	last.ID = "last.pem"
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Weak"}, PublicKey: both.Public}
	ca.RawSubject, _ = asn1.Marshal(ca.Subject.ToRDNSequence())
	leaf := certified(device.RoleDevice, issue(t, "device", nil).cert, ca)
	leaf.ID = "leaf"

	const shares = "the modulus is factored: it has a prime in common with "
	for name, tt := range map[string]struct {
		keys []device.Key
		want map[string]string // the start of the message by key
	}{
		"nothing":  {nil, nil},
		"one":      {pair[:1], nil},
		"two good": {[]device.Key{pair[0], good}, nil},
		"twice":    {[]device.Key{pair[0], good, again}, nil},
		"a pair":   {[]device.Key{good, pair[0], again, pair[1]}, map[string]string{"one.pem": shares + "two.pem", "two.pem": shares + "one.pem"}},
		"a CA": {[]device.Key{leaf, pair[0]}, map[string]string{
			"one.pem": shares + "the CA CN=Weak", "leaf": "the key of the CA CN=Weak: " + shares + "one.pem",
		}},
		"both primes": {[]device.Key{pair[0], both, last}, map[string]string{
			"one.pem": shares + "both.pem", "last.pem": shares + "both.pem", "both.pem": shares + "one.pem, last.pem",
		}},
	} {
		var numbers []device.Key
		for _, k := range tt.keys {
			numbers = append(numbers, Numbers(k)...)
		}
		found := runSharedPrimes(t.Context(), numbers, &Env{})
		if len(found) != len(tt.want) {
			t.Errorf("%s: %d findings: %+v", name, len(found), found)
		}
		for _, f := range found {
			if want, ok := tt.want[f.Key]; !ok || f.Message != want || f.ReasonCode != primeShared.Code || f.Status != device.Fail {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}
