package keyfile

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Packet types of OpenPGP with a key (RFC 9580, section 5).
const (
	pgpSecretKey    = 5
	pgpPublicKey    = 6
	pgpSecretSubkey = 7
	pgpPublicSubkey = 14
)

// pgpCurves are the curves of ECDSA, EdDSA and ECDH (RFC 9580, section 9.2).
var pgpCurves = map[string]string{
	"1.3.6.1.4.1.11591.15.1": "Ed25519",
	"1.3.6.1.4.1.3029.1.5.1": "X25519",
}

// isOpenPGP reports whether data begins with a key packet of OpenPGP.
func isOpenPGP(data []byte) bool {
	packet, body, _, err := readPacket(data)
	return err == nil && (packet == pgpPublicKey || packet == pgpSecretKey) && len(body) > 6 && body[0] >= 2 && body[0] <= 6
}

// isKeybox reports whether data is a GnuPG keybox: a blob of its size, of type 1
// and version 1, with a magic word.
func isKeybox(data []byte) bool { return len(data) >= 12 && string(data[8:12]) == "KBXf" }

// addArmour reads the OpenPGP keys of an armoured block (RFC 9580, section 6).
// The checksum may be left out, and says nothing that damage in a key does not.
func (c *contents) addArmour(at place, text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[1 : len(lines)-1]
	for i, line := range lines {
		if strings.Contains(line, ": ") || strings.HasSuffix(line, ":") {
			continue // a header
		}
		lines = lines[i:]
		break
	}
	var body strings.Builder
	for _, line := range lines {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=") {
			body.WriteString(line)
		}
	}
	data, err := base64.StdEncoding.DecodeString(body.String())
	switch {
	case err != nil:
		c.lose(at, "damaged OpenPGP armour: not base64 between BEGIN and END")
	case !isOpenPGP(data):
		c.lose(at, "damaged OpenPGP block: it does not begin with a key")
	default:
		c.addOpenPGP(at, data)
	}
}

// addOpenPGP reads the keys and subkeys of OpenPGP packets, of versions 2 to 6.
// User ids and signatures are passed over.
func (c *contents) addOpenPGP(at place, data []byte) {
	for len(data) > 0 {
		if c.full() {
			c.gap(at.name(c.number+1), tooMany)
			return
		}
		packet, body, rest, err := readPacket(data)
		if err != nil {
			c.lose(at, err.Error())
			return
		}
		data = rest
		switch packet {
		case pgpPublicKey, pgpPublicSubkey, pgpSecretKey, pgpSecretSubkey:
			k, err := parsePGPKey(body)
			if err == nil && (packet == pgpSecretKey || packet == pgpSecretSubkey) {
				k.object = k.withPrivate()
			}
			c.add(at, k.object, err)
		}
	}
}

var errPacket = errors.New("truncated or damaged OpenPGP packet")

// readPacket reads the first packet of data (RFC 9580, section 4.2), of which
// the body may come in parts.
func readPacket(data []byte) (packet int, body, rest []byte, err error) {
	if len(data) < 2 || data[0]&0x80 == 0 {
		return 0, nil, nil, errPacket
	}
	if data[0]&0x40 == 0 {
		return legacyPacket(data)
	}
	packet, rest = int(data[0]&0x3f), data[1:]
	var parts []byte
	for {
		length, partial, n := packetLength(rest)
		if n == 0 || length > len(rest)-n {
			return 0, nil, nil, errPacket
		}
		body, rest = rest[n:n+length], rest[n+length:]
		if !partial && parts == nil {
			return packet, body, rest, nil
		}
		parts = append(parts, body...)
		if !partial {
			return packet, parts, rest, nil
		}
	}
}

// packetLength reads a length, of which n bytes are the encoding.
func packetLength(b []byte) (length int, partial bool, n int) {
	switch {
	case len(b) == 0:
	case b[0] < 192:
		return int(b[0]), false, 1
	case b[0] < 224:
		if len(b) >= 2 {
			return (int(b[0])-192)<<8 + int(b[1]) + 192, false, 2
		}
	case b[0] < 255:
		return 1 << (b[0] & 0x1f), true, 1
	case len(b) >= 5:
		return int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4]), false, 5
	}
	return 0, false, 0
}

// legacyPacket reads a packet with a header of the older form.
func legacyPacket(data []byte) (packet int, body, rest []byte, err error) {
	packet = int(data[0] >> 2 & 0xf)
	n := 1 << (data[0] & 3)
	if n == 8 { // to the end
		return packet, data[1:], nil, nil
	}
	if len(data) < 1+n {
		return 0, nil, nil, errPacket
	}
	length := 0
	for _, b := range data[1 : 1+n] {
		length = length<<8 | int(b)
	}
	if length > len(data)-1-n {
		return 0, nil, nil, errPacket
	}
	return packet, data[1+n : 1+n+length], data[1+n+length:], nil
}

// pgpPublic is the public half of a key packet.
type pgpPublic struct {
	object
	version uint8
	behind  cryptobyte.String // the private half, if there is one
	private pgpPrivate        // how it is read; nil: it is not
}

