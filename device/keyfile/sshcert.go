package keyfile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/keyvet/keyvet/device"
)

// sshForever is the end of validity that means none.
const sshForever = math.MaxUint64

// parseSSHCertificate reads what follows the key in a certificate (OpenSSH,
// PROTOCOL.certkeys): serial, type, key id, principals, validity, critical
// options, extensions, a reserved field, the key of the CA and its signature
// over all before it. blob is the whole of it.
func parseSSHCertificate(blob, s cryptobyte.String) (*device.SSHCertificate, error) {
	damaged := errors.New("truncated or damaged OpenSSH certificate")
	var serial, after, before uint64
	var kind uint32
	var id, principals, critical, extensions, reserved, ca, signature cryptobyte.String
	if !s.ReadUint64(&serial) || !s.ReadUint32(&kind) || !readString(&s, &id) || !readString(&s, &principals) ||
		!s.ReadUint64(&after) || !s.ReadUint64(&before) ||
		!readString(&s, &critical) || !readString(&s, &extensions) || !readString(&s, &reserved) || !readString(&s, &ca) {
		return nil, damaged
	}
	signed := blob[:len(blob)-len(s)]
	if !readString(&s, &signature) || !s.Empty() {
		return nil, damaged
	}
	c := &device.SSHCertificate{
		Serial: serial, KeyID: oneLine(string(id)), ValidAfter: sshTime(after), Signed: signed,
	}
	switch kind {
	case 1:
		c.Kind = "user"
	case 2:
		c.Kind = "host"
	default:
		return nil, fmt.Errorf("an OpenSSH certificate of the unknown kind %d", kind)
	}
	if before != sshForever {
		c.ValidBefore = sshTime(before)
	}
	for !principals.Empty() {
		var p cryptobyte.String
		if !readString(&principals, &p) {
			return nil, damaged
		}
		c.Principals = append(c.Principals, oneLine(string(p)))
	}
	authority, err := parseSSH(ca, "")
	if err != nil || authority.ssh != nil {
		return nil, errors.New("damaged OpenSSH certificate: the key of its CA cannot be read")
	}
	c.CA, c.CASPKI, c.CAApplication, c.CABlob = authority.public, authority.spki, authority.application, ca
	var format, value cryptobyte.String
	if !readString(&signature, &format) || !readString(&signature, &value) {
		return nil, damaged
	}
	c.SignatureFormat, c.Signature, c.SignatureRest = oneLine(string(format)), value, signature
	return c, nil
}

// sshTime is a time in seconds since 1970, up to the year 9999.
func sshTime(seconds uint64) time.Time {
	const latest = 253402300799
	return time.Unix(int64(min(seconds, latest)), 0).UTC()
}

// addCA adds the key that signed a certificate, once in a file.
func (l *sshLines) addCA(at place, o object) {
	if o.ssh == nil {
		return
	}
	id := sha256.Sum256(o.ssh.CABlob)
	if l.seen[id] {
		return
	}
	l.remember(id)
	l.c.lineKeys++
	authority, err := parseSSH(o.ssh.CABlob, "")
	authority.openSSH = true
	l.c.add(at, authority, err)
}
