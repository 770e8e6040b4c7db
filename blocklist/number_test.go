package blocklist

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"testing"

	"github.com/keyvet/keyvet/device"
)

func readCertificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("%s: no PEM", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fromBase64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The public halves of keys that everybody has.
const (
	vagrantRSA     = "AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ=="
	vagrantEd25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y"
	arrayDSA       = "AAAAB3NzaC1kc3MAAACBAJTDsX+8olPZeyr58g9XE0L8PKT5030NZBPlE7np4hBqx36HoWarWq1Csn8M57dWN9StKbs03k2ggY6sYJK5AW2EWar70um3pYjKQHiZq7mITmitsozFN/K7wu2e2iKRgquUwH5SuYoOJ29n7uhaILXiKZP4/H/dDudqPRSY6tJPAAAAFQDtuWH90mDbU2L/Ms2lfl/cja/wHwAAAIAMBwSHZt2ysOHCFe1WLUvdwVDHUqk3QHTskuuAnMlwMtSvCaUxSatdHahsMZ9VCHjoQUx6j+TcgRLDbMlRLnwUlb6wpniehLBFk+qakGcREqks5NxYzFTJXwROzP72jPvVgQyOZHWq81gCild/ljL7hmrduCqYwxDIz4o7U92UKQAAAIBmhSl9CVPgVMv1xO8DAHVhM1huIIK8mNFrzMJz+JXzBx81ms1kWSeQOC/nraaXFTBlqiQsvB8tzr4xZdbaI/QzVLKNAF5C8BJ4ScNlTIx1aZJwyMil8Nzb+0YAsw5Ja+bEZZvEVlAYnd10qRWrPeEY1txLMmX3wDa+JvJL7fmuBg=="
	mcubootP256    = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKstAPOj+7VukSZWhqR2u6Nu+GTfNFPsvJFc35ZU5iNmUudZa69fN1TCK1v5IskpqgQ7l8H2LaDTMOmr8U476wQ=="
	mcubootX25519  = "MCowBQYDK2VuAyEApnrfU1lvc6n45HmsC6ogwvmJkv+Wltehx3CxYYsqD3A="
)

// sshStrings are the strings of an SSH public key (RFC 4253, section 6.6).
func sshStrings(t *testing.T, text string) (all [][]byte) {
	t.Helper()
	for b := fromBase64(t, text); len(b) > 0; {
		n := binary.BigEndian.Uint32(b)
		all = append(all, b[4:4+n])
		b = b[4+n:]
	}
	return all
}

// infoOf encodes a SubjectPublicKeyInfo.
func infoOf(t *testing.T, oid asn1.ObjectIdentifier, params any, key []byte) []byte {
	t.Helper()
	p, err := asn1.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: p}}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestSameNumber looks up published keys in other clothes: with another
