package keyfile

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// sshLines reads lines as of authorized_keys (sshd(8)), of an OpenSSH public
// key file, or of known_hosts: up to two fields (options; marker and host
// names), then type, base64 and comment. A key that stands in several lines is
// read once.
type sshLines struct {
	c     *contents
	keys  int // lines with a key, readable or not
	seen  map[[sha256.Size]byte]bool
	again int // lines with a key that stands above

	strayLines []int // that are something else
}

// read reports whether the line is one with a key.
func (l *sshLines) read(line string, number int) bool {
	at := place{line: number}
	rest := line
	for range 3 {
		var first string
		first, rest = cutField(rest)
		if isSSHType(first) {
			l.keys++
			encoded, _ := cutField(rest)
			l.add(at, first, encoded)
			return true
		}
	}
	if isSSH1(line) {
		l.keys++
		l.c.pass(at, "a key of SSH-1, which no OpenSSH uses since 7.6: it is not tested")
		return true
	}
	return false
}

func (l *sshLines) add(at place, name, encoded string) {
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(blob) == 0 {
		l.c.lose(at, fmt.Sprintf("truncated or damaged OpenSSH key: %s without proper base64", name))
		return
	}
	id := sha256.Sum256(blob)
	if l.seen[id] {
		l.c.number++
		l.again++
		return
	}
	o, err := parseSSH(blob, name)
	o.openSSH = true
	l.c.add(at, o, err)
	if err == nil {
		l.c.lineKeys++
		l.remember(id)
		l.addCA(at, o)
	}
}

func (l *sshLines) remember(id [sha256.Size]byte) {
	if l.seen == nil {
		l.seen = make(map[[sha256.Size]byte]bool)
	}
	l.seen[id] = true
}

// stray notes a line that is nothing of OpenSSH's.
func (l *sshLines) stray(number int) {
	if len(l.strayLines) <= maxObjects {
		l.strayLines = append(l.strayLines, number)
	}
}

// strays makes gaps of them.
func (l *sshLines) strays() {
	for _, n := range l.strayLines {
		if len(l.c.gaps) >= maxObjects {
			l.c.gap(fmt.Sprintf("line %d and others", n), "not OpenSSH public keys")
			return
		}
		l.c.lose(place{line: n}, "not an OpenSSH public key")
	}
}

// end says how many lines were passed over.
func (l *sshLines) end() {
	if l.again > 0 {
		l.c.gap("", fmt.Sprintf("%d lines have a key that stands in a line above: each key is tested once", l.again))
		l.c.gaps[len(l.c.gaps)-1].Minor = true
	}
}

// isSSHType reports whether s may be the name of a key type, and nothing that
// must not be shown.
func isSSHType(s string) bool {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.@") != "" {
		return false
	}
	for _, prefix := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "webauthn-sk-"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// cutField cuts the first field off a line; white space in double quotes does
// not end it.
func cutField(line string) (field, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return line[:i], strings.TrimLeft(line[i:], " \t")
		}
	}
	return line, ""
}

// isSSH1 reports whether a line has a key of SSH-1: after options or host names,
// the bits, the exponent and the modulus in decimal.
func isSSH1(line string) bool {
	for range 2 {
		bits, rest := cutField(line)
		exponent, rest := cutField(rest)
		modulus, _ := cutField(rest)
		if isNumber(bits, 1, 5) && isNumber(exponent, 1, 20) && isNumber(modulus, 30, 10000) {
			return true
		}
		_, line = cutField(line)
	}
	return false
}

func isNumber(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && strings.Trim(s, numerals) == ""
}
