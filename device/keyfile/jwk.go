package keyfile

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// jwk is a JSON Web Key (RFC 7517; RFC 7518, section 6; RFC 8037, section 2).
type jwk struct {
	Type  string   `json:"kty"`
	Curve string   `json:"crv"`
	N     string   `json:"n"`
	E     string   `json:"e"`
	X     string   `json:"x"`
	Y     string   `json:"y"`
	D     string   `json:"d"`
	P     string   `json:"p"`
	Q     string   `json:"q"`
	DP    string   `json:"dp"`
	DQ    string   `json:"dq"`
	QI    string   `json:"qi"`
	X5C   []string `json:"x5c"`
}

// jwkCurves names the curves of RFC 7518, section 6.2.1.1 and of RFC 8812, section 3.1.
var jwkCurves = map[string]string{"P-256": "P-256", "P-384": "P-384", "P-521": "P-521", "secp256k1": "secp256k1"}

func isJSON(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 0 && (data[0] == '{' || data[0] == '[') && json.Valid(data)
}

// readJSON reads JSON Web Keys. Other JSON may hold PEM.
func (c *contents) readJSON(data []byte) {
	if !c.readJWK(data, 1) {
		c.readText(string(data))
	}
}

// readJWK reads a JSON Web Key, a set of them (RFC 7517, section 5) or a bare
// list, which begins in that line, and reports whether data is one.
func (c *contents) readJWK(data []byte, line int) bool {
	var list []json.RawMessage
	var set struct {
		Keys []json.RawMessage `json:"keys"`
		Type *string           `json:"kty"`
	}
	switch {
	case json.Unmarshal(data, &set) == nil && set.Type != nil:
		list = []json.RawMessage{data}
	case set.Keys != nil:
		list = set.Keys
	case json.Unmarshal(data, &list) == nil:
	}
	if len(list) == 0 || !isJWK(list[0]) {
		return false
	}
	rest := data
	for i, raw := range list {
		before := max(0, bytes.Index(rest, raw))
		line += bytes.Count(rest[:before], []byte("\n"))
		rest = rest[before:]
		at := place{line: line}
		if c.full() {
			c.gap(fmt.Sprintf("from key %d", i+1), tooMany)
			break
		}
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			c.lose(at, "damaged JWK: a member is not of its type")
			continue
		}
		c.addJWK(at, k)
	}
	return true
}

func isJWK(raw json.RawMessage) bool {
	var k struct {
		Type *string `json:"kty"`
	}
	return json.Unmarshal(raw, &k) == nil && k.Type != nil
}

