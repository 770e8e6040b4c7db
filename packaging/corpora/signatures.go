package main

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/device/signature"
)

// vectors is a group of Wycheproof's tests of signatures by one key.
type vectors struct {
	Type    string
	SPKI    string `json:"publicKeyDer"`
	Hash    string `json:"sha"`
	Mask    string `json:"mgf"`
	MaskOf  string `json:"mgfSha"`
	SaltLen int    `json:"sLen"`
	Tests   []struct {
		ID                int `json:"tcId"`
		Comment, Msg, Sig string
		Result            string
		Flags             []string
	}
}

// signatures is every test of Wycheproof's of a signature in a form that certificates
// have. Its results are what is right, so that OpenSSL is not asked.
func signatures(dir string, c *comparison) error {
	const corpus = "Wycheproof's signatures"
	names, err := filepath.Glob(filepath.Join(dir, "wycheproof", "testvectors_v1", "*.json"))
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s/wycheproof holds no test vectors: fill it by packaging/corpora/fetch", dir)
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var file struct {
			Groups []vectors `json:"testGroups"`
		}
		if json.Unmarshal(data, &file) != nil {
			continue // of another form
		}
		for _, v := range file.Groups {
			algorithm := v.algorithm()
			spki, err := hex.DecodeString(v.SPKI)
			if algorithm == nil || err != nil {
				continue
			}
			keys, gaps := keyfile.ReadFrom(bytes.NewReader(spki), "spki")
			for _, t := range v.Tests {
				c.object(corpus)
				message, err1 := hex.DecodeString(t.Msg)
				sig, err2 := hex.DecodeString(t.Sig)
				if err1 != nil || err2 != nil {
					return fmt.Errorf("%s: test %d is not in hex", name, t.ID)
				}
				what := fmt.Sprintf("%s %d", filepath.Base(name), t.ID)
				if len(keys) != 1 {
					c.add(corpus, what, fmt.Sprint("does not read the key: ", gaps), t.Result)
					continue
				}
				r := signature.Of(algorithm).Verify(keys[0], message, sig)
				right := t.Result == "acceptable" || r.Outcome == signature.Good && t.Result == "valid" || r.Outcome == signature.Bad && t.Result == "invalid"
				if right {
					continue
				}
				if r.Outcome != signature.Unknown {
					c.alarm()
				}
				ours := [...]string{"Unknown", "Bad", "Good"}[r.Outcome]
				c.add(corpus, what, strings.TrimSpace(ours+" "+r.Why), fmt.Sprintf("%s: %s %v", t.Result, t.Comment, t.Flags))
			}
		}
	}
	return nil
}

// arcs are the last arcs of signature algorithms by hash: those of RSA under PKCS #1
// or NIST, of ECDSA and of DSA.
var arcs = map[string]struct{ rsa, ecdsa, dsa, hash asn1.ObjectIdentifier }{
	"SHA-1":       {pkcs1(5), asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 3}, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}},
	"SHA-224":     {pkcs1(14), x962(1), nist(3, 1), nist(2, 4)},
	"SHA-256":     {pkcs1(11), x962(2), nist(3, 2), nist(2, 1)},
	"SHA-384":     {pkcs1(12), x962(3), nist(3, 3), nist(2, 2)},
	"SHA-512":     {pkcs1(13), x962(4), nist(3, 4), nist(2, 3)},
	"SHA-512/224": {pkcs1(15), nil, nil, nist(2, 5)},
	"SHA-512/256": {pkcs1(16), nil, nil, nist(2, 6)},
	"SHA3-224":    {nist(3, 13), nist(3, 9), nist(3, 5), nist(2, 7)},
	"SHA3-256":    {nist(3, 14), nist(3, 10), nist(3, 6), nist(2, 8)},
	"SHA3-384":    {nist(3, 15), nist(3, 11), nist(3, 7), nist(2, 9)},
	"SHA3-512":    {nist(3, 16), nist(3, 12), nist(3, 8), nist(2, 10)},
}

func pkcs1(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, n} }
func x962(n int) asn1.ObjectIdentifier  { return asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, n} }
func nist(arc, n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, arc, n}
}

// algorithm is the AlgorithmIdentifier of a group; nil if certificates have none for it.
func (v vectors) algorithm() []byte {
	of := arcs[v.Hash]
	var id asn1.ObjectIdentifier
	switch v.Type {
	case "RsassaPkcs1Verify":
		id = of.rsa
	case "EcdsaVerify":
		id = of.ecdsa
	case "DsaVerify":
		id = of.dsa
	case "EddsaVerify":
		if !strings.Contains(v.SPKI, "06032b6570") { // Ed448
			return nil
		}
		id = asn1.ObjectIdentifier{1, 3, 101, 112}
	case "RsassaPssVerify", "RsassaPssWithParametersVerify":
		mask := arcs[v.MaskOf].hash
		if of.hash == nil || mask == nil {
			return nil
		}
		return identifier(pkcs1(10), marshal(struct{ Hash, Mask, Salt asn1.RawValue }{
			tagged(0, identifier(of.hash, asn1.NullBytes)), tagged(1, identifier(pkcs1(8), identifier(mask, asn1.NullBytes))), tagged(2, marshal(v.SaltLen)),
		}))
	}
	if id == nil {
		return nil
	}
	return identifier(id, nil)
}

func tagged(tag int, der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: der}
}

func identifier(id asn1.ObjectIdentifier, params []byte) []byte {
	return marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(marshal(id), params...)})
}

func marshal(value any) []byte {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err) // of values of this file
	}
	return der
}
