package keyfile

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

const (
	notAKey      = "neither PEM, DER, an OpenSSH key nor a TPM public area"
	brokenMarker = "damaged PEM: BEGIN is not on a line of its own"
	strayLine    = "not an OpenSSH public key"
	tooMany      = "not read: there are too many objects in one file"
)

// noKey are the PEM types that are passed over: no key can be in them.
var noKey = []string{"X509 CRL", "DH PARAMETERS", "X9.42 DH PARAMETERS", "DSA PARAMETERS", "EC PARAMETERS", "SM2 PARAMETERS"}

// otherFormats are told by name, by the first bytes of the file.
var otherFormats = []struct{ prefix, why string }{
	{"\xff\xfe", "UTF-16 text: save it as plain ASCII"},
	{"\xfe\xff", "UTF-16 text: save it as plain ASCII"},
	{"-\x00-\x00", "UTF-16 text: save it as plain ASCII"},
	{"\x00-\x00-", "UTF-16 text: save it as plain ASCII"},
	{"\xfe\xed\xfe\xed", "a Java key store: export the certificate as PEM"},
	{"\xce\xce\xce\xce", "a Java key store: export the certificate as PEM"},
	{"\xba\xdc\xc0\xde", "a tpm2-tools context: export the key with tpm2_readpublic"},
	{"PuTTY-User-Key-File-", "a PuTTY key: export it in OpenSSH form"},
	{"---- BEGIN SSH2 PUBLIC KEY", "an RFC 4716 public key: convert it with ssh-keygen -i"},
}

// read tells the formats apart.
func (c *contents) read(data []byte) {
	if len(data) == 0 {
		c.gap("", "empty file")
		return
	}
	for _, f := range otherFormats {
		if bytes.HasPrefix(data, []byte(f.prefix)) {
			c.gap("", f.why)
			return
		}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	text := isText(data)
	_, _, headerErr := outer(data)
	longForm := len(data) > 1 && data[0] == 0x30 && data[1] >= 0x80 // of a length; no text begins so
	switch {
	case longForm, headerErr == nil && !text:
		o, err := parseDER(data)
		c.add("", o, err)
	case text, bytes.Contains(data, []byte("-----BEGIN ")):
		c.readText(string(data))
	case bytes.HasPrefix(data, []byte(opensshMagic)):
		c.addOpenSSH("", data)
	case looksTPM(data):
		o, err := parseTPMPublic(data)
		c.add("", o, err)
	case bytes.HasPrefix(data, []byte{0x30}):
		c.gap("", headerErr.Error())
	default:
		c.gap("", notAKey)
	}
}

// isText reports whether there are no control characters but white space.
func isText(data []byte) bool {
	return !slices.ContainsFunc(data, func(b byte) bool {
		return b < ' ' && (b < '\t' || b > '\r') || b == 0x7f
	})
}

// readText reads PEM blocks and the lines of OpenSSH public keys (sshd(8),
// AUTHORIZED_KEYS FILE FORMAT), with any text around them. Where there are
// OpenSSH lines and no PEM, every other line is a gap.
func (c *contents) readText(text string) {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n", "----------BEGIN ", "-----\n-----BEGIN ").Replace(text)
	var (
		number  int // of the line
		blocks  int
		sshKeys int
		passed  []string // PEM types without a key
		strays  []int    // lines that are neither
		label   string   // of the block that is open
		block   strings.Builder
	)
	where := func() string { return fmt.Sprintf("PEM block %d (%s)", blocks, label) }
	open := false
	for line := range strings.Lines(text) {
		number++
		if c.full() {
			c.gap(fmt.Sprintf("from line %d", number), tooMany)
			return
		}
		line = strings.TrimSpace(line)
		begin, isBegin := marker(line, "BEGIN")
		end, isEnd := marker(line, "END")
		if isBegin {
			if open {
				c.gap(where(), "truncated PEM: no END line")
			}
			blocks++
			open, label = true, begin
			block.Reset()
		}
		switch {
		case open:
			block.WriteString(line + "\n")
			if !isEnd {
				continue
			}
			open = false
			switch {
			case end != label:
				c.gap(where(), fmt.Sprintf("damaged PEM: ended by END %s", end))
			case slices.Contains(noKey, label):
				passed = append(passed, label)
			default:
				c.addPEM(where(), block.String())
			}
		case isEnd:
			blocks++
			label = end
			c.gap(where(), "damaged PEM: no BEGIN line")
		case line == "" || line[0] == '#':
		case strings.Contains(line, "-----BEGIN "):
			c.gap(fmt.Sprintf("line %d", number), brokenMarker)
		default:
			o, isKey, err := parseAuthorizedKey(line)
			if !isKey {
				if len(strays) <= maxObjects {
					strays = append(strays, number)
				}
				continue
			}
			sshKeys++
			c.add(fmt.Sprintf("line %d", number), o, err)
		}
	}
	switch {
	case open:
		c.gap(where(), "truncated PEM: no END line")
	case blocks == 0 && sshKeys == 0 && len(c.gaps) == 0:
		c.gap("", whyNoKey(strings.TrimSpace(text)))
	case blocks == 0 && sshKeys > 0:
		for _, n := range strays {
			if c.full() {
				c.gap(fmt.Sprintf("line %d and others", n), "not OpenSSH public keys")
				return
			}
			c.gap(fmt.Sprintf("line %d", n), strayLine)
		}
	case len(c.objects)+len(c.gaps) == 0:
		c.gap("", "no key in it, only "+passed[0])
	}
}

// marker returns the type of a BEGIN or END line of PEM (RFC 7468, section 3).
// Gaps show it, so it must be nothing else: where line breaks were lost, the
// key itself follows on the same line.
func marker(line, word string) (label string, ok bool) {
	label, isMarker := strings.CutPrefix(line, "-----"+word+" ")
	label, isWhole := strings.CutSuffix(label, "-----")
	isName := len(label) <= 40 && strings.Trim(label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789. ") == ""
	return label, isMarker && isWhole && isName
}

func (c *contents) addPEM(where, text string) {
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil:
		c.gap(where, "damaged PEM: not base64 between BEGIN and END")
	case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		c.gap(where, encrypted)
	case len(block.Bytes) == 0:
		c.gap(where, "an empty PEM block")
	case bytes.HasPrefix(block.Bytes, []byte(opensshMagic)):
		c.addOpenSSH(where, block.Bytes)
	default:
		der := block.Bytes
		if block.Type == "TRUSTED CERTIFICATE" { // OpenSSL's trust settings follow the certificate
			if element, _, err := outer(der); err == nil {
				der = element
			}
		}
		o, err := parseDER(der)
		c.add(where, o, err)
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
		return "base64 without the BEGIN and END lines of PEM"
	}
	return notAKey
}