// exponent, encoding, parameters, or as one of which only the SPKI is understood.
func TestSameNumber(t *testing.T) {
	vagrant := new(big.Int).SetBytes(sshStrings(t, vagrantRSA)[2])
	edwards := sshStrings(t, vagrantEd25519)[1]
	dsa := sshStrings(t, arrayDSA)
	p256 := fromBase64(t, mcubootP256)
	point := p256[len(p256)-64:]
	x, y := new(big.Int).SetBytes(point[:32]), new(big.Int).SetBytes(point[32:])
	other := &device.OtherKey{Algorithm: "other"}
	curve := asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	yDER, err := asn1.Marshal(new(big.Int).SetBytes(dsa[4]))
	if err != nil {
		t.Fatal(err)
	}
	rsaDER, err := asn1.Marshal(struct{ N, E *big.Int }{vagrant, big.NewInt(3)})
	if err != nil {
		t.Fatal(err)
	}
	const vagrantName, edName, dsaName = "keys/vagrant", "keys/vagrant.key.ed25519", "authorized/array-networks-vapv-vxag.key"
	l := embeddedList(t)
	for _, tt := range []struct {
		name string
		key  device.Key
		want string
	}{
		{"RSA", device.Key{Public: &rsa.PublicKey{N: vagrant, E: 35}}, vagrantName},
		{"RSA, e = 65537", device.Key{Public: &rsa.PublicKey{N: vagrant, E: 65537}}, vagrantName},
		{"RSA, a large e", device.Key{Public: &device.LargeRSA{N: vagrant, E: new(big.Int).Lsh(big.NewInt(1), 40)}}, vagrantName},
		{"RSA, of an SPKI", device.Key{Public: other, SPKI: infoOf(t, oidRSA, asn1.NullRawValue, rsaDER)}, vagrantName},
		{"Ed25519", device.Key{Public: ed25519.PublicKey(edwards)}, edName},
		{"Ed25519, of an SPKI", device.Key{Public: other, SPKI: infoOf(t, asn1.ObjectIdentifier{1, 3, 101, 112}, asn1.NullRawValue, edwards)}, edName},
		{"DSA", device.Key{Public: other, SPKI: infoOf(t, oidDSA, asn1.NullRawValue, yDER)}, dsaName},
		{"P-256", device.Key{Public: ecPoint(x, y)}, "root-ec-p256-pkcs8.pem"},
		{"P-256, the other y", device.Key{Public: ecPoint(x, big.NewInt(1))}, "root-ec-p256-pkcs8.pem"},
		{"P-256, compressed", device.Key{Public: other, SPKI: infoOf(t, oidEC, curve, append([]byte{3}, point[:32]...))}, "root-ec-p256-pkcs8.pem"},
		{"P-256, hybrid", device.Key{Public: other, SPKI: infoOf(t, oidEC, curve, append([]byte{7}, point...))}, "root-ec-p256-pkcs8.pem"},
		{"X25519", device.Key{Public: other, SPKI: fromBase64(t, mcubootX25519)}, "enc-x25519-priv.pem"},
		{"X25519, with a NULL", device.Key{Public: other, SPKI: infoOf(t, asn1.ObjectIdentifier{1, 3, 101, 110}, asn1.NullRawValue, fromBase64(t, mcubootX25519)[12:])}, "enc-x25519-priv.pem"},
		{"not a key", device.Key{Public: other, SPKI: []byte{0x30, 0}}, ""},
		{"another modulus", device.Key{Public: &rsa.PublicKey{N: new(big.Int).Add(vagrant, big.NewInt(2)), E: 35}}, ""},
	} {
		got, asked, err := l.Compromised(tt.key)
		if err != nil || !asked || len(got) > 1 || len(got) == 0 && tt.want != "" || len(got) == 1 && got[0].Name != tt.want {
			t.Errorf("%s: %+v, asked %v, %v; want %q", tt.name, got, asked, err, tt.want)
		}
	}
}

// forms are those in which openssl writes the public key of a curve, the first of
// which is the usual one; the keys were made for this test.
var forms = map[string]map[string]string{
	"secp256k1": {
		"usual":                            "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEYHh+73Yy0sFg5lXOsf8+1Rl4k0nbXpnbQATpAeDalEoPc55S3KUN0x7FHRn/ize/tla2PYE23oNuI2mwKVoNCw==",
		"compressed":                       "MDYwEAYHKoZIzj0CAQYFK4EEAAoDIgADYHh+73Yy0sFg5lXOsf8+1Rl4k0nbXpnbQATpAeDalEo=",
		"hybrid":                           "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAHYHh+73Yy0sFg5lXOsf8+1Rl4k0nbXpnbQATpAeDalEoPc55S3KUN0x7FHRn/ize/tla2PYE23oNuI2mwKVoNCw==",
		"numbers of the curve":             "MIIBMzCB7AYHKoZIzj0CATCB4AIBATAsBgcqhkjOPQEBAiEA/////////////////////////////////////v///C8wRAQgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHBEEEeb5mfvncu6xVoGKVzocLBwKb/NstzijZWfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuAIhAP////////////////////66rtzmr0igO7/SXozQNkFBAgEBA0IABGB4fu92MtLBYOZVzrH/PtUZeJNJ216Z20AE6QHg2pRKD3OeUtylDdMexR0Z/4s3v7ZWtj2BNt6DbiNpsClaDQs=",
		"numbers of the curve, compressed": "MIHzMIHMBgcqhkjOPQIBMIHAAgEBMCwGByqGSM49AQECIQD////////////////////////////////////+///8LzBEBCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcEIQJ5vmZ++dy7rFWgYpXOhwsHApv82y3OKNlZ8oFbFvgXmAIhAP////////////////////66rtzmr0igO7/SXozQNkFBAgEBAyIAA2B4fu92MtLBYOZVzrH/PtUZeJNJ216Z20AE6QHg2pRK",
	},
	"brainpoolP256r1": {
		"usual":                            "MFowFAYHKoZIzj0CAQYJKyQDAwIIAQEHA0IABE31Bk2rYXxHf/LgsdyVdJfV8u51KjnLH/fBT0cO28tAYp9GVUNiCDyTuUZjxjFq8BDsVKyHWahAG3rDlzqPnfk=",
		"compressed":                       "MDowFAYHKoZIzj0CAQYJKyQDAwIIAQEHAyIAA031Bk2rYXxHf/LgsdyVdJfV8u51KjnLH/fBT0cO28tA",
		"hybrid":                           "MFowFAYHKoZIzj0CAQYJKyQDAwIIAQEHA0IAB031Bk2rYXxHf/LgsdyVdJfV8u51KjnLH/fBT0cO28tAYp9GVUNiCDyTuUZjxjFq8BDsVKyHWahAG3rDlzqPnfk=",
		"numbers of the curve":             "MIIBMzCB7AYHKoZIzj0CATCB4AIBATAsBgcqhkjOPQEBAiEAqftX26Huqbw+ZgqQnYONcm479iPVJiAoIBNIHR9uU3cwRAQgfVoJdfwsMFfu9nUwQXr/5/uAVcEm3Fxs6UpLRPMwtdkEICbcXGzpSktE8zC12bvXfL+VhBYpXPfhzmvM3Bj/jAe2BEEEi9Kuuct+V8ssS0gv/IG3r7neJ+HjvSPCOkRTvZrOMmJUfvg1w9rE/Zf4RhoUYR3JwndFEy3tjlRcHVTHLwRplwIhAKn7V9uh7qm8PmYKkJ2DjXGMOXqjtWGm95AeDoKXSFanAgEBA0IABE31Bk2rYXxHf/LgsdyVdJfV8u51KjnLH/fBT0cO28tAYp9GVUNiCDyTuUZjxjFq8BDsVKyHWahAG3rDlzqPnfk=",
		"numbers of the curve, compressed": "MIHzMIHMBgcqhkjOPQIBMIHAAgEBMCwGByqGSM49AQECIQCp+1fboe6pvD5mCpCdg41ybjv2I9UmICggE0gdH25TdzBEBCB9Wgl1/CwwV+72dTBBev/n+4BVwSbcXGzpSktE8zC12QQgJtxcbOlKS0TzMLXZu9d8v5WEFilc9+HOa8zcGP+MB7YEIQOL0q65y35XyyxLSC/8gbevud4n4eO9I8I6RFO9ms4yYgIhAKn7V9uh7qm8PmYKkJ2DjXGMOXqjtWGm95AeDoKXSFanAgEBAyIAA031Bk2rYXxHf/LgsdyVdJfV8u51KjnLH/fBT0cO28tA",
	},
}

