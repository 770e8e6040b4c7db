package keyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/device"
)

// isDER reports whether data begins with a SEQUENCE. Text may begin with "0",
// which is its tag, and with what would be a short length.
func isDER(data []byte) bool {
	if len(data) < 2 || data[0] != 0x30 {
		return false
	}
	_, _, err := outer(data)
	return data[1] >= 0x80 || err == nil && !isText(data)
}

// addDER reads one object in DER and any that follow it. What is left then is
// padding, as tpm2_nvread leaves it behind an endorsement key certificate, or
// something that was not looked at.
func (c *contents) addDER(at place, data []byte) {
	for {
		if c.full() {
			c.gap(at.name(c.number+1), tooMany)
			return
		}
		element, rest, err := outer(data)
		if errors.Is(err, errIndefinite) {
			_, rest, err = toDER(data)
			element = data[:len(data)-len(rest)]
		}
		if err != nil {
			c.lose(at, err.Error())
			return
		}
		switch {
		case at.label == "TRUSTED CERTIFICATE": // OpenSSL's trust settings follow the certificate
			c.addElement(at, element)
			return
		case isSignedData(element):
			c.addSignedData(at, element)
		default:
			c.addElement(at, element)
		}
		switch {
		case len(bytes.Trim(rest, "\r\n")) == 0:
			return
		case isDER(rest):
			data = rest
			continue
		case isPadding(rest):
			c.remark(at, fmt.Sprintf("%d bytes of padding (%02x) after its end", len(rest), rest[0]))
		case isDER(bytes.TrimLeft(rest, "\xff\x00\r\n")):
			data = bytes.TrimLeft(rest, "\xff\x00\r\n")
			continue
		default:
			c.lose(at, fmt.Sprintf("%d bytes after its end that are neither an object nor padding", len(rest)))
		}
		return
	}
}

func (c *contents) addElement(at place, der []byte) {
	o, err := parseDER(der)
	if err != nil {
		if _, crlErr := x509.ParseRevocationList(der); crlErr == nil { // as one in PEM
			c.number++
			c.passed = append(c.passed, "a revocation list")
			return
		}
	}
	c.add(at, o, err)
}

// isPadding reports whether all bytes are the same, or ff and 00. Infineon's and ST's TPMs are
// padded with ff, Nuvoton's with 11, others with 00.
func isPadding(b []byte) bool {
	return len(bytes.Trim(b, string(b[:1]))) == 0 || len(bytes.Trim(b, "\xff\x00")) == 0
}

// isWrapped reports whether data begins with the header that TPM 1.2 puts before
// an endorsement key certificate, TCG_PCCLIENT_STORED_CERT of tag 1001 and type
// 0, a full certificate (TCG PC Client Specific Implementation Specification for
// Conventional BIOS, section 7.3.2).
func isWrapped(data []byte) bool {
	_, der, _ := unwrap(data)
	return der != nil
}

// unwrap returns the certificate in a TCG_PCCLIENT_STORED_CERT, without the tag
// 1002 of a TCG_FULL_CERT, which not all have; der is nil if it is none.
func unwrap(data []byte) (size int, der, rest []byte) {
	if len(data) < 9 || data[0] != 0x10 || data[1] != 0x01 || data[2] != 0 {
		return 0, nil, nil
	}
	size, body := int(binary.BigEndian.Uint16(data[3:])), data[5:]
	if body[0] == 0x10 && body[1] == 0x02 {
		size, body = size-2, body[2:]
	}
	if body[0] != 0x30 || size < 2 {
		return 0, nil, nil
	}
	n := min(size, len(body))
	return size, body[:n], body[n:]
}

func (c *contents) addWrapped(at place, data []byte) {
	size, der, rest := unwrap(data)
	if len(der) < size {
		c.lose(at, fmt.Sprintf("truncated TCG certificate: %d bytes of %d", len(der), size))
		return
	}
	c.addDER(at, der)
	switch {
	case len(rest) == 0:
	case isPadding(rest):
		c.remark(at, fmt.Sprintf("%d bytes of padding (%02x) after its end", len(rest), rest[0]))
	default:
		if !c.readForm(at, rest) {
			c.lose(at, fmt.Sprintf("%d bytes after its end that are neither an object nor padding", len(rest)))
		}
	}
}

func (c *contents) addTPM(at place, data []byte) {
	o, err := parseTPMPublic(data)
	c.add(at, o, err)
}

// otherKey is the object of a key of an algorithm that is named but not understood.
func otherKey(format string, args ...any) object {
	return object{public: &device.OtherKey{Algorithm: fmt.Sprintf(format, args...)}}
}
