package keyfile

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// parseRequest reads a CertificationRequest (RFC 2986, section 4) whose key is
// spki, and checks its signature by the DER: crypto/x509 refuses keys and requests
// that are to be judged.
func parseRequest(der, spki []byte) (object, error) {
	o, err := parseSPKI(spki)
	if err != nil {
		return object{}, fmt.Errorf("certificate request: %w", err)
	}
	answer := requestSignature(der, o)
	o.request = &answer
	if version := requestVersion(der); version != 0 && o.odd == "" {
		o.odd = fmt.Sprintf("certificate request of version %d (RFC 2986 has none but 0)", version)
	}
	return o, nil
}

func requestSignature(der []byte, key object) device.Answer {
	s := cryptobyte.String(der)
	var body, info cryptobyte.String
	var signed []byte
	if !s.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1Element(&info, tag.SEQUENCE) {
		return notTested("the request is damaged")
	}
	a, err := readAlgorithm(&body)
	if err != nil || !body.ReadASN1BitStringAsBytes(&signed) {
		return notTested("the signature of the request is damaged")
	}
	switch r := signature.Of(a.der).Verify(device.Key{Public: key.public, SPKI: key.spki}, info, signed); r.Outcome {
	case signature.Good:
		return device.Answer{Status: device.Pass, Why: "its signature is by its own key"}
	case signature.Bad:
		return device.Answer{Status: device.Fail, Why: "its signature does not verify: it was changed, or signed by another key"}
	default:
		return notTested("its signature cannot be checked: %s", r.Why)
	}
}

// requestVersion is -1 if it is no number that could be one.
func requestVersion(der []byte) (version int64) {
	s := cryptobyte.String(der)
	var body, info cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1(&info, tag.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return -1
	}
	return version
}

// requestKey returns the SPKI of a CertificationRequestInfo: version, subject, SPKI.
func requestKey(s cryptobyte.String) (spki []byte, ok bool) {
	var element cryptobyte.String
	ok = s.SkipASN1(tag.INTEGER) && s.SkipASN1(tag.SEQUENCE) && s.ReadASN1Element(&element, tag.SEQUENCE) && isSPKI(element)
	return element, ok
}
