package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// addOpenSSH reads the keys of an OpenSSH private key (OpenSSH, PROTOCOL.key).
// The public ones are in clear also where the private ones are encrypted.
func (c *contents) addOpenSSH(at place, data []byte) {
	const damaged = "truncated or damaged OpenSSH private key"
	s := cryptobyte.String(data[len(opensshMagic):])
	var cipher, kdf, options, private cryptobyte.String
	var count uint32
	if !readString(&s, &cipher) || !readString(&s, &kdf) || !readString(&s, &options) || !s.ReadUint32(&count) || count == 0 {
		c.lose(at, damaged)
		return
	}
	var blobs []cryptobyte.String
	isCut, tooLong := false, false
	for range count {
		var blob cryptobyte.String
		if tooLong = c.full() || len(blobs) >= maxObjects; tooLong {
			break
		}
		if isCut = !readString(&s, &blob); isCut {
			break
		}
		blobs = append(blobs, blob)
	}
	isWhole := !isCut && !tooLong && readString(&s, &private) && len(private) > 0
	isRead := isWhole && string(cipher) == "none" && beginSSHPrivate(&private)
	for _, blob := range blobs {
		o, err := parseSSH(blob, "")
		o.openSSH, o.private, o.privateSPKI = true, true, o.spki
		switch {
		case isWhole && string(cipher) != "none":
			o.numbers = elsewhere("the private key is encrypted: its numbers were not looked at")
		case isRead:
			o, isRead = readSSHPrivate(&private, o)
		default:
			o.numbers = damagedKey
		}
		c.add(at, o, err)
	}
	switch {
	case tooLong:
		c.gap(at.name(c.number+1), tooMany)
	case isCut:
		c.lose(at, damaged)
	case !isWhole:
		c.lose(at, "truncated OpenSSH private key: the private part is cut short")
	}
}

// beginSSHPrivate reads the two numbers before the private keys, which are the
// same where they were decrypted rightly.
func beginSSHPrivate(s *cryptobyte.String) bool {
	var a, b uint32
	return s.ReadUint32(&a) && s.ReadUint32(&b) && a == b
}

// readSSHPrivate reads the next private key and says of o, its public half as it
// is stated, whether they fit; goesOn is false if what follows it cannot be found.
func readSSHPrivate(s *cryptobyte.String, o object) (_ object, goesOn bool) {
	var name, comment cryptobyte.String
	if !readString(s, &name) {
		o.numbers = damagedKey
		return o, false
	}
	k, known := sshKind(string(name))
	if !known {
		o.numbers = notTested("how the private key of type %s is written is not known", oneLine(string(name)))
		return o, false
	}
	var fields []cryptobyte.String
	for _, kind := range k.fields {
		var field cryptobyte.String
		if kind == flags {
			if !s.Skip(1) {
				o.numbers = damagedKey
				return o, false
			}
			continue
		}
		if !readString(s, &field) {
			o.numbers = damagedKey
			return o, false
		}
		fields = append(fields, field)
	}
	goesOn = readString(s, &comment)
	if k.private == nil {
		o.numbers = elsewhere("the private key is in a security key")
		return o, goesOn
	}
	own, err := k.private(fields)
	switch {
	case err != nil:
		o.numbers = damagedKey
	case !device.SameKey(own.spki, o.spki):
		o.numbers, o.privateSPKI = madeOther, own.privateSPKI
	default:
		o.numbers, o.privateSPKI, o.test = own.numbers, own.privateSPKI, own.test
	}
	return o, goesOn
}

var errDamaged = errors.New("damaged OpenSSH private key")

// sshPrivate is how a private key of one type is written after its name: so many
// strings, and a byte where flags is.
type sshPrivate struct {
	fields  []int
	private func(fields []cryptobyte.String) (object, error) // nil: the private half is in a security key
}

const (
	textField = iota // a string, or a number, which is written as one
	flags            // one byte
)

func sshKind(name string) (k sshPrivate, known bool) {
	switch {
	case name == "ssh-rsa":
		return sshPrivate{make([]int, 6), sshRSAPrivate}, true
	case name == "ssh-ed25519":
		return sshPrivate{make([]int, 2), sshEd25519Private}, true
	case name == "ssh-dss":
		return sshPrivate{make([]int, 5), sshDSAPrivate}, true
	case strings.HasPrefix(name, "ecdsa-sha2-nistp") && !strings.Contains(name, "@"):
		return sshPrivate{make([]int, 3), sshECPrivate}, true
	case name == "sk-ssh-ed25519@openssh.com": // key, application, flags, handle, reserved (PROTOCOL.u2f)
		return sshPrivate{fields: []int{textField, textField, flags, textField, textField}}, true
	case name == "sk-ecdsa-sha2-nistp256@openssh.com":
		return sshPrivate{fields: []int{textField, textField, textField, flags, textField, textField}}, true
	}
	return sshPrivate{}, false
}

// sshRSAPrivate takes n, e, d, the coefficient, p and q.
func sshRSAPrivate(fields []cryptobyte.String) (object, error) {
	var numbers [6]*big.Int
	for i, f := range fields {
		var ok bool
		if numbers[i], ok = unsigned(f); !ok {
			return object{}, errDamaged
		}
	}
	k := rsaNumbers{n: numbers[0], e: numbers[1], d: numbers[2], coefficients: numbers[3:4:4], primes: numbers[4:6:6]}
	o, err := rsaObject(k.n, k.e)
	o.privateSPKI = o.spki
	return k.judge(o), err
}

// sshEd25519Private takes the public key, and seed and public key together.
func sshEd25519Private(fields []cryptobyte.String) (object, error) {
	a, err := bareAlgorithm(oidEd25519)
	if err != nil {
		return object{}, err
	}
	if len(fields[1]) != ed25519.PrivateKeySize {
		return object{}, errDamaged
	}
	made := ed25519.NewKeyFromSeed(fields[1][:ed25519.SeedSize])[ed25519.SeedSize:]
	o, err := privateObject(a, fields[0], made)
	if !bytes.Equal(fields[1][ed25519.SeedSize:], made) {
		o.numbers = madeOther
	}
	return o, err
}

// sshDSAPrivate takes p, q, g, y and x.
func sshDSAPrivate(fields []cryptobyte.String) (object, error) {
	k, err := readDSANumbers(func() (b []byte, ok bool) {
		b, fields = fields[0], fields[1:]
		return b, len(b) > 0
	})
	if err != nil {
		return object{}, err
	}
	return k.object()
}

// sshECPrivate takes the curve, the point and the scalar.
func sshECPrivate(fields []cryptobyte.String) (object, error) {
	c, known := curve.Named("P-" + strings.TrimPrefix(string(fields[0]), "nistp"))
	if !known {
		return object{}, errDamaged
	}
	a, err := ecAlgorithm(c.OID)
	if err != nil {
		return object{}, err
	}
	return ecPrivate(a, fields[2], fields[1])
}
