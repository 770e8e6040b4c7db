package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/ekcert"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// store defines an NV index of those attributes and writes content to it, as an owner may.
func store(t *testing.T, c *TPM, index tpm2.TPMHandle, attributes tpm2.TPMANV, content []byte) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	attributes.OwnerWrite = true
	if _, err := (tpm2.NVDefineSpace{
		AuthHandle: owner,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(max(len(content), 8))}),
	}).Execute(c); err != nil {
		t.Fatal(err)
	}
	for offset := 0; offset < len(content); {
		public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
		if err != nil {
			t.Fatal(err)
		}
		part := content[offset:min(offset+512, len(content))]
		if _, err := (tpm2.NVWrite{
			AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: part}, Offset: uint16(offset),
		}).Execute(c); err != nil {
			t.Fatal(err)
		}
		offset += len(part)
	}
}

// issue makes a certificate for a key. The issuer signs with its own name.
func issue(t *testing.T, name string, public crypto.PublicKey, issuer string, signer *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x4711), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// withoutTime damages a certificate: the start of its validity is none.
func withoutTime(der []byte) []byte { return bytes.Replace(der, []byte("Z"), []byte("?"), 1) }

func TestCertificatesInNV(t *testing.T) { byEveryWay(t, testCertificatesInNV) }

func testCertificatesInNV(t *testing.T, by *way) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	_, keys, _ := c.Inventory()
	rsaEK, p384EK := keyByID(t, keys, "tpm-ek-rsa2048"), keyByID(t, keys, "tpm-ek-p384")

	// As manufacturers do: padded with 0xFF, with intermediate certificates.
	byAuth := tpm2.TPMANV{AuthRead: true, OwnerRead: true, NoDA: true}
	leaf := issue(t, "EK", rsaEK.Public, "intermediate", signer)
	store(t, c, 0x01c00002, byAuth, append(leaf, bytes.Repeat([]byte{0xff}, 1600-len(leaf))...))
	intermediate := issue(t, "intermediate", &signer.PublicKey, "root", signer)
	root := issue(t, "root", &signer.PublicKey, "root", signer)
	store(t, c, 0x01c00100, byAuth, append(bytes.Clone(root), intermediate...))
	store(t, c, 0x01c00101, byAuth, append(issue(t, "other", &signer.PublicKey, "root", signer), 1, 2, 3))
	// One that cannot be parsed.
	damaged := withoutTime(issue(t, "EK", p384EK.Public, "intermediate", signer))
	store(t, c, 0x01c00016, byAuth, damaged)
	// One for a key that was not asked for, readable by the owner alone.
	store(t, c, 0x01c00020, tpm2.TPMANV{OwnerRead: true}, issue(t, "EK", &signer.PublicKey, "elsewhere", signer))
	// A damaged one for a key that was not asked for.
	store(t, c, 0x01c00022, byAuth, damaged)
	// No certificates: a nonce, a template, rubbish, nothing, and what counts towards lockout.
	store(t, c, 0x01c00003, byAuth, make([]byte, 64))
	store(t, c, 0x01c00017, byAuth, tpm2.Marshal(tpm2.ECCEKTemplate))
	store(t, c, 0x01c00014, byAuth, []byte("rubbish!"))
	store(t, c, 0x01c00018, byAuth, nil)
	store(t, c, 0x01c0000a, tpm2.TPMANV{AuthRead: true}, issue(t, "EK", &signer.PublicKey, "elsewhere", signer))

	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 3",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
		"tpm-ek-nv-0x01c00020 EK ECDSA-P256 tpm:nv:0x01c00020 1",
		"tpm-ek-nv-0x01c00022 EK ECDSA-P384 tpm:nv:0x01c00022 0",
		"gap tpm:nv:0x01c0000a minor=true",
		"gap tpm:nv:0x01c00014 minor=true",
		"gap tpm:nv:0x01c00018 minor=true",
		"gap tpm:nv:0x01c00101 minor=true",
	)
	ek := keyByID(t, keys, "tpm-ek-rsa2048")
	for i, want := range [][]byte{leaf, intermediate, root} {
		if i < len(ek.Chain) && !bytes.Equal(ek.Chain[i].Raw, want) {
			t.Errorf("certificate %d of the chain is another", i)
		}
	}
	if why := keyByID(t, keys, "tpm-ek-p384").CertificateError; !strings.HasPrefix(why, "tpm:nv:0x01c00016: ") {
		t.Errorf("certificate error %q", why)
	}
	e, err := c.Quote([32]byte{})
	if err != nil || e.EKCertificate == "" {
		t.Errorf("quote: %+v, %v", e, err)
	}
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := rsp.CapabilityData.Data.TPMProperties(); err != nil || list.TPMProperty[0].Value != 0 {
		t.Errorf("the lockout counter went up: %v, %v", list, err)
	}
}