// parsePGPKey reads the public half of a key packet (RFC 9580, section 5.5.2),
// which is in clear also where the private half is encrypted.
func parsePGPKey(s cryptobyte.String) (k pgpPublic, err error) {
	damaged := errors.New("truncated or damaged OpenPGP key")
	var algorithm uint8
	if !s.ReadUint8(&k.version) || !s.Skip(4) { // when it was made
		return k, damaged
	}
	switch k.version {
	case 2, 3:
		if !s.Skip(2) { // days of validity
			return k, damaged
		}
	case 4, 5, 6:
	default:
		return k, fmt.Errorf("OpenPGP key of version %d", k.version)
	}
	if !s.ReadUint8(&algorithm) {
		return k, damaged
	}
	public := s
	if k.version >= 5 {
		var size uint32
		if !s.ReadUint32(&size) || uint64(size) > uint64(len(s)) {
			return k, damaged
		}
		public, k.behind = s[:size], s[size:]
	}
	k.object, k.private, err = pgpKey(algorithm, &public)
	if k.version < 5 {
		k.behind = public
	}
	if errors.Is(err, errPacket) {
		err = damaged
	}
	return k, err
}

// pgpKey reads the key of an algorithm (RFC 9580, sections 5.5.5 and 9.1). What
// follows is its private half.
func pgpKey(algorithm uint8, s *cryptobyte.String) (object, pgpPrivate, error) {
	switch algorithm {
	case 1, 2, 3:
		list, err := readMPIs(s, 2)
		if err != nil {
			return object{}, nil, err
		}
		o, err := rsaObject(list[0], list[1])
		return o, pgpRSA(list[0], list[1]), err
	case 16, 20:
		list, err := readMPIs(s, 3)
		if err != nil {
			return object{}, nil, err
		}
		return otherKey("ElGamal-%d", list[0].BitLen()), nil, nil
	case 17:
		list, err := readMPIs(s, 4)
		if err != nil {
			return object{}, nil, err
		}
		o, err := dsaNumbers{p: list[0], q: list[1], g: list[2], y: list[3]}.object()
		return o, pgpDSA(list), err
	case 18, 19, 22:
		o, private, err := pgpEC(s)
		var kdf cryptobyte.String
		if err == nil && algorithm == 18 && !s.ReadUint8LengthPrefixed(&kdf) {
			private = nil
		}
		return o, private, err
	case 25:
		return pgpOctets(oidX25519, 32, s)
	case 26:
		return pgpOctets(oidX448, 56, s)
	case 27:
		return pgpOctets(oidEd25519, 32, s)
	case 28:
		return pgpOctets(oidEd448, 57, s)
	}
	return otherKey("OpenPGP-algorithm-%d", algorithm), nil, nil
}

// readMPIs reads as many numbers.
func readMPIs(s *cryptobyte.String, count int) (list []*big.Int, err error) {
	for range count {
		n, err := readMPI(s)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// readMPI reads a number (RFC 9580, section 3.2).
func readMPI(s *cryptobyte.String) (*big.Int, error) {
	var bits uint16
	var b []byte
	if !s.ReadUint16(&bits) || !s.ReadBytes(&b, (int(bits)+7)/8) {
		return nil, errPacket
	}
	n := new(big.Int).SetBytes(b)
	if n.BitLen() > maxRSABits {
		return nil, fmt.Errorf("number of %d bits in the key, more than %d", n.BitLen(), maxRSABits)
	}
	return n, nil
}

// pgpEC reads a curve and a point on it, or a key of Curve25519 behind the byte 40.
func pgpEC(s *cryptobyte.String) (object, pgpPrivate, error) {
	var oidBytes cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&oidBytes) || len(oidBytes) == 0 || len(oidBytes) > 62 {
		return object{}, nil, errPacket
	}
	element := cryptobyte.String(append([]byte{6, byte(len(oidBytes))}, oidBytes...))
	var oid asn1.ObjectIdentifier
	if !readOID(&element, &oid) {
		return object{}, nil, errPacket
	}
	var bits uint16
	var point []byte
	if !s.ReadUint16(&bits) || !s.ReadBytes(&point, (int(bits)+7)/8) {
		return object{}, nil, errPacket
	}
	if name := pgpCurves[oid.String()]; name != "" {
		key, ok := bytes.CutPrefix(point, []byte{0x40})
		if !ok {
			return object{}, nil, errPacket
		}
		octets := cryptobyte.String(key)
		of := oidEd25519
		if name == "X25519" {
			of = oidX25519
		}
		o, private, err := pgpOctets(of, 32, &octets)
		return o, private.ofNumber(name == "X25519"), err
	}
	a, err := ecAlgorithm(oid)
	if err != nil {
		return object{}, nil, err
	}
	o, err := buildSPKI(a, point)
	return o, pgpScalar(a, point), err
}

// pgpOctets reads a key that is a string of n bytes.
func pgpOctets(oid asn1.ObjectIdentifier, n int, s *cryptobyte.String) (object, pgpPrivate, error) {
	var key []byte
	if !s.ReadBytes(&key, n) {
		return object{}, nil, errPacket
	}
	a, err := bareAlgorithm(oid)
	if err != nil {
		return object{}, nil, err
	}
	o, err := buildSPKI(a, key)
	return o, pgpPrivateOctets(a, key), err
}
