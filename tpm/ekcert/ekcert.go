// Package ekcert reads what is peculiar to endorsement key certificates: how
// manufacturers store them, padded and wrapped, and whom they name as the TPM's maker.
//
// It neither parses certificates (package keyfile does) nor verifies paths.
package ekcert

import (
	"bytes"
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
// TCG_FULL_CERT of tag 0x1002, which not all have (TCG PC Client Specific
// Implementation Specification for Conventional BIOS, section 7.3.2). The error
// wraps ErrNotCertificate.
func Unwrap(b []byte) (der, rest []byte, err error) {
	if len(b) > MaxBytes {
		return nil, nil, fmt.Errorf("%d bytes are too many: %w", len(b), ErrNotCertificate)
	}
	var after []byte // the wrapper
	if n, body, ok := wrapped(b); ok {
		if n > len(body) {
			return nil, nil, fmt.Errorf("wrapper of %d bytes around %d: %w", n, len(body), ErrNotCertificate)
		}
		b, after = body[:n], body[n:]
	}
	var seq asn1.RawValue
	rest, err = asn1.Unmarshal(b, &seq)
	if err != nil || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return nil, nil, ErrNotCertificate
	}
	if rest = unpadded(rest); len(rest) == 0 {
		rest = unpadded(after)
	}
	return seq.FullBytes, rest, nil
}

// wrapped returns how much a wrapper says that it holds of a certificate, and
// what follows its tags.
func wrapped(b []byte) (n int, body []byte, ok bool) {
	if len(b) < 7 || b[0] != 0x10 || b[1] != 0x01 || b[2] != 0 { // type 0: a full certificate
		return 0, nil, false
	}
	n, body = int(binary.BigEndian.Uint16(b[3:])), b[5:]
	if body[0] == 0x10 && body[1] == 0x02 && n >= 2 {
		n, body = n-2, body[2:]
	}
	return n, body, true
}

// unpadded is b without the padding that it begins with: ff and 00, or any one
// byte up to its end. Nuvoton's TPMs are padded with 11.
func unpadded(b []byte) []byte {
	if len(b) > 0 && b[0] != 0x30 && len(bytes.Trim(b, string(b[:1]))) == 0 {
		return nil
	}
	return bytes.TrimLeft(b, "\xff\x00")
}

// IsCut reports whether b may be the beginning of a certificate that goes on in
// another NV index: it is shorter than its header says.
func IsCut(b []byte) bool {
	if n, body, ok := wrapped(b); ok {
		return n > len(body) && n <= MaxBytes
	}
	switch {
	case len(b) == 0 || b[0] != 0x30:
		return false
	case len(b) < 4:
		return true
	}
	return b[1] == 0x82 && len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) && int(binary.BigEndian.Uint16(b[2:])) <= MaxBytes
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

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
			return "", fmt.Errorf("subject alternative name: %w", err)
		}
		for _, n := range names {
			var rdns pkix.RDNSequence
			if n.Class != asn1.ClassContextSpecific || n.Tag != directoryName {
				continue
			}
			if _, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil {
				return "", fmt.Errorf("subject alternative name: %w", err)
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
		return "", fmt.Errorf("%q is not the id of a TPM manufacturer", text)
	}
	if id == "00001014" { // swtpm_localca writes IBM's number of PCI
		return "IBM", nil
	}
	return strings.TrimSpace(string(bytes.Trim(b, "\x00"))), nil
}

const directoryName = 4 // the tag of that general name (RFC 5280, section 4.2.1.6)
