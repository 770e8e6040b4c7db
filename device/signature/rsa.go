package signature

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"hash"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// maxRSA bounds what is computed with: bits of the modulus times bits of the
// exponent. OpenSSL takes exponents of 64 bits with the largest modulus, of 16384.
const (
	maxRSA     = 16384 * 64
	maxRSABits = 16384
)

// verifyRSA is RSASSA-PKCS1-v1_5 or RSASSA-PSS (RFC 8017, section 8). crypto/rsa
// refuses keys of less than 1024 bits and strange exponents: the signature by
// such a key is not what is wrong with it.
func (s Scheme) verifyRSA(key device.Key, digest, signature []byte) Result {
	n, e, _ := key.RSA()
	if n.Sign() <= 0 || n.BitLen() > maxRSABits || e.Sign() <= 0 || n.BitLen()*e.BitLen() > maxRSA {
		return Result{Why: "its numbers are not computed with"}
	}
	if why := s.limits(key.SPKI); why != "" {
		return Result{Why: why}
	}
	size := (n.BitLen() + 7) / 8
	m := new(big.Int).SetBytes(signature)
	if len(signature) != size || m.Cmp(n) >= 0 {
		return of(false)
	}
	m.Exp(m, e, n)
	if s.pss != nil {
		return of(s.pss.verify(m, n.BitLen()-1, digest))
	}
	want, ok := encodePKCS1(s.hash, digest, size)
	return of(ok && bytes.Equal(m.FillBytes(make([]byte, size)), want))
}

// limits returns what the algorithm of a key's SPKI does not allow it to sign by
// (RFC 4055, section 1.2); "" if it does.
func (s Scheme) limits(spki []byte) string {
	in := cryptobyte.String(spki)
	var body, algorithm cryptobyte.String
	if !in.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1(&algorithm, tag.SEQUENCE) {
		return ""
	}
	var oid asn1.ObjectIdentifier
	algorithm.ReadASN1ObjectIdentifier(&oid)
	switch oid.String() {
	case pkcs1 + "7":
		return "the key is for encryption only"
	case oidPSS:
		if s.pss == nil {
			return "the key is for RSASSA-PSS only"
		}
		if p, ok := readPSS(algorithm); !algorithm.Empty() && (!ok || p.hash != s.pss.hash || p.mask != s.pss.mask || p.salt > s.pss.salt) {
			return "the key is for RSASSA-PSS with other parameters only"
		}
	}
	return ""
}

// hashOIDs are those of hashes (RFC 8017, appendix B.1; RFC 8702).
var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.MD5:        {1, 2, 840, 113549, 2, 5},
	crypto.SHA1:       {1, 3, 14, 3, 2, 26},
	crypto.SHA224:     {2, 16, 840, 1, 101, 3, 4, 2, 4},
	crypto.SHA256:     {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384:     {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512:     {2, 16, 840, 1, 101, 3, 4, 2, 3},
	crypto.SHA512_224: {2, 16, 840, 1, 101, 3, 4, 2, 5},
	crypto.SHA512_256: {2, 16, 840, 1, 101, 3, 4, 2, 6},
	crypto.SHA3_224:   {2, 16, 840, 1, 101, 3, 4, 2, 7},
	crypto.SHA3_256:   {2, 16, 840, 1, 101, 3, 4, 2, 8},
	crypto.SHA3_384:   {2, 16, 840, 1, 101, 3, 4, 2, 9},
	crypto.SHA3_512:   {2, 16, 840, 1, 101, 3, 4, 2, 10},
}

// encodePKCS1 is EMSA-PKCS1-v1_5 (RFC 8017, section 9.2); ok is false if it does
// not fit in size bytes.
func encodePKCS1(h crypto.Hash, digest []byte, size int) (encoded []byte, ok bool) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hashOIDs[h])
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(digest)
	})
	info, err := b.Bytes()
	if err != nil || size < len(info)+11 {
		return nil, false
	}
	encoded = bytes.Repeat([]byte{0xff}, size)
	encoded[0], encoded[1], encoded[size-len(info)-1] = 0, 1, 0
	copy(encoded[size-len(info):], info)
	return encoded, true
}

