package keyfile

import "bytes"

// oidSignedData is the element 1.2.840.113549.1.7.2 (RFC 5652, section 5.1).
var oidSignedData = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}

// isSignedData reports whether ber is a ContentInfo of PKCS#7 or CMS with
// SignedData, the form in which certificates are handed out.
func isSignedData(ber []byte) bool {
	_, _, body, err := header(ber)
	return err == nil && bytes.HasPrefix(body, oidSignedData)
}

// addSignedData reads the certificates of a SignedData (RFC 5652, sections 5.1
// and 10.2.2), as they stand in it, since their signatures are over those bytes.
// Its own signatures are nobody's question; revocation lists and attribute
// certificates hold no key.
func (c *contents) addSignedData(at place, ber []byte) {
	info := parts(ber)
	var data [][]byte // version, digestAlgorithms, encapContentInfo, certificates, crls, signerInfos
	if len(info) == 2 {
		if content := parts(info[1]); len(content) == 1 {
			data = parts(content[0])
		}
	}
	if len(data) < 4 {
		c.lose(at, "damaged PKCS#7")
		return
	}
	found, lists := false, false
	for _, field := range data[3:] {
		switch field[0] {
		case 0xa0:
			for _, certificate := range parts(field) {
				if c.full() {
					c.gap(at.name(c.number+1), tooMany)
					return
				}
				found = true
				if certificate[0] == 0x30 {
					c.addElement(at, certificate)
				} else {
					c.pass(at, "an attribute certificate, or one of PKCS#6, in PKCS#7: it is not tested")
				}
			}
		case 0xa1:
			lists = true
		}
	}
	switch {
	case lists:
		c.pass(at, "a revocation list in PKCS#7: there is no key in it")
	case !found:
		c.lose(at, "PKCS#7 without a certificate")
	}
}

// parts returns the elements in the BER element that ber begins with, as they
// stand; nil if one is damaged.
func parts(ber []byte) (all [][]byte) {
	_, length, body, err := header(ber)
	if err != nil {
		return nil
	}
	if length >= 0 {
		body = body[:length]
	}
	for len(body) > 0 && !(length < 0 && bytes.HasPrefix(body, []byte{0, 0})) {
		_, rest, err := toDER(body)
		if err != nil {
			return nil
		}
		all = append(all, body[:len(body)-len(rest)])
		body = rest
	}
	return all
}