// A chain is one stream of bytes over its indices. The four issuers are of an EK
// chain as Intel's On-Die CA stores it, and their names are made up.
func TestChainInNV(t *testing.T) {
	var stream []byte
	for _, name := range []string{"odca-chain.part0", "odca-chain.part1"} {
		b, err := os.ReadFile("../cmd/keyvet/testdata/cases/tpm/" + name)
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, b...)
	}
	var ends []int
	var one [][]byte
	for rest := stream; len(rest) > 0; {
		der, next, err := ekcert.Unwrap(rest)
		if err != nil {
			t.Fatal(err)
		}
		one, rest = append(one, der), next
		ends = append(ends, len(stream)-len(rest))
	}
	if len(one) != 4 {
		t.Fatalf("%d certificates", len(one))
	}
	pad := bytes.Repeat([]byte{0xff}, 20)
	wrap := func(tags []byte, der []byte) []byte {
		n := len(tags) + len(der)
		return slices.Concat([]byte{0x10, 0x01, 0, byte(n >> 8), byte(n)}, tags, der)
	}
	full := []byte{0x10, 0x02}
	for _, c := range []struct {
		name  string
		parts [][]byte
		certs int
		gaps  int
	}{
		{"all in one", [][]byte{stream}, 4, 0},
		{"all in one, padded", [][]byte{append(stream[:len(stream):len(stream)], pad...)}, 4, 0},
		{"one an index", one, 4, 0},
		{"one an index, padded", [][]byte{append(one[0][:len(one[0]):len(one[0])], pad...), one[1], append(one[2][:len(one[2]):len(one[2])], make([]byte, 9)...), one[3]}, 4, 0},
		{"split at 1000", [][]byte{stream[:1000], stream[1000:]}, 4, 0},
		{"split in three", [][]byte{stream[:600], stream[600:1200], stream[1200:]}, 4, 0},
		{"one over three", [][]byte{stream[:ends[0]+10], stream[ends[0]+10 : ends[0]+20], stream[ends[0]+20:]}, 4, 0},
		{"split within a header", [][]byte{stream[:ends[1]+1], stream[ends[1]+1:]}, 4, 0},
		{"split behind a header", [][]byte{stream[:ends[1]+3], stream[ends[1]+3:]}, 4, 0},
		{"split at an end", [][]byte{stream[:ends[2]], stream[ends[2]:]}, 4, 0},
		{"the end is missing", [][]byte{stream[:1000]}, 2, 1},
		{"an end is missing, and the others follow", [][]byte{one[0][:len(one[0])-9], one[1], one[2], one[3]}, 3, 1},
		{"no certificate before", [][]byte{[]byte("Intel data"), stream[:1000], stream[1000:]}, 4, 1},
		{"wrapped", [][]byte{wrap(full, one[0]), wrap(full, one[1]), wrap(nil, one[2]), one[3]}, 4, 0},
		{"wrapped in one", [][]byte{slices.Concat(wrap(full, one[0]), wrap(nil, one[1]), pad), one[2], one[3]}, 4, 0},
		{"wrapped and split", [][]byte{wrap(full, one[0])[:200], wrap(full, one[0])[200:], one[1], one[2], one[3]}, 4, 0},
	} {
		var parts []part
		for i, content := range c.parts {
			parts = append(parts, part{index: firstChainIndex + uint32(i), bytes: content})
		}
		inv := inventory{}
		certs := inv.certificatesIn(parts)
		if len(certs) != c.certs || len(inv.gaps) != c.gaps {
			t.Errorf("%s: %d certificates, want %d; gaps %+v, want %d", c.name, len(certs), c.certs, inv.gaps, c.gaps)
		}
		for _, found := range certs {
			if found.err != nil {
				t.Errorf("%s: %v", c.name, found.err)
			}
		}
		for _, g := range inv.gaps {
			if !g.Minor {
				t.Errorf("%s: %+v", c.name, g)
			}
		}
	}
	// In a TPM, and with the key that it is of.
	connection := connect(t, tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	ek, err := os.ReadFile("../cmd/keyvet/testdata/cases/tpm/odca-ek.der")
	if err != nil {
		t.Fatal(err)
	}
	for index, content := range map[tpm2.TPMHandle][]byte{0x01c0000a: ek, firstChainIndex: stream[:1000], firstChainIndex + 1: stream[1000:]} {
		store(t, connection, index, tpm2.TPMANV{AuthRead: true, NoDA: true}, content)
	}
	_, keys, gaps := connection.Inventory()
	if k := keyByID(t, keys, "tpm-ek-nv-0x01c0000a"); len(k.Chain) != 5 {
		t.Errorf("a chain of %d certificates: %v", len(k.Chain), gaps)
	}
}

func TestHoldsCertificate(t *testing.T) {
	for index, want := range map[uint32]bool{
		0x01c00002: true, 0x01c00003: false, 0x01c00004: false, 0x01c0000a: true, 0x01c0000b: false, 0x01c0000c: false,
		0x01c00012: true, 0x01c00013: false, 0x01c00016: true, 0x01c00017: false, 0x01c00100: true, 0x01c00101: true, 0x01c07fff: true,
	} {
		if holdsCertificate(index) != want {
			t.Errorf("%#x: %v", index, !want)
		}
	}
	if _, _, err := ekcert.Unwrap(tpm2.Marshal(tpm2.RSAEKTemplate)); err == nil {
		t.Error("a template was taken for a certificate")
	}
}