// TestUsualForm looks up keys that are listed by their SubjectPublicKeyInfo alone,
// on curves that package elliptic does not have, in other forms.
func TestUsualForm(t *testing.T) {
	other := &device.OtherKey{Algorithm: "other"}
	sum := sha256.Sum256(fromBase64(t, forms["secp256k1"]["usual"]))
	file, err := Build([]Source{{Fingerprints: [][]byte{sum[:]}, Set: Set{Name: "compromised", Kind: Compromised, Title: "ours", Reason: "KEYVET_COMPROMISED_KEY"}}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := parse(file, "ours")
	if err != nil {
		t.Fatal(err)
	}
	for name, of := range forms {
		usual := fromBase64(t, of["usual"])
		for form, text := range of {
			spki := fromBase64(t, text)
			if got := usualSPKI(spki); !bytes.Equal(got, usual) {
				t.Errorf("%s, %s: got %x, want %x", name, form, got, usual)
			}
			entries, _, err := l.Compromised(device.Key{Public: other, SPKI: spki})
			if err != nil || (len(entries) == 1) != (name == "secp256k1") {
				t.Errorf("%s, %s: %+v, %v", name, form, entries, err)
			}
		}
		// A point that is not on the curve has no usual form.
		usual[len(usual)-1] ^= 1
		if got := usualSPKI(usual); got != nil {
			t.Errorf("%s, off the curve: %x", name, got)
		}
	}
}

// A key of which only the algorithm is known is not looked up.
func TestNoPublicHalf(t *testing.T) {
	for _, key := range []device.Key{{}, {Public: &device.OtherKey{Algorithm: "Ed448"}}, {Public: &rsa.PublicKey{}}} {
		if entries, asked, err := embeddedList(t).Compromised(key); entries != nil || asked || err != nil {
			t.Errorf("%+v: %v, asked %t, %v", key, entries, asked, err)
		}
	}
}

// ecPoint is on P-256, or meant to be.
func ecPoint(x, y *big.Int) *ecdsa.PublicKey {
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y} //nolint:staticcheck // need not be a point
}

func FuzzSPKINumber(f *testing.F) {
	b, err := base64.StdEncoding.DecodeString(mcubootP256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if n := spkiNumber(der); len(n) > len(der) || len(n) > 0 && n[0] == 0 {
			t.Errorf("%x of %x", n, der)
		}
	})
}
