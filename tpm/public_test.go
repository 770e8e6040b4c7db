package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func rsaArea(n []byte, exponent uint32) *tpm2.TPMTPublic {
	return &tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(8 * len(n)), Exponent: exponent}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: n}),
	}
}

func eccArea(curve tpm2.TPMECCCurve, x, y []byte) *tpm2.TPMTPublic {
	return &tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}}),
	}
}

func TestRSAPublicKey(t *testing.T) {
	n := bytes.Repeat([]byte{0xc5}, 256)
	for _, c := range []struct {
		exponent uint32
		want     uint64
	}{{0, 65537}, {1, 1}, {2, 2}, {3, 3}, {65537, 65537}, {1<<31 - 1, 1<<31 - 1}, {1 << 31, 1 << 31}, {1<<32 - 1, 1<<32 - 1}} {
		public, spki, err := publicKey(rsaArea(n, c.exponent))
		if err != nil {
			t.Fatal(err)
		}
		gotN, gotE, ok := device.Key{Public: public}.RSA()
		if !ok || gotE.Uint64() != c.want || !bytes.Equal(gotN.Bytes(), n) {
			t.Errorf("exponent %d: %v", c.exponent, public)
		}
		if _, small := public.(*rsa.PublicKey); small != (c.want < 1<<31) {
			t.Errorf("exponent %d: a %T", c.exponent, public)
		}
		if key, ok := public.(*rsa.PublicKey); ok {
			if want, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(want, spki) {
				t.Errorf("exponent %d: SPKI %x, %v", c.exponent, spki, err)
			}
		}
		if !bytes.Contains(spki, n) {
			t.Errorf("exponent %d: SPKI %x", c.exponent, spki)
		}
	}
}

func TestECCPublicKey(t *testing.T) {
	for id, known := range curves {
		p := known.curve.Params()
		// The base point, and one that is off the curve.
		for _, y := range []*big.Int{p.Gy, new(big.Int).Add(p.Gy, big.NewInt(1))} {
			public, spki, err := publicKey(eccArea(id, p.Gx.Bytes(), y.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			key := public.(*ecdsa.PublicKey)
			if key.X.Cmp(p.Gx) != 0 || key.Y.Cmp(y) != 0 || key.Curve != known.curve {
				t.Errorf("%s: another point", p.Name)
			}
			point := append(p.Gx.FillBytes(make([]byte, (p.BitSize+7)/8)), y.FillBytes(make([]byte, (p.BitSize+7)/8))...)
			if !bytes.HasSuffix(spki, append([]byte{4}, point...)) {
				t.Errorf("%s: SPKI %x", p.Name, spki)
			}
			if y == p.Gy {
				if want, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(want, spki) {
					t.Errorf("%s: SPKI %x, want %x, %v", p.Name, spki, want, err)
				}
			}
		}
	}
	// Neither point nor coordinate of that curve, and nothing at all.
	large := bytes.Repeat([]byte{0xff}, 33)
	if public, spki, err := publicKey(eccArea(tpm2.TPMECCNistP256, large, large)); err != nil || spki != nil || public.(*ecdsa.PublicKey).X.BitLen() != 264 {
		t.Errorf("oversize point: %v %x %v", public, spki, err)
	}
	if public, spki, err := publicKey(eccArea(tpm2.TPMECCNistP256, nil, nil)); err != nil || len(spki) != 91 || public.(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Errorf("point at infinity: %v %x %v", public, spki, err)
	}
	for id, want := range map[tpm2.TPMECCCurve]string{tpm2.TPMECCBNP256: "ECDSA-BN_P256", tpm2.TPMECCSM2P256: "ECDSA-SM2", 0x7777: "ECDSA-TPM-curve-0x7777"} {
		if public, spki, err := publicKey(eccArea(id, nil, nil)); err != nil || spki != nil || public.(*device.OtherKey).Algorithm != want {
			t.Errorf("curve %#x: %v, %v", id, public, err)
		}
	}
}

func TestNoPublicKey(t *testing.T) {
	for _, kind := range []tpm2.TPMAlgID{tpm2.TPMAlgKeyedHash, tpm2.TPMAlgSymCipher} {
		if _, _, err := publicKey(&tpm2.TPMTPublic{Type: kind}); !errors.Is(err, errNoPublicKey) {
			t.Errorf("%#x: %v", kind, err)
		}
	}
	for _, area := range []*tpm2.TPMTPublic{{}, {Type: 0x7fff}, {Type: tpm2.TPMAlgRSA}, {Type: tpm2.TPMAlgECC}} {
		if _, _, err := publicKey(area); err == nil || errors.Is(err, errNoPublicKey) {
			t.Errorf("type %#x: %v", area.Type, err)
		}
	}
}

func FuzzPublicKey(f *testing.F) {
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCSRKTemplate))
	f.Add(tpm2.Marshal(*rsaArea(bytes.Repeat([]byte{0xff}, 256), 3)))
	f.Add(tpm2.Marshal(*eccArea(tpm2.TPMECCNistP384, []byte{1}, []byte{2})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		area, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
		if err != nil {
			return
		}
		public, spki, err := publicKey(area)
		if (err == nil) != (public != nil) {
			t.Fatalf("%v, %v", public, err)
		}
		k := device.Key{Public: public}
		if name := k.Algorithm(); err == nil && (name == "" || name == "unknown") {
			t.Fatalf("%T has the name %q", public, name)
		}
		if len(spki) > 0 && keyBits(spki) == nil {
			t.Fatalf("SPKI %x holds no key", spki)
		}
	})
}

