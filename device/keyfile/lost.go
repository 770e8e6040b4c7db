package keyfile

import (
	"strings"
	"unicode/utf8"
)

// What a line outside every block may be, of an object that was lost.
type lostKind int

const (
	noObject      lostKind = iota
	beginOfObject          // a BEGIN line that is damaged
	endOfObject            // an END line that is damaged
	bodyOfObject           // base64
	wholeObject            // all in one line
)

const bareBase64 = "base64 without the BEGIN and END lines of PEM"

var lostWhy = map[lostKind]string{
	beginOfObject: "damaged PEM: the BEGIN line is misspelt; it must be -----BEGIN … -----, in capitals",
	endOfObject:   "damaged PEM: an END line without its BEGIN line",
	bodyOfObject:  bareBase64,
	wholeObject:   brokenMarker,
}

// minBody is how long a line of base64 must be to be taken for an object's. PEM
// has 64 characters a line (RFC 7468, section 2); some programs write fewer.
const minBody = 40

// looseMarker returns BEGIN or END if the line is that with the name of some
// object: dashes of any kind stand before it, or it is in capitals and nothing
// else is on the line.
func looseMarker(line string) string {
	capitals := strings.Map(func(r rune) rune { // ASCII alone, so that places stay
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
	line = strings.ToValidUTF8(line, "?")
	for _, word := range []string{"BEGIN", "END"} {
		for at := strings.LastIndex(capitals, word); at >= 0; at = strings.LastIndex(capitals[:at], word) {
			if !namesObject(capitals[at+len(word):]) {
				continue
			}
			before, clean := line[:at], strings.HasPrefix(line[at:], word)
			if endsInDashes(before) || clean && strings.IndexFunc(before, isWord) < 0 {
				return word
			}
		}
	}
	return ""
}

// objectNames end what can be in PEM, or nearly.
var objectNames = []string{"CERT", "CERTIFICATE", "KEY", "REQUEST", "CRL", "PKCS", "CMS", "PGP", "SSH2", "X509", "PARAMETERS", "PARAMS", "BLOB", "BLOCK"}

// namesObject reports whether what follows BEGIN or END is a label of an object.
func namesObject(rest string) bool {
	label := strings.TrimLeft(rest, " \t")
	if len(label) == len(rest) {
		return false
	}
	label = strings.TrimRightFunc(label, func(r rune) bool { return !isWord(r) })
	if strings.IndexFunc(label, func(r rune) bool { return !isWord(r) && !strings.ContainsRune(" .#/", r) }) >= 0 {
		return false
	}
	for _, field := range strings.FieldsFunc(label, func(r rune) bool { return !isWord(r) }) {
		for _, name := range objectNames {
			if strings.HasSuffix(field, name) {
				return true
			}
		}
	}
	return false
}

// endsInDashes reports whether s ends in two dashes of any kind, or more.
func endsInDashes(s string) bool {
	for range 2 {
		s = strings.TrimRight(s, " \t")
		r, size := utf8.DecodeLastRuneInString(s)
		if size == 0 || !strings.ContainsRune("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d_=*", r) {
			return false
		}
		s = s[:len(s)-size]
	}
	return true
}

func isWord(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

// lostObject says what a line looks like that stands outside every block.
// Comments, names of certificates, fingerprints and what openssl prints with
// -text are nothing of the kind.
func lostObject(line string) lostKind {
	word := looseMarker(line)
	switch {
	case word == "BEGIN":
		return beginOfObject
	case strings.Contains(line, "-----BEGIN "), strings.Contains(line, "LS0tLS1CRUdJTi"): // the base64 of -----BEGIN
		return wholeObject
	case word == "END":
		return endOfObject
	case isBase64(line):
		return bodyOfObject
	}
	return noObject
}

// isBase64 reports whether a line is nothing but base64: of capitals, small
// letters and digits, as that of an object practically always is, and a path or
// a name mostly is not; or DER in hex.
func isBase64(line string) bool {
	digits := strings.TrimRight(line, "=")
	if len(digits) < minBody || len(line)-len(digits) > 2 || strings.Trim(digits, upper+lower+numerals+"+/") != "" {
		return false
	}
	if hex := strings.TrimPrefix(digits, "0x"); strings.Trim(hex, numerals+"abcdef") == "" || strings.Trim(hex, numerals+"ABCDEF") == "" {
		return strings.HasPrefix(digits, "3082") || strings.HasPrefix(digits, "3081")
	}
	return strings.ContainsAny(digits, upper) && strings.ContainsAny(digits, lower) && strings.ContainsAny(digits, numerals+"+")
}

// isDERLine reports whether a line has what DER of keys and certificates has soon:
// the head of a SEQUENCE of 128 bytes and more, or an OID of RSA's or ANSI's. In
// neither is what UTF-8 has in text.
func isDERLine(line string) bool {
	return strings.Contains(line, "0\x81") || strings.Contains(line, "0\x82") || strings.Contains(line, "*\x86H")
}

const (
	upper    = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower    = "abcdefghijklmnopqrstuvwxyz"
	numerals = "0123456789"
)
