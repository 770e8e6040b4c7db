package keyfile

import (
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

const (
	notAKey      = "neither PEM, DER, JWK, OpenPGP, an OpenSSH key nor a TPM public area"
	brokenMarker = "damaged PEM: BEGIN is not on a line of its own"
	strayLine    = "not an OpenSSH public key"
	tooMany      = "not read: there are too many objects in one file"
)

// isText reports whether there are no control characters but white space.
func isText(data []byte) bool {
	return !slices.ContainsFunc(data, func(b byte) bool {
		return b < ' ' && (b < '\t' || b > '\r') || b == 0x7f
	})
}

// textReader reads PEM blocks, those of OpenPGP and SSH2, and lines with public keys
// of OpenSSH or a JWK, with any text around them.
type textReader struct {
	c     *contents
	lines sshLines

	number int // of the line
	blocks int

	// The block that is open.
	open  bool
	at    place
	block strings.Builder

	lost bool // the lines belong to an object that has a gap already
	jwk  int  // the first line of a JWK that has more, or does not fill its line
}

// readText reads a text. Where there are OpenSSH lines and no block, every
// other line is a gap.
func (c *contents) readText(data string) {
	data = strings.NewReplacer("\r\n", "\n", "\r", "\n", "----------BEGIN ", "-----\n-----BEGIN ").Replace(data)
	t := &textReader{c: c, lines: sshLines{c: c}}
	for line := range strings.Lines(data) {
		t.number++
		if c.full() {
			c.gap(fmt.Sprintf("from line %d", t.number), tooMany)
			return
		}
		t.line(trim(line))
	}
	t.end(strings.TrimSpace(data))
}

// trim takes white space off a line, and what cannot be seen: a byte order mark
// or a zero-width space before BEGIN comes of files that were put together.
func trim(line string) string {
	return strings.TrimFunc(line, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
}

func (t *textReader) line(line string) {
	label, isBegin := marker(line, "BEGIN")
	if isBegin && label == "PGP SIGNED MESSAGE" { // text follows, up to the block of its signature
		return
	}
	end, isEnd := marker(line, "END")
	if isBegin {
		if t.open {
			t.c.lose(t.at, "truncated PEM: no END line")
		}
		t.blocks++
		t.open, t.lost, t.at = true, false, place{t.number, label}
		t.block.Reset()
	}
	switch {
	case t.open:
		t.block.WriteString(line + "\n")
		if isEnd {
			t.close(end)
		}
	case isEnd:
		if !t.lost {
			t.blocks++
			t.c.lose(place{t.number, end}, "damaged PEM: no BEGIN line")
		}
		t.lost = false
	case line == "" || line[0] == '#':
	default:
		t.outside(line)
	}
}

// close reads the block that an END line ends.
func (t *textReader) close(end string) {
	t.open = false
	switch read, special := blocks()[t.at.label]; {
	case end != t.at.label:
		t.c.lose(t.at, fmt.Sprintf("damaged PEM: ended by END %s", end))
	case special:
		read(t.c, t.at, t.block.String())
	default:
		t.c.addPEM(t.at, t.block.String())
	}
}

// outside looks at a line that is in no block: what was meant to be an object
// must not be lost without a word.
func (t *textReader) outside(line string) {
	at := place{line: t.number}
	switch kind := lostObject(line); {
	case kind == endOfObject && t.lost:
		t.lost = false
	case kind == beginOfObject, kind == endOfObject, kind == wholeObject, kind == bodyOfObject && !t.lost:
		t.c.lose(at, lostWhy[kind])
		t.lost = kind == beginOfObject || kind == bodyOfObject
	case kind == bodyOfObject:
	case t.lines.read(line, t.number), t.c.readJWK([]byte(line), t.number):
		t.lost = false
	case strings.Contains(line, `"kty"`):
		if t.jwk == 0 {
			t.jwk = t.number
		}
	case t.blocks > 0 && !t.lost && isDERLine(line):
		t.c.lose(at, "DER behind PEM: give each in a file of its own")
		t.lost = true
	case !t.lost:
		t.lines.stray(t.number)
	}
}

// end says what is missing once all is read.
func (t *textReader) end(whole string) {
	c := t.c
	if t.jwk > 0 && c.number > 0 {
		c.lose(place{line: t.jwk}, "a JWK among other text: write it in one line, or give it in a file of its own")
	}
	switch {
	case t.open:
		c.lose(t.at, "truncated PEM: no END line")
	case c.number == 0 && t.lines.keys == 0 && len(c.gaps) == 0:
		c.gap("", whyNoKey(whole))
	case t.blocks == 0 && t.lines.keys > 0:
		t.lines.strays()
	}
	t.lines.end()
}

// marker returns the type of a BEGIN or END line of PEM (RFC 7468, section 3)
// or of SSH2 (RFC 4716, section 3.2). Gaps show it, so it must be nothing else:
// where line breaks were lost, the key itself follows on the same line.
func marker(line, word string) (label string, ok bool) {
	left, right := "-----"+word+" ", "-----"
	if strings.HasPrefix(line, "---- "+word+" SSH2 ") {
		left, right = "---- "+word+" ", " ----"
	}
	label, isMarker := strings.CutPrefix(line, left)
	label, isWhole := strings.CutSuffix(label, right)
	isName := len(label) <= 40 && strings.Trim(label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789. #/") == ""
	return label, isMarker && isWhole && isName
}

// addPEM reads a block of base64.
func (c *contents) addPEM(at place, text string) {
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil:
		c.lose(at, "damaged PEM: not base64 between BEGIN and END")
	case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		c.lose(at, encrypted)
	case len(block.Bytes) == 0:
		c.lose(at, "an empty PEM block")
	case !c.readForm(at, block.Bytes):
		c.lose(at, "not DER, nor any other form of a key that is known here")
	}
}

func whyNoKey(text string) string {
	hex := strings.TrimPrefix(strings.TrimPrefix(text, "Modulus="), "0x")
	switch {
	case text == "":
		return "empty file: nothing but white space"
	case strings.Trim(hex, "0123456789abcdefABCDEF") == "":
		return "a bare number: a modulus alone is not a key"
	case strings.HasPrefix(text, "MI") && !strings.ContainsAny(text, " ,:{}"):
		return bareBase64
	case isOpenSSLText(text):
		return "what openssl prints with -text -noout, not the object itself: give it the file, or print without -noout"
	}
	return notAKey
}

// isOpenSSLText reports whether a text is what OpenSSL shows to people.
func isOpenSSLText(text string) bool {
	first, rest, _ := strings.Cut(text, "\n")
	first, second := strings.TrimSpace(first), strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0])
	switch first {
	case "Certificate:", "Certificate Request:":
		return second == "Data:"
	case "Certificate Revocation List (CRL):":
		return strings.HasPrefix(second, "Version ")
	}
	return (strings.HasPrefix(first, "Private-Key: (") || strings.HasPrefix(first, "Public-Key: (")) &&
		(second == "modulus:" || second == "Modulus:" || second == "priv:" || second == "pub:")
}
