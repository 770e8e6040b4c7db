package keyfile

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

var errIndefinite = errors.New("BER of indefinite length, not DER")

const encrypted = "encrypted private key: it is not decrypted here; give its certificate or public key"

// outer returns the SEQUENCE that der begins with, and what follows it.
func outer(der []byte) (element, rest []byte, err error) {
	if len(der) < 2 || der[0] != 0x30 {
		return nil, nil, errors.New("not DER: no SEQUENCE")
	}
	header, length := 2, int64(der[1])
	if length == 0x80 {
		return nil, nil, errIndefinite
	}
	if length > 0x80 {
		n := int(length & 0x7f)
		if n > 4 {
			return nil, nil, errors.New("not DER: malformed length")
		}
		header += n
		if len(der) < header {
			return nil, nil, errors.New("truncated DER: it ends within its header")
		}
		length = 0
		for _, b := range der[2:header] {
			length = length<<8 | int64(b)
		}
	}
	if total := int64(header) + length; int64(len(der)) < total {
		return nil, nil, fmt.Errorf("truncated DER: %d bytes of %d", len(der), total)
	}
	end := header + int(length)
	return der[:end], der[end:], nil
}

// parseDER parses DER, and BER if that is what it takes.
func parseDER(der []byte) (object, error) {
	o, err := parseStructure(der, der)
	if err == nil {
		return o, nil
	}
	again, rest, berErr := toDER(der)
	if berErr != nil || len(rest) > 0 || bytes.Equal(again, der) {
		return object{}, err
	}
	if o, err = parseStructure(again, der); err == nil && o.odd == "" {
		o.odd = "BER that is not DER"
	}
	return o, err
}

// parseStructure tells the structures apart by the tags of their elements: S for a
// SEQUENCE, I INTEGER, O OCTET STRING, B BIT STRING, D OID, 0 to 3 context tags.
// raw is der as it was found.
func parseStructure(der, raw []byte) (object, error) {
	der, rest, err := outer(der)
	if err != nil {
		return object{}, err
	}
	if len(rest) > 0 {
		return object{}, fmt.Errorf("DER with %d bytes after its end", len(rest))
	}
	body, tags, err := elements(der)
	if err != nil {
		return object{}, err
	}
	switch {
	case tags == "SSB":
		return parseSigned(raw, body)
	case tags == "SB":
		return parseSPKI(der)
	case tags == "II":
		a, err := rsaAlgorithm()
		if err != nil {
			return object{}, err
		}
		return buildSPKI(a, der)
	case tags == "IIIIII": // DSA's traditional form: version, p, q, g, y, x
		return parseDSAPrivate(body)
	case strings.HasPrefix(tags, "III"):
		return parsePKCS1Private(body)
	case strings.HasPrefix(tags, "ISO"):
		return parsePKCS8(body)
	case strings.HasPrefix(tags, "IO"):
		return parseSEC1(body, nil)
	case tags == "SO":
		return object{}, errors.New(encrypted)
	case tags == "IS" || tags == "ISS":
		return object{}, errors.New("PKCS#12: export certificates and key as PEM")
	case strings.HasPrefix(tags, "D"):
		return parseTyped(body)
	}
	return object{}, errors.New("DER that is no certificate, request or key")
}

// elements lists the tags of the first elements of the SEQUENCE der; body is
// what is in it.
func elements(der []byte) (body cryptobyte.String, tags string, err error) {
	s := cryptobyte.String(der)
	if !s.ReadASN1(&body, tag.SEQUENCE) {
		return nil, "", errors.New("not DER: malformed length")
	}
	letters := map[tag.Tag]byte{tag.SEQUENCE: 'S', tag.INTEGER: 'I', tag.OCTET_STRING: 'O', tag.BIT_STRING: 'B', tag.OBJECT_IDENTIFIER: 'D'}
	var list []byte
	for s := body; !s.Empty() && len(list) < 16; {
		var element cryptobyte.String
		var t tag.Tag
		if !s.ReadAnyASN1(&element, &t) {
			return nil, "", fmt.Errorf("damaged DER: element %d is cut short or malformed", len(list)+1)
		}
		letter, ok := letters[t]
		if !ok {
			letter = '?'
			if n := t &^ tag.Tag(0xe0); t&0x80 != 0 && n < 10 {
				letter = '0' + byte(n)
			}
		}
		list = append(list, letter)
	}
	return body, string(list), nil
}

// parseSigned reads a Certificate (RFC 5280, section 4.1) or a
// CertificationRequest (RFC 2986, section 4). The key is taken out by hand,
// since crypto/x509 refuses bad keys together with what they came in.
func parseSigned(raw []byte, body cryptobyte.String) (object, error) {
	var tbs cryptobyte.String
	body.ReadASN1(&tbs, tag.SEQUENCE)
	if !tbs.PeekASN1Tag(tag.INTEGER) && !tbs.PeekASN1Tag(tag.Tag(0).Constructed().ContextSpecific()) {
		return object{}, errors.New("DER that is no certificate, request or key")
	}
	if spki, ok := requestKey(tbs); ok {
		return parseRequest(raw, spki)
	}
	spki, ok := certificateKey(tbs)
	if !ok {
		return object{}, errors.New("damaged certificate, or a revocation list: no public key where a certificate has it")
	}
	o, err := parseSPKI(spki)
	if err != nil {
		return object{}, fmt.Errorf("certificate: %w", err)
	}
	o.certificate = true
	cert, odd, err := ParseCertificate(raw)
	if err != nil {
		o.x509Error = oneLine(err.Error())
		return o, nil
	}
	o.x509, o.odd = cert, odd
	return o, nil
}

// certificateKey returns the SPKI of a TBSCertificate.
func certificateKey(s cryptobyte.String) (spki []byte, ok bool) {
	var element cryptobyte.String
	ok = s.SkipOptionalASN1(tag.Tag(0).Constructed().ContextSpecific()) && // version
		s.SkipASN1(tag.INTEGER) && // serial number
		s.SkipASN1(tag.SEQUENCE) && // signature
		s.SkipASN1(tag.SEQUENCE) && // issuer
		s.SkipASN1(tag.SEQUENCE) && // validity
		s.SkipASN1(tag.SEQUENCE) && // subject
		s.ReadASN1Element(&element, tag.SEQUENCE) && isSPKI(element)
	return element, ok
}

func isSPKI(der []byte) bool {
	_, tags, err := elements(der)
	return err == nil && tags == "SB"
}

// parseTyped reads what begins with an OID: PKCS#7 is told by name, the keys of
// TSS2 PRIVATE KEY are read.
func parseTyped(body cryptobyte.String) (object, error) {
	var oid asn1.ObjectIdentifier
	if !readOID(&body, &oid) {
		return object{}, errors.New("DER that is no certificate, request or key")
	}
	switch name := oid.String(); {
	case strings.HasPrefix(name, "1.2.840.113549.1.7."):
		return object{}, errors.New("PKCS#7: extract its certificates with `openssl pkcs7 -print_certs`")
	case strings.HasPrefix(name, "2.23.133.10.1."):
		return parseTSS2(body)
	}
	return object{}, errors.New("DER that is no certificate, request or key")
}
