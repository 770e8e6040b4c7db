package tpm

import (
	"errors"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// loadable is a TSS2 PRIVATE KEY that the TPM loads ("ASN.1 Specification for
// TPM 2.0 Key Files", section 3).
type loadable struct {
	*keyfile.TPMKey
	rsaParent bool // where the parent is a hierarchy: its RSA-2048 storage key
}

// rsaParentTag is that of rsaParent, which package keyfile does not know:
//
//	rsaParent [5] EXPLICIT BOOLEAN OPTIONAL
const rsaParentTag = asn1.Tag(5 | 0x80 | 0x20)

func parseLoadable(der []byte) (*loadable, error) {
	l := new(loadable)
	der, err := rebuild(der, func(b *cryptobyte.Builder, tag asn1.Tag, element cryptobyte.String) error {
		if tag != rsaParentTag {
			b.AddBytes(element)
			return nil
		}
		var inner cryptobyte.String
		if !element.ReadASN1(&inner, rsaParentTag) || !inner.ReadASN1Boolean(&l.rsaParent) || !inner.Empty() {
			return errors.New("malformed rsaParent")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l.TPMKey, err = keyfile.Parse(der); err != nil {
		return nil, err
	}
	return l, nil
}

func newLoadable(rsp *tpm2.CreateResponse, p parent) *loadable {
	return &loadable{keyfile.NewTPMKey(keyfile.OIDLoadableKey, rsp.OutPublic, rsp.OutPrivate, keyfile.WithParent(p.handle)), p.rsa}
}

func (l *loadable) parent() parent { return parent{l.Parent, l.rsaParent} }

// marshal returns the key in DER. rsaParent stands before the parent, which is
// the first INTEGER.
func (l *loadable) marshal() []byte {
	der := keyfile.Marshal(l.TPMKey)
	if !l.rsaParent {
		return der
	}
	marked, err := rebuild(der, func(b *cryptobyte.Builder, tag asn1.Tag, element cryptobyte.String) error {
		if tag == asn1.INTEGER {
			b.AddASN1(rsaParentTag, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		}
		b.AddBytes(element)
		return nil
	})
	if err != nil {
		panic(err) // of what was just written
	}
	return marked
}

// rebuild returns the SEQUENCE in der, of which add has written each element.
func rebuild(der []byte, add func(b *cryptobyte.Builder, tag asn1.Tag, element cryptobyte.String) error) ([]byte, error) {
	s := cryptobyte.String(der)
	var content, element cryptobyte.String
	if !s.ReadASN1(&content, asn1.SEQUENCE) {
		return nil, errors.New("no sequence")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !content.Empty() {
			var tag asn1.Tag
			if !content.ReadAnyASN1Element(&element, &tag) {
				b.SetError(errors.New("malformed sequence"))
				return
			}
			if err := add(b, tag, element); err != nil {
				b.SetError(err)
				return
			}
		}
	})
	return b.Bytes()
}
