package keyfile

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// readName reads a Name (RFC 5280, section 4.1.2.4) whose strings may break the
// rules of their types.
func readName(s cryptobyte.String) (name pkix.Name, err error) {
	malformed := errors.New("malformed name")
	var rdns pkix.RDNSequence
	var body cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) {
		return name, malformed
	}
	for !body.Empty() {
		var set cryptobyte.String
		var rdn pkix.RelativeDistinguishedNameSET
		if !body.ReadASN1(&set, tag.SET) {
			return name, malformed
		}
		for !set.Empty() {
			var pair, value cryptobyte.String
			var attribute pkix.AttributeTypeAndValue
			var t tag.Tag
			if !set.ReadASN1(&pair, tag.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&attribute.Type) || !pair.ReadAnyASN1(&value, &t) {
				return name, malformed
			}
			attribute.Value = text(t, value)
			rdn = append(rdn, attribute)
		}
		rdns = append(rdns, rdn)
	}
	name.FillFromRDNSequence(&rdns)
	return name, nil
}

// text is the string of a value in a name; "#" and hex of what is no string.
func text(t tag.Tag, b []byte) string {
	switch t {
	case tag.UTF8String:
		return strings.ToValidUTF8(string(b), "\ufffd")
	case tag.PrintableString, tag.IA5String, asn1.TagNumericString, 26: // VisibleString
		if utf8.Valid(b) { // as more than one maker writes what does not fit into these
			return string(b)
		}
		return latin1(b)
	case tag.T61String: // read by nearly everyone as Latin-1
		return latin1(b)
	case asn1.TagBMPString:
		if len(b)%2 != 0 {
			break
		}
		units := make([]uint16, 0, len(b)/2)
		for i := 0; i < len(b); i += 2 {
			units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
		}
		if n := len(units); n > 0 && units[n-1] == 0 {
			units = units[:n-1]
		}
		return string(utf16.Decode(units))
	case 28: // UniversalString: UTF-32
		if len(b)%4 != 0 {
			break
		}
		var s strings.Builder
		for i := 0; i < len(b); i += 4 {
			s.WriteRune(rune(uint32(b[i])<<24 | uint32(b[i+1])<<16 | uint32(b[i+2])<<8 | uint32(b[i+3])))
		}
		return s.String()
	}
	return "#" + hex.EncodeToString(b)
}

func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// readTime reads a Time (RFC 5280, section 4.1.2.5), also one without seconds,
// with fractions of them, or with another time zone than Z, as BER allows.
func readTime(s *cryptobyte.String) (time.Time, error) {
	var b cryptobyte.String
	var t tag.Tag
	if !s.ReadAnyASN1(&b, &t) || len(b) > 64 {
		return time.Time{}, errors.New("malformed time")
	}
	var layouts []string
	switch t {
	case tag.UTCTime:
		layouts = []string{"060102150405Z0700", "0601021504Z0700"}
	case tag.GeneralizedTime:
		layouts = []string{"20060102150405Z0700", "200601021504Z0700", "2006010215Z0700"}
	}
	for _, layout := range layouts {
		at, err := time.Parse(layout, string(b))
		if err != nil {
			continue
		}
		if t == tag.UTCTime && at.Year() >= 2050 {
			at = at.AddDate(-100, 0, 0)
		}
		return at.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time", oneLine(string(b)))
}
