package keyfile

import (
	"regexp"
	"strings"
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

var (
	// looseMarker is BEGIN or END with the name of some object, and dashes of any
	// kind before it or nothing else on the line.
	looseMarker = regexp.MustCompile(`(?i)^(?:(.*(?:[-\x{2010}-\x{2015}\x{2212}\x{fe58}\x{fe63}\x{ff0d}_=*][ \t]*){2,})|\W*)(BEGIN|END)[ \t]+[\w .#/]*(?:CERT|CERTIFICATE|KEY|REQUEST|CRL|PKCS|CMS|PGP|SSH2|X509|PARAMETERS|PARAMS|BLOB|BLOCK)\b[\w .#/]*\W*$`)
	hexDigits   = regexp.MustCompile(`^(?:[0-9a-f]+|[0-9A-F]+)$`)
)

// lostObject says what a line looks like that stands outside every block.
// Comments, names of certificates, fingerprints and what openssl prints with
// -text are nothing of the kind.
func lostObject(line string) lostKind {
	word := ""
	if capitals := strings.ToUpper(line); !strings.Contains(capitals, "BEGIN") && !strings.Contains(capitals, "END") {
	} else if m := looseMarker.FindStringSubmatch(line); m != nil && (m[1] != "" || m[2] == strings.ToUpper(m[2])) {
		word = strings.ToUpper(m[2])
	}
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
	if hexDigits.MatchString(strings.TrimPrefix(digits, "0x")) {
		return strings.HasPrefix(digits, "3082") || strings.HasPrefix(digits, "3081")
	}
	return strings.ContainsAny(digits, upper) && strings.ContainsAny(digits, lower) && strings.ContainsAny(digits, numerals+"+")
}

const (
	upper    = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower    = "abcdefghijklmnopqrstuvwxyz"
	numerals = "0123456789"
)
