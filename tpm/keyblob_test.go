package tpm

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
)

// blobOf is a key just made under the owner hierarchy, whatever key it is.
func blobOf(rsp *tpm2.CreateResponse) *KeyBlob {
	return &KeyBlob{file: newLoadable(rsp, parent{handle: tpm2.TPMRHOwner})}
}

// publicArea is that of a P-256 key.
func publicArea() tpm2.TPMTPublic {
	area := keyTemplates["ecdsa-p256"]
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: bytes.Repeat([]byte{1}, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: bytes.Repeat([]byte{2}, 32)},
	})
	return area
}

// file is a key file of that key.
func file(options ...keyfile.TPMKeyOption) *keyfile.TPMKey {
	return keyfile.NewTPMKey(keyfile.OIDLoadableKey, tpm2.New2B(publicArea()), tpm2.TPM2BPrivate{Buffer: []byte("private")}, options...)
}

func TestParseKeyBlob(t *testing.T) {
	sealed := publicArea()
	sealed.Type = tpm2.TPMAlgKeyedHash
	sealed.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{})
	sealed.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{})
	password := file()
	password.EmptyAuth = false
	good := file().Bytes()
	der, _ := pem.Decode(good)
	wrap := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der})
	}
	for name, c := range map[string]struct {
		text []byte
		want string // of the error; "" for none
	}{
		"good":              {good, ""},
		"persistent parent": {file(keyfile.WithParent(0x81000001)).Bytes(), ""},
		"after others":      {append([]byte("text\n-----BEGIN X-----\nAAAA\n-----END X-----\n"), good...), ""},
		"nothing":           {nil, "no TSS2 PRIVATE KEY"},
		"another key":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der.Bytes}), "no TSS2 PRIVATE KEY"},
		"perhaps password":  {password.Bytes(), ""},
		"policy":            {file(keyfile.WithPolicy([]*keyfile.TPMPolicy{{CommandCode: 1, CommandPolicy: []byte{1}}})).Bytes(), "policy"},
		"authorized policy": {file(keyfile.WithAuthPolicy([]*keyfile.TPMAuthPolicy{{Policy: []*keyfile.TPMPolicy{{CommandCode: 1, CommandPolicy: []byte{1}}}}})).Bytes(), "policy"},
		"to be imported":    {file(keyfile.WithKeytype(keyfile.OIDImportableKey)).Bytes(), "import it"},
		"sealed":            {file(keyfile.WithPubkey(tpm2.New2B(sealed))).Bytes(), "no public key"},
		"null hierarchy":    {file(keyfile.WithParent(tpm2.TPMRHNull)).Bytes(), "parent 0x40000007"},
		"transient parent":  {file(keyfile.WithParent(0x80000000)).Bytes(), "parent 0x80000000"},
		"no public area":    {file(keyfile.WithPubkey(tpm2.TPM2BPublic{})).Bytes(), "public area"},
		"short public area": {file(keyfile.WithPubkey(tpm2.BytesAs2B[tpm2.TPMTPublic]([]byte{0, 0x23, 0}))).Bytes(), "public area"},
		"truncated":         {wrap(der.Bytes[:len(der.Bytes)-1]), "read key blob"},
		"empty":             {wrap(nil), "read key blob"},
	} {
		b, err := ParseKeyBlob(c.text)
		switch {
		case c.want == "" && (err != nil || len(b.SPKI()) == 0):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := ParseKeyBlob(good); err != nil || !bytes.Equal(b.PEM(), good) {
		t.Errorf("it is not written as it was read: %v", err)
	}
}

func FuzzParseKeyBlob(f *testing.F) {
	files, err := filepath.Glob("../device/keyfile/testdata/good/tss2-*.pem")
	if err != nil || len(files) < 3 {
		f.Fatalf("%v: %v", files, err)
	}
	texts := [][]byte{file().Bytes(), file(keyfile.WithDescription("a key")).Bytes(),
		file(keyfile.WithPolicy([]*keyfile.TPMPolicy{{CommandCode: 0x16a, CommandPolicy: []byte("policy")}})).Bytes()}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, text)
	}
	for _, text := range texts {
		block, _ := pem.Decode(text)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		b, err := ParseKeyBlob(pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der}))
		if err != nil {
			return
		}
		if b.Public() == nil {
			t.Fatal("no public key")
		}
		again, err := ParseKeyBlob(b.PEM())
		if err != nil || !bytes.Equal(again.PEM(), b.PEM()) || !bytes.Equal(again.SPKI(), b.SPKI()) {
			t.Fatalf("not the same after writing and reading: %v", err)
		}
	})
}
