package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// ParseCertificate returns the certificate in der, also one that crypto/x509
// refuses for how it is encoded: key, names, validity, serial number and
// extensions are then read here. Its PublicKey is of a type of
// [device.Key.Public], never nil. odd says what in its encoding breaks DER or RFC
// 5280 and, where it can be read in two ways, how it was; "" if nothing does.
func ParseCertificate(der []byte) (cert *x509.Certificate, odd string, err error) {
	cert, refused := x509.ParseCertificate(der)
	if refused == nil {
		o, err := parseSPKI(cert.RawSubjectPublicKeyInfo)
		if err != nil {
			return nil, "", err
		}
		setKey(cert, o.public)
		if cert.Version == 3 {
			return cert, o.odd, nil
		}
		// crypto/x509 passes over extensions that another version has.
		r := reader{raw: der}
		if own, err := r.certificate(der); err == nil && len(own.Extensions) > 0 {
			r.note("extensions in a certificate of version %d", own.Version)
			return own, r.odd(), nil
		}
		return cert, o.odd, nil
	}
	r := reader{raw: der}
	if cert, err = r.certificate(der); err != nil {
		again, rest, berErr := toDER(der)
		if berErr != nil || len(rest) > 0 || bytes.Equal(again, der) {
			return nil, "", err
		}
		r = reader{raw: der, notes: []string{"read as BER"}}
		if cert, err = r.certificate(again); err != nil {
			return nil, "", err
		}
	}
	// What crypto/x509 refuses for its key alone, the checks of the key judge.
	if _, key := x509.ParsePKIXPublicKey(cert.RawSubjectPublicKeyInfo); key == nil || key.Error() != refused.Error() {
		r.notes = append([]string{strings.TrimPrefix(oneLine(refused.Error()), "x509: ")}, r.notes...)
	}
	return cert, r.odd(), nil
}

// CertificateKey returns the key in a certificate that [ParseCertificate] refuses,
// and its SubjectPublicKeyInfo, found by its place in the certificate alone (RFC
// 5280, section 4.1). The key is nil where no more than its place is understood.
func CertificateKey(der []byte) (key crypto.PublicKey, spki []byte, err error) {
	s := cryptobyte.String(der)
	var outer, tbs cryptobyte.String
	ok := s.ReadASN1(&outer, tag.SEQUENCE) && outer.ReadASN1(&tbs, tag.SEQUENCE)
	if spki, found := certificateKey(tbs); ok && found {
		o, err := parseSPKI(spki)
		if err != nil {
			return nil, spki, nil
		}
		return o.public, spki, nil
	}
	return nil, nil, errors.New("no public key where a certificate has it")
}

// setKey gives cert a key in the types of [device.Key.Public], and the name that
// crypto/x509 has for its algorithm.
func setKey(cert *x509.Certificate, key crypto.PublicKey) {
	cert.PublicKey = key
	switch key := key.(type) {
	case *rsa.PublicKey, *device.LargeRSA:
		cert.PublicKeyAlgorithm = x509.RSA
	case *ecdsa.PublicKey:
		cert.PublicKeyAlgorithm = x509.ECDSA
	case ed25519.PublicKey:
		cert.PublicKeyAlgorithm = x509.Ed25519
	case *device.OtherKey:
		switch {
		case strings.HasPrefix(key.Algorithm, "DSA"):
			cert.PublicKeyAlgorithm = x509.DSA
		case strings.HasPrefix(key.Algorithm, "ECDSA"):
			cert.PublicKeyAlgorithm = x509.ECDSA
		}
	}
}

// reader reads one certificate that crypto/x509 refuses.
type reader struct {
	raw     []byte // the certificate as it is, which is what was signed
	notes   []string
	reduced bool // of two extensions, only what both allow is left
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *reader) odd() string { return oneLine(strings.Join(r.notes, "; ")) }

// certificate reads a Certificate (RFC 5280, section 4.1) of DER structure.
func (r *reader) certificate(der []byte) (*x509.Certificate, error) {
	var outer, tbs, algorithm, inner, issuer, validity, subject, spki cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&outer, tag.SEQUENCE) || !s.Empty() {
		return nil, errors.New("malformed certificate")
	}
	var signature []byte
	if !outer.ReadASN1(&tbs, tag.SEQUENCE) || !outer.ReadASN1Element(&algorithm, tag.SEQUENCE) || !outer.ReadASN1BitStringAsBytes(&signature) {
		return nil, errors.New("malformed certificate, or one without a signature")
	}
	version, serial := new(big.Int), new(big.Int)
	if !tbs.ReadOptionalASN1Integer(version, tag.Tag(0).Constructed().ContextSpecific(), new(big.Int)) || !tbs.ReadASN1Integer(serial) {
		return nil, errors.New("malformed version or serial number")
	}
	if serial.BitLen() > maxSerialBits {
		return nil, fmt.Errorf("serial number of %d bits", serial.BitLen())
	}
	if !tbs.ReadASN1Element(&inner, tag.SEQUENCE) || !tbs.ReadASN1Element(&issuer, tag.SEQUENCE) || !tbs.ReadASN1(&validity, tag.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, tag.SEQUENCE) || !tbs.ReadASN1Element(&spki, tag.SEQUENCE) {
		return nil, errors.New("damaged certificate: algorithm, names, validity or key are malformed")
	}
	extensions, err := r.readExtensions(&tbs)
	if err != nil {
		return nil, err
	}
	cert, err := r.understand(algorithm, extensions)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(inner, algorithm) {
		cert.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
		r.note("two different signature algorithms, so the signature cannot be checked")
	}
	o, err := parseSPKI(spki)
	if err != nil {
		return nil, err
	}
	setKey(cert, o.public)
	if o.odd != "" {
		r.note("%s", o.odd)
	}
	cert.Version = 3 // what is of a version that is not there must keep the rules of the latest
	if version.IsUint64() && version.Uint64() < 2 {
		cert.Version = int(version.Uint64()) + 1
	}
	cert.SerialNumber, cert.Signature = serial, signature
	cert.Raw, cert.RawTBSCertificate = r.raw, signed(r.raw)
	cert.RawIssuer, cert.RawSubject, cert.RawSubjectPublicKeyInfo = issuer, subject, spki
	if cert.Issuer, err = readName(issuer); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if cert.Subject, err = readName(subject); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if cert.NotBefore, err = readTime(&validity); err != nil {
		return nil, fmt.Errorf("start of validity: %w", err)
	}
	if cert.NotAfter, err = readTime(&validity); err != nil {
		return nil, fmt.Errorf("end of validity: %w", err)
	}
	return cert, nil
}

const maxSerialBits = 8 * 1024 // RFC 5280 has 20 bytes

// signed is the TBSCertificate of a certificate, byte for byte: the first
// element in its SEQUENCE.
func signed(raw []byte) []byte {
	_, _, body, err := header(raw)
	if err != nil {
		return nil
	}
	// Of a definite length, what is in it does not matter.
	var tbs cryptobyte.String
	if whole := cryptobyte.String(body); whole.ReadASN1Element(&tbs, tag.SEQUENCE) {
		return tbs
	}
	_, _, rest, err := readBER(body, 0)
	if err != nil {
		return nil
	}
	return body[:len(body)-len(rest)]
}