// pss are the parameters of RSASSA-PSS (RFC 4055, section 3.1).
type pss struct {
	hash, mask crypto.Hash
	salt       int // bytes
}

// readPSS reads RSASSA-PSS-params.
func readPSS(params cryptobyte.String) (*pss, bool) {
	p := &pss{crypto.SHA1, crypto.SHA1, 20}
	var body cryptobyte.String
	if !params.ReadASN1(&body, tag.SEQUENCE) || !params.Empty() {
		return nil, false
	}
	trailer := 1
	for n, read := range []func(*cryptobyte.String) bool{
		func(s *cryptobyte.String) (ok bool) { p.hash, ok = readHash(s); return ok },
		func(s *cryptobyte.String) (ok bool) { p.mask, ok = readMask(s); return ok },
		func(s *cryptobyte.String) bool { return s.ReadASN1Integer(&p.salt) },
		func(s *cryptobyte.String) bool { return s.ReadASN1Integer(&trailer) },
	} {
		var field cryptobyte.String
		var there bool
		if !body.ReadOptionalASN1(&field, &there, tag.Tag(n).Constructed().ContextSpecific()) || there && (!read(&field) || !field.Empty()) {
			return nil, false
		}
	}
	return p, body.Empty() && trailer == 1 && p.salt >= 0 && p.salt <= maxRSABits/8
}

// readHash reads the AlgorithmIdentifier of a hash.
func readHash(s *cryptobyte.String) (crypto.Hash, bool) {
	var body cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) {
		return 0, false
	}
	oid := oidOf(body)
	for h, id := range hashOIDs {
		if id.String() == oid {
			return h, true
		}
	}
	return 0, false
}

// readMask reads the AlgorithmIdentifier of MGF1, and returns its hash.
func readMask(s *cryptobyte.String) (crypto.Hash, bool) {
	var body cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || oidOf(body) != pkcs1+"8" || !body.SkipASN1(tag.OBJECT_IDENTIFIER) {
		return 0, false
	}
	return readHash(&body)
}

// verify is EMSA-PSS-VERIFY (RFC 8017, section 9.1.2) of a message of that many bits.
func (p *pss) verify(m *big.Int, bits int, digest []byte) bool {
	size, length := (bits+7)/8, len(digest)
	if m.BitLen() > bits || size < length+p.salt+2 {
		return false
	}
	encoded := m.FillBytes(make([]byte, size))
	masked, h := encoded[:size-length-1], encoded[size-length-1:size-1]
	top := byte(0xff >> (8*size - bits))
	if encoded[size-1] != 0xbc || masked[0]&^top != 0 {
		return false
	}
	mgf1(p.mask.New(), masked, h)
	masked[0] &= top
	zeros, salt := masked[:len(masked)-p.salt-1], masked[len(masked)-p.salt:]
	if masked[len(zeros)] != 1 || len(bytes.Trim(zeros, "\x00")) > 0 {
		return false
	}
	again := p.hash.New()
	again.Write(make([]byte, 8))
	again.Write(digest)
	again.Write(salt)
	return bytes.Equal(again.Sum(nil), h)
}

// mgf1 takes the mask of a seed off what is masked (RFC 8017, appendix B.2.1).
func mgf1(h hash.Hash, masked, seed []byte) {
	for counter := uint32(0); len(masked) > 0; counter++ {
		h.Reset()
		h.Write(seed)
		h.Write([]byte{byte(counter >> 24), byte(counter >> 16), byte(counter >> 8), byte(counter)})
		mask := h.Sum(nil)
		for i := range min(len(mask), len(masked)) {
			masked[i] ^= mask[i]
		}
		masked = masked[min(len(mask), len(masked)):]
	}
}
