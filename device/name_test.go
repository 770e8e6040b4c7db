package device

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

// attr is an attribute of that OID's last arc under 2.5.4 and a string of that tag.
func attr(t *testing.T, arc, tag int, text string) asn1.RawValue {
	t.Helper()
	return sequence(t, asn1.TagSequence, marshal(t, asn1.ObjectIdentifier{2, 5, 4, arc}), marshal(t, asn1.RawValue{Tag: tag, Bytes: []byte(text)}))
}

func marshal(t *testing.T, v any) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

func sequence(t *testing.T, tag int, parts ...asn1.RawValue) asn1.RawValue {
	t.Helper()
	var body []byte
	for _, p := range parts {
		body = append(body, p.FullBytes...)
	}
	return marshal(t, asn1.RawValue{Tag: tag, IsCompound: true, Bytes: body})
}

func TestNameKey(t *testing.T) {
	name := func(sets ...asn1.RawValue) []byte { return sequence(t, asn1.TagSequence, sets...).FullBytes }
	set := func(attributes ...asn1.RawValue) asn1.RawValue { return sequence(t, asn1.TagSet, attributes...) }
	cn := func(tag int, text string) []byte { return name(set(attr(t, 3, tag, text))) }
	const utf8, printable, t61, ia5, bmp, visible, universal = 12, 19, 20, 22, 30, 26, 28

	plain := cn(utf8, "Test CA")
	for what, same := range map[string][]byte{
		"PrintableString":           cn(printable, "Test CA"),
		"T61String":                 cn(t61, "Test CA"),
		"IA5String":                 cn(ia5, "Test CA"),
		"VisibleString":             cn(visible, "Test CA"),
		"BMPString":                 cn(bmp, "\x00T\x00e\x00s\x00t\x00 \x00C\x00A"),
		"UniversalString":           cn(universal, "\x00\x00\x00T\x00\x00\x00e\x00\x00\x00s\x00\x00\x00t\x00\x00\x00 \x00\x00\x00C\x00\x00\x00A"),
		"other case":                cn(utf8, "tEST ca"),
		"inner spaces":              cn(utf8, "Test   CA"),
		"outer spaces":              cn(printable, "  Test CA "),
		"all of it":                 cn(t61, " tesT  cA"),
		"non-breaking space inside": cn(utf8, "Test\u00a0CA"),
	} {
		if NameKey(same) != NameKey(plain) {
			t.Errorf("%s: another name", what)
		}
	}
	for what, other := range map[string][]byte{
		"another text":           cn(utf8, "Test CB"),
		"no space":               cn(utf8, "TestCA"),
		"another attribute":      name(set(attr(t, 10, utf8, "Test CA"))),
		"an attribute more":      name(set(attr(t, 3, utf8, "Test CA")), set(attr(t, 10, utf8, "x"))),
		"the empty name":         name(),
		"an octet string":        cn(4, "Test CA"),
		"a BMPString of 3 bytes": cn(bmp, "Tes"),
		"no name":                []byte("Test CA"),
		"nothing":                nil,
		"data after it":          append(cn(utf8, "Test CA"), 0),
	} {
		if NameKey(other) == NameKey(plain) {
			t.Errorf("%s: the same name", what)
		}
	}

	a, b := attr(t, 3, utf8, "Straße"), attr(t, 10, printable, "ACME")
	if NameKey(name(set(a, b))) != NameKey(name(set(b, a))) {
		t.Error("the order within a set counts")
	}
	if NameKey(name(set(a), set(b))) == NameKey(name(set(b), set(a))) {
		t.Error("the order of sets does not count")
	}
	if NameKey(name(set(a, b))) == NameKey(name(set(a), set(b))) {
		t.Error("a set of two is two sets")
	}
	if NameKey(cn(utf8, "STRASSE ÄÖ")) != NameKey(cn(utf8, "strasse äö")) {
		t.Error("case of letters beyond ASCII counts")
	}
	if NameKey(cn(t61, "\xc4")) != NameKey(cn(utf8, "ä")) {
		t.Error("T61String is not taken for Latin-1")
	}

	rdn, err := asn1.Marshal(pkix.Name{CommonName: "dev", Organization: []string{"ACME"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := RDNKeys(rdn); err != nil || len(keys) != 2 {
		t.Errorf("%q, %v", keys, err)
	}
}

func FuzzNameKey(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, 'C', 'A'})
	f.Fuzz(func(t *testing.T, name []byte) {
		if NameKey(name) != NameKey(append([]byte(nil), name...)) {
			t.Error("a name is not itself")
		}
	})
}
