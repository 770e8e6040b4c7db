package device

import (
	"encoding/asn1"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// NameKey returns a key that is the same for two DER Names (RFC 5280, section
// 4.1.2.4) if they are one name by section 7.1 there: the type of a string, case
// and needless spaces do not count, nor does the order within a set. A name
// that cannot be parsed is one with itself only.
func NameKey(name []byte) string {
	rdns, err := RDNKeys(name)
	if err != nil {
		return "?" + string(name)
	}
	var key []byte
	for _, rdn := range rdns {
		key = appendSized(key, rdn)
	}
	return string(key)
}

// RDNKeys returns such a key for each RelativeDistinguishedName of a DER Name.
func RDNKeys(name []byte) ([]string, error) {
	type attribute struct {
		Type  asn1.RawValue
		Value asn1.RawValue
	}
	type attributesSET []attribute // asn1 takes the suffix for the tag
	var sequence []attributesSET
	if rest, err := asn1.Unmarshal(name, &sequence); err != nil {
		return nil, err
	} else if len(rest) > 0 {
		return nil, asn1.SyntaxError{Msg: "data after a name"}
	}
	keys := make([]string, len(sequence))
	for i, set := range sequence {
		attributes := make([]string, len(set))
		for j, a := range set {
			attributes[j] = string(appendSized(appendSized(nil, string(a.Type.FullBytes)), valueKey(a.Value)))
		}
		slices.Sort(attributes)
		var key []byte
		for _, a := range attributes {
			key = appendSized(key, a)
		}
		keys[i] = string(key)
	}
	return keys, nil
}

func appendSized(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// valueKey is the text of a string, folded; anything else is itself.
func valueKey(v asn1.RawValue) string {
	text, ok := directoryString(v)
	if !ok {
		return "?" + string(v.FullBytes)
	}
	return "=" + strings.Join(strings.Fields(strings.Map(foldRune, text)), " ")
}

// foldRune gives all cases of a letter the same rune.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return least
}

const (
	tagUniversalString = 28
	tagVisibleString   = 26
)

// directoryString returns the text of a value of one of the string types.
func directoryString(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String:
		return string(v.Bytes), utf8.Valid(v.Bytes)
	case asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagNumericString, tagVisibleString:
		runes := make([]rune, len(v.Bytes)) // what is beyond ASCII is Latin-1 in practice
		for i, b := range v.Bytes {
			runes[i] = rune(b)
		}
		return string(runes), true
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return string(utf16.Decode(units)), true
	case tagUniversalString:
		if len(v.Bytes)%4 != 0 {
			return "", false
		}
		runes := make([]rune, len(v.Bytes)/4)
		for i := range runes {
			runes[i] = rune(binary.BigEndian.Uint32(v.Bytes[4*i:]) & 0x7fffffff)
		}
		return string(runes), true
	}
	return "", false
}
