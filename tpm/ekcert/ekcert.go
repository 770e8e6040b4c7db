// Package ekcert reads endorsement key certificates as manufacturers store
// them: padded, wrapped, and with X.509 that not every parser takes.
//
// It does not verify certificate paths.
package ekcert

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MaxBytes bounds what is looked at of one NV index: certificates are of one
// to two KB.
const MaxBytes = 16 << 10

// ErrNotCertificate: the bytes do not hold a certificate, such as an NV index
// that is empty, or of another content.
var ErrNotCertificate = errors.New("no certificate in it")

// Unwrap is the DER of the certificate that b, the content of an NV index,
// holds, without wrapper; rest is what follows it and the padding after it.
// TPM 1.2 wraps it in a TCG_PCCLIENT_STORED_CERT of tag 0x1001 around a
// TCG_FULL_CERT of tag 0x1002 (TCG PC Client Specific Implementation
// Specification for Conventional BIOS). The error wraps
// ErrNotCertificate.
func Unwrap(b []byte) (der, rest []byte, err error) {
	if len(b) > MaxBytes {
		return nil, nil, fmt.Errorf("ekcert: %d bytes are too many: %w", len(b), ErrNotCertificate)
	}
	// 1001, type 0 (full certificate), length of what follows, 1002.
	if len(b) >= 7 && b[0] == 0x10 && b[1] == 0x01 && b[2] == 0 && b[5] == 0x10 && b[6] == 0x02 {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n < 2 || 5+n > len(b) {
			return nil, nil, fmt.Errorf("ekcert: wrapper of %d bytes around %d: %w", n, len(b)-5, ErrNotCertificate)
		}
		b = b[7 : 5+n]
	}
	var seq asn1.RawValue
	rest, err = asn1.Unmarshal(b, &seq)
	if err != nil || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return nil, nil, fmt.Errorf("ekcert: %w", ErrNotCertificate)
	}
	return seq.FullBytes, bytes.TrimLeft(rest, "\xff\x00"), nil
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidRSAESOAEP      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
)

// Parse is the certificate in der, as Unwrap gives it. The subject alternative
// name of an EK certificate is critical and holds a directory name with the
// TPM's manufacturer, model and version (TCG EK Credential Profile for TPM
// Family 2.0, section 3.2.9), which crypto/x509 leaves unhandled: it is parsed
// here, and then no longer listed under UnhandledCriticalExtensions. An RSA key
// that is stated as one for RSAES-OAEP, which crypto/x509 does not parse, is
// parsed too. An error says why the certificate is unparsable; its bytes are to
// be kept even so.
func Parse(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("ekcert: %w", err)
	}
	var unhandled []asn1.ObjectIdentifier
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(oidSubjectAltName) || checkAltName(cert) != nil {
			unhandled = append(unhandled, id)
		}
	}
	cert.UnhandledCriticalExtensions = unhandled
	if cert.PublicKey == nil {
		if key := oaepKey(cert.RawSubjectPublicKeyInfo); key != nil {
			cert.PublicKey, cert.PublicKeyAlgorithm = key, x509.RSA
		}
	}
	return cert, nil
}

// oaepKey is the RSA key in a SubjectPublicKeyInfo for RSAES-OAEP, or nil.
func oaepKey(spki []byte) *rsa.PublicKey {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil || !info.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
		return nil
	}
	key, err := x509.ParsePKCS1PublicKey(info.Key.Bytes)
	if err != nil {
		return nil
	}
	return key
}

// PublicKey is the key in a certificate that Parse refuses, and its
// SubjectPublicKeyInfo, found by its place in the certificate alone (RFC 5280,
// section 4.1): manufacturers have issued certificates that break a rule of DER
// elsewhere. The key is nil where only the SubjectPublicKeyInfo is understood.
func PublicKey(der []byte) (key crypto.PublicKey, spki []byte, err error) {
	malformed := errors.New("ekcert: no public key where a certificate has it")
	sequence := func(v asn1.RawValue) bool {
		return v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSequence && v.IsCompound
	}
	var certificate, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(der, &certificate); err != nil || !sequence(certificate) {
		return nil, nil, malformed
	}
	if _, err := asn1.Unmarshal(certificate.Bytes, &tbs); err != nil || !sequence(tbs) {
		return nil, nil, malformed
	}
	rest := tbs.Bytes
	// version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
	for i := 0; i < 7; i++ {
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return nil, nil, malformed
		}
		if i == 0 && field.Class != asn1.ClassContextSpecific {
			i++ // a certificate without version
		}
	}
	if !sequence(field) {
		return nil, nil, malformed
	}
	if key, err := x509.ParsePKIXPublicKey(field.FullBytes); err == nil {
		return key, field.FullBytes, nil
	}
	if key := oaepKey(field.FullBytes); key != nil {
		return key, field.FullBytes, nil
	}
	return nil, field.FullBytes, nil
}

// oidTPMManufacturer is tcg-at-tpmManufacturer (TCG EK Credential Profile for
// TPM Family 2.0, on the subject alternative name).
var oidTPMManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}

// Manufacturer returns who made the TPM, by the subject alternative name of
// its EK certificate, as reports have it: "IFX". It is "" if the certificate
// does not say. The name has "id:" and the TPM_PT_MANUFACTURER in hex.
func Manufacturer(cert *x509.Certificate) (string, error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			return "", fmt.Errorf("ekcert: subject alternative name: %w", err)
		}
		for _, n := range names {
			var rdns pkix.RDNSequence
			if n.Class != asn1.ClassContextSpecific || n.Tag != directoryName {
				continue
			}
			if _, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil {
				return "", fmt.Errorf("ekcert: subject alternative name: %w", err)
			}
			for _, rdn := range rdns {
				for _, a := range rdn {
					if a.Type.Equal(oidTPMManufacturer) {
						return manufacturer(a.Value)
					}
				}
			}
		}
	}
	return "", nil
}

func manufacturer(value any) (string, error) {
	text, _ := value.(string)
	id, ok := strings.CutPrefix(text, "id:")
	b, err := hex.DecodeString(id)
	if !ok || err != nil || len(b) != 4 {
		return "", fmt.Errorf("ekcert: %q is not the id of a TPM manufacturer", text)
	}
	if id == "00001014" { // swtpm_localca writes IBM's number of PCI
		return "IBM", nil
	}
	return strings.TrimSpace(string(bytes.Trim(b, "\x00"))), nil
}

const directoryName = 4 // the tag of that general name (RFC 5280, section 4.2.1.6)

// checkAltName reports whether the subject alternative name is well-formed: one
// or more general names (RFC 5280, section 4.2.1.6).
func checkAltName(cert *x509.Certificate) error {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) != 0 || len(names) == 0 {
			return errors.New("ekcert: malformed subject alternative name")
		}
		for _, n := range names {
			if n.Class != asn1.ClassContextSpecific || n.Tag > 8 {
				return errors.New("ekcert: malformed subject alternative name")
			}
			var rdns asn1.RawValue
			if n.Tag == directoryName {
				if rest, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil || len(rest) != 0 || rdns.Tag != asn1.TagSequence {
					return errors.New("ekcert: malformed directory name")
				}
			}
		}
	}
	return nil
}