func TestWords(t *testing.T) {
	for want, values := range map[string][]uint32{
		"IFX": {0x49465800}, "STM": {0x53544d20}, "SLB9670": {0x534c4239, 0x36373000, 0, 0}, "": {0},
		"SW   TPM": {0x53572020, 0x2054504d}, "a?b?": {0x610a62ff},
	} {
		if got := words(values...); got != want {
			t.Errorf("%x: %q, want %q", values, got, want)
		}
	}
}

// A public area that is not the one the TPM names is no key: it was changed on
// its way, or is of another object.
func TestNames(t *testing.T) { byEveryWay(t, testNames) }

func testNames(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		at := 0 // of the TPM2B_PUBLIC
		switch binary.BigEndian.Uint32(command[6:]) {
		case 0x173: // TPM2_ReadPublic
			at = headerLen
		case 0x131: // TPM2_CreatePrimary
			at = headerLen + 8 // handle, size of the parameters
		}
		if at > 0 && len(response) > at+2 {
			response[at+1+int(binary.BigEndian.Uint16(response[at:]))] ^= 1
		}
		return response
	})
	c := connect(t, proxy.Address())
	_, keys, gaps := c.Inventory()
	told := 0
	for _, g := range gaps {
		if strings.Contains(g.Why, "not the one that the TPM names") {
			told++
		}
	}
	for _, k := range keys {
		if !strings.HasPrefix(k.Source, "tpm:nv:") { // from its certificate alone
			t.Errorf("%s from %s", k.ID, k.Source)
		}
	}
	if len(keys) == 0 || told < 4 {
		t.Errorf("%v", brief(keys, gaps))
	}
	if _, err := c.CreateKey("ecdsa-p256"); err == nil || !strings.Contains(err.Error(), "not the one that the TPM names") {
		t.Errorf("under a parent that was changed: %v", err)
	}
	c.Close() // an emulator serves one client at a time
	direct := connect(t, emulator.Address())
	for _, h := range allHandles(t, direct) {
		if h>>24 == 0x80 {
			t.Errorf("%#x stays in the TPM", h)
		}
	}
}

// A key is named the same, whether the TPM or a file shows it.
func TestNamesOfCurves(t *testing.T) {
	for id := range uint16(0x50) {
		area := eccArea(tpm2.TPMECCCurve(id), []byte{1}, []byte{2})
		public, _, err := publicKey(area)
		if err != nil {
			t.Fatal(err)
		}
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(tpm2.Marshal(*area)), "key.pub")
		if len(keys) != 1 {
			t.Fatalf("curve %#x: %v", id, gaps)
		}
		if want := (device.Key{Public: public}).Algorithm(); keys[0].Algorithm() != want {
			t.Errorf("curve %#x: %s in a file, %s in the TPM", id, keys[0].Algorithm(), want)
		}
	}
}