// addJWK adds a key and the certificates beside it, of which the first must be
// for this key (RFC 7517, section 4.7).
func (c *contents) addJWK(at place, k jwk) {
	o, err := k.object()
	if err != nil {
		c.lose(at, err.Error())
		return
	}
	var certificates []object
	for i, text := range k.X5C {
		der, err := base64.StdEncoding.DecodeString(text)
		var certificate object
		if err == nil {
			certificate, err = parseDER(der)
		}
		if err != nil || !certificate.certificate {
			c.lose(at, fmt.Sprintf("damaged JWK: x5c %d is not a certificate", i+1))
			continue
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) > 0 { // check chain compares the two keys
		first := certificates[0]
		o.certificate, o.x509, o.x509Error = true, first.x509, first.x509Error
		if device.SameKey(o.spki, first.spki) {
			if device.SameKey(o.privateSPKI, o.spki) {
				o.privateSPKI = first.spki
			}
			o.spki = first.spki // in one form
		}
		certificates = certificates[1:]
	}
	c.add(at, o, nil)
	for _, certificate := range certificates {
		c.add(at, certificate, nil)
	}
}

func (k jwk) object() (object, error) {
	var o object
	var err error
	switch k.Type {
	case "RSA":
		o, err = k.rsa()
	case "EC":
		o, err = k.ec()
	case "OKP":
		o, err = k.okp()
	case "oct":
		return object{}, errors.New("JWK of a symmetric key")
	default:
		return object{}, fmt.Errorf("JWK of the unknown type %q", oneLine(k.Type))
	}
	if err != nil {
		return object{}, fmt.Errorf("damaged JWK: %w", err)
	}
	return o, nil
}

func (k jwk) rsa() (object, error) {
	names := []string{"n", "e", "d", "p", "q", "dp", "dq", "qi"}
	members := []string{k.N, k.E, k.D, k.P, k.Q, k.DP, k.DQ, k.QI}
	numbers := make([]*big.Int, len(members))
	for i, text := range members {
		if i > 1 && text == "" { // RFC 7518, section 6.3.2: d may stand alone
			numbers[i] = new(big.Int)
			continue
		}
		b, err := base64URL(names[i], text)
		if err == nil && len(b) > maxRSABits/8+1 {
			err = fmt.Errorf("number of more than %d bits in the key", maxRSABits)
		}
		if err != nil {
			return object{}, err
		}
		numbers[i] = new(big.Int).SetBytes(b)
	}
	o, err := rsaObject(numbers[0], numbers[1])
	if err != nil || k.D == "" {
		return o, err
	}
	o.private, o.privateSPKI = true, o.spki
	private := rsaNumbers{n: numbers[0], e: numbers[1], d: numbers[2], primes: numbers[3:5:5], exponents: numbers[5:7:7], coefficients: numbers[7:8:8]}
	return private.judge(o), nil
}

func (k jwk) ec() (object, error) {
	name, known := jwkCurves[k.Curve]
	if !known {
		return otherKey("ECDSA-%s", oneLine(k.Curve)), nil
	}
	x, err := base64URL("x", k.X)
	if err != nil {
		return object{}, err
	}
	y, err := base64URL("y", k.Y)
	if err != nil {
		return object{}, err
	}
	c, _ := curve.Named(name)
	a, err := ecAlgorithm(c.OID)
	if err != nil {
		return object{}, err
	}
	size := max(len(x), len(y))
	if c.Std != nil {
		size = (c.Std.Params().BitSize + 7) / 8
	}
	if len(x) > size || len(y) > size {
		return object{}, fmt.Errorf("coordinates too long for %s", name)
	}
	point := make([]byte, 1+2*size) // RFC 7518 wants full octets; not all keep to it
	point[0] = 4
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	o, err := buildSPKI(a, point)
	if err != nil || k.D == "" {
		return o, err
	}
	d, err := base64URL("d", k.D)
	if err != nil {
		return object{}, err
	}
	made, answer := pointOf(a.params, d)
	if made != nil {
		return privateObject(a, point, made)
	}
	o.private, o.privateSPKI, o.numbers = true, o.spki, answer
	return o, nil
}

func (k jwk) okp() (object, error) {
	oid := map[string]asn1.ObjectIdentifier{"Ed25519": oidEd25519, "X25519": oidX25519, "Ed448": oidEd448, "X448": oidX448}[k.Curve]
	if oid == nil {
		return otherKey("OKP-%s", oneLine(k.Curve)), nil
	}
	x, err := base64URL("x", k.X)
	if err != nil {
		return object{}, err
	}
	a, err := bareAlgorithm(oid)
	if err != nil {
		return object{}, err
	}
	o, err := buildSPKI(a, x)
	if err != nil || k.D == "" {
		return o, err
	}
	d, err := base64URL("d", k.D)
	if err != nil {
		return object{}, err
	}
	switch k.Curve {
	case "Ed25519":
		if len(d) != ed25519.SeedSize {
			return object{}, fmt.Errorf("d has %d bytes, not %d", len(d), ed25519.SeedSize)
		}
		return privateObject(a, x, ed25519.NewKeyFromSeed(d)[ed25519.SeedSize:])
	case "X25519":
		private, err := ecdh.X25519().NewPrivateKey(d)
		if err != nil {
			return object{}, errors.New("d is not a key of X25519")
		}
		return privateObject(a, x, private.PublicKey().Bytes())
	}
	return unknownPrivate(a, x)
}

// base64URL decodes a member, which must be there. Padding is against RFC 7515,
// section 2, but does no harm.
func base64URL(member, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s is missing or not base64url", member)
	}
	return b, nil
}