// Device identities: a certificate of a persistent key, one of a key that is
// not there, and the issuer's. Each key has its certificate.
func TestDeviceIdentities(t *testing.T) { byEveryWay(t, testDeviceIdentities) }

func testDeviceIdentities(t *testing.T, by *way) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	persist(t, emulator, map[string]tpm2.TPMHandle{"tpm-ak": 0x81020001})
	c := connect(t, emulator.Address())
	_, keys, _ := c.Inventory()
	iak := keyByID(t, keys, "tpm-0x81020001")
	if iak.Role != device.RoleAK {
		t.Errorf("role %s", iak.Role)
	}
	byAuth := tpm2.TPMANV{AuthRead: true, OwnerRead: true, NoDA: true}
	leaf := issueLeaf(t, iak.Public, signer)
	issuer := issue(t, "issuer", &signer.PublicKey, "issuer", signer)
	store(t, c, 0x01c90000, byAuth, append(bytes.Clone(leaf), issuer...))
	store(t, c, 0x01c90001, byAuth, issueLeaf(t, &signer.PublicKey, signer))
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 0",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 2",
		"tpm-0x81020001 AK ECDSA-P256 tpm:0x81020001 2",
		"tpm-nv-0x01c90001 PERSISTENT ECDSA-P256 tpm:nv:0x01c90001 2",
	)
	if e, err := c.Quote([32]byte{}); err != nil || e.EKCertificate != "" {
		t.Errorf("an identity's certificate passes for one of an EK: %+v, %v", e, err)
	}
}

// issueLeaf makes a certificate that is of no CA, by the issuer "issuer".
func issueLeaf(t *testing.T, public crypto.PublicKey, signer *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "identity"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}}, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestOddCertificatesInNV stores certificates that crypto/x509 refuses, or whose
// key it leaves out, as it does that of an RSA key for RSASSA-PSS alone.
func TestOddCertificatesInNV(t *testing.T) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pss, err := os.ReadFile("testdata/roca-key-in-rsassa-pss-cert.der")
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	_, keys, _ := c.Inventory()
	padded := bytes.Replace(issue(t, "EK", keyByID(t, keys, "tpm-ek-p384").Public, "elsewhere", signer), []byte{2, 2, 0x47, 0x11}, []byte{2, 2, 0x00, 0x11}, 1)
	byAuth := tpm2.TPMANV{AuthRead: true, OwnerRead: true, NoDA: true}
	store(t, c, 0x01c00002, byAuth, pss)
	store(t, c, 0x01c00016, byAuth, padded)
	store(t, c, 0x01c90000, byAuth, pss)
	_, keys, _ = c.Inventory()
	if ek := keyByID(t, keys, "tpm-ek-p384"); len(ek.Chain) != 1 || ek.CertificateError != "" || !strings.Contains(ek.Encoding, "serial number") {
		t.Errorf("padded serial number: %+v", ek)
	}
	for _, id := range []string{"tpm-ek-nv-0x01c00002", "tpm-nv-0x01c90000"} {
		if k := keyByID(t, keys, id); k.Algorithm() != "RSA-2050" || len(k.Chain) != 1 || k.Leaf().PublicKey != k.Public {
			t.Errorf("%s: %s, %+v", id, k.Algorithm(), k)
		}
	}
}

// A certificate of the high range has its key made, and one that cannot be
// parsed gives its key where the TPM does not.
func TestUnparsableCertificates(t *testing.T) { byEveryWay(t, testUnparsableCertificates) }

func testUnparsableCertificates(t *testing.T, by *way) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	_, keys, _ := c.Inventory()
	byAuth := tpm2.TPMANV{AuthRead: true, OwnerRead: true, NoDA: true}
	p256 := keyByID(t, keys, "tpm-ek-p256")
	store(t, c, 0x01c0000a, byAuth, withoutTime(issue(t, "EK", p256.Public, "elsewhere", signer)))
	store(t, c, 0x01c00018, byAuth, []byte{0x30, 3, 2, 1, 5}) // no certificate at all
	evict(t, c, 0x81010001)
	switchOff(t, c, uint32(tpm2.TPMRHEndorsement))
	_, keys, gaps := c.Inventory()
	ek := keyByID(t, keys, "tpm-ek-p256")
	if ek.Source != "tpm:nv:0x01c0000a" || !bytes.Equal(ek.SPKI, p256.SPKI) || ek.Chain != nil || !strings.Contains(ek.CertificateError, "no time") {
		t.Errorf("%+v", ek)
	}
	expect(t, brief(keys, gaps),
		"tpm-ek-p256 EK ECDSA-P256 tpm:nv:0x01c0000a 0",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"gap tpm: endorsement hierarchy minor=false", "gap tpm:0x81010016 minor=false",
		"gap tpm-ek-rsa2048 minor=false", "gap tpm-ek-p256 minor=true", "gap tpm-ek-p384 minor=false", "gap tpm-ek-p521 minor=false", "gap tpm-ak minor=false",
		"gap certificate minor=true",
	)
}
