package keyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// ReadAny is [Read] for a file that nobody called a key file, such as one of a
// directory. A file that is not meant to hold a key gives neither keys nor gaps;
// one that is, but holds none that can be read, gives its gaps.
//
// A file is meant to hold a key if it begins as a key, a certificate or a key
// store does, or has the BEGIN line of one with base64 after it, or an OpenSSH
// key. Text around keys is no gap. whole is false where the file is too large, and
// nothing at its beginning is a key's.
func ReadAny(path string) (keys []device.Key, gaps []device.Gap, whole bool) {
	f, err := Load(path)
	if err != nil {
		head, large := beginning(path)
		switch {
		case !large:
		case meant(head):
			err = fmt.Errorf("too large for a key file: more than %d bytes", maxFileBytes)
		default:
			return nil, nil, false
		}
		return nil, []device.Gap{{What: path, Why: err.Error()}}, true
	}
	keys, gaps = f.Keys()
	switch {
	case len(keys) == 0 && !meant(f.Data):
		return nil, nil, true
	case len(keys) > 0 && !beginsDER(f.Data) && f.Data[0] != '-' && isBinary(f.Data): // a program has markers of PEM among its texts
		gaps = nil
	}
	return keys, slices.DeleteFunc(gaps, func(g device.Gap) bool { return g.Why == strayLine }), true
}

// beginning returns the first bytes of a regular file that is larger than what
// is read.
func beginning(path string) (head []byte, large bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() <= maxFileBytes {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	head = make([]byte, 64<<10)
	if n, err := io.ReadFull(f, head); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return head[:n], true
	}
	return nil, false
}

// meant reports whether data is meant to hold a key, such as in PEM that is
// damaged; see [ReadAny].
func meant(data []byte) bool {
	for _, store := range []string{"\xfe\xed\xfe\xed", "\xce\xce\xce\xce", "\xba\xdc\xc0\xde", "PuTTY-User-Key-File-", "---- BEGIN SSH2 PUBLIC KEY", opensshMagic} {
		if bytes.HasPrefix(data, []byte(store)) {
			return true
		}
	}
	if utf16 := []byte("B\x00E\x00G\x00I\x00N\x00 \x00"); bytes.Contains(data, utf16) || bytes.Contains(data, utf16[1:]) {
		data = bytes.ReplaceAll(data, []byte{0}, nil)
	}
	if beginsDER(data) {
		return meantDER(data)
	}
	if looksTPM(data) && len(data) > 2 && int(binary.BigEndian.Uint16(data)) == len(data)-2 {
		return true
	}
	return !isBinary(data) && meantText(string(data))
}

// beginsDER reports whether data begins with a SEQUENCE of 128 bytes or more.
func beginsDER(data []byte) bool { return len(data) > 1 && data[0] == 0x30 && data[1] >= 0x80 }

// meantDER looks at how the elements begin where the end is missing or damaged.
func meantDER(data []byte) bool {
	element, _, err := outer(data)
	if err == nil {
		if _, err := x509.ParseRevocationList(element); err == nil {
			return false
		}
		if _, tags, err := elements(element); err == nil {
			return slices.ContainsFunc([]string{"SSB", "SB", "II", "ISO", "IO", "SO", "IS", "D0"}, func(start string) bool { return strings.HasPrefix(tags, start) })
		}
	}
	header := 2
	if data[1] != 0x80 {
		header += int(data[1] & 0x7f)
	}
	if header > 6 || header > len(data) {
		return false
	}
	return slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(string(data[header:]), start) })
}

// starts are how what is in a certificate, a request, a private key, PKCS#12 and
// PKCS#7 begins.
var starts = []string{
	"\x30\x82", "\x30\x81", "\x02\x01\x00\x02\x82", "\x02\x01\x00\x02\x81", "\x02\x01\x00\x30\x0d", "\x02\x01\x00\x30\x13",
	"\x02\x01\x01\x04", "\x02\x01\x03\x30", "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07",
}

// isBinary reports whether a good part of data is no text.
func isBinary(data []byte) bool {
	odd := 0
	for _, b := range data {
		if b < ' ' && (b < '\t' || b > '\r') || b == 0x7f {
			odd++
		}
	}
	return odd > len(data)/32
}

// meantText looks for the marks of keys in a text, be they damaged.
func meantText(text string) bool {
	if strings.Contains(text, `"kty"`) { // JWK, RFC 7517
		return true
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		if _, rest, begins := strings.Cut(strings.ToUpper(line), "BEGIN "); begins && strings.Contains(rest, "--") && namesKey(rest) {
			if hasBase64(strings.Join(lines[i:min(i+8, len(lines))], "\n")) {
				return true
			}
		}
		for fields := strings.Fields(line); len(fields) > 1; fields = fields[1:] {
			if isSSHType(fields[0]) && strings.HasPrefix(fields[1], "AAAA") {
				return true
			}
		}
	}
	return false
}

// namesKey reports whether the label of a BEGIN line is of something that has a
// key in it.
func namesKey(label string) bool {
	label, _, _ = strings.Cut(label, "--")
	label = strings.TrimSpace(label)
	return strings.Contains(label, "KEY") && !strings.Contains(label, "STATIC KEY") || strings.Contains(label, "PKCS") ||
		strings.Contains(label, "CERTIFICATE") && label != "ATTRIBUTE CERTIFICATE"
}

// hasBase64 reports whether there is a run of base64 in text as of a key.
func hasBase64(text string) bool {
	run := 0
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '=':
			if run++; run >= 40 {
				return true
			}
		default:
			run = 0
		}
	}
	return false
}
