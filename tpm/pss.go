package tpm

import (
	"crypto"
	"crypto/rand"
	"encoding/binary"
	"errors"
)

// padPSS is EMSA-PSS-ENCODE (RFC 8017, section 9.1.1) of a digest for an RSA
// key of so many bits, with MGF1 of the same hash and a fresh salt. The result
// is as long as the modulus, and less than it.
func padPSS(bits int, digest []byte, hash crypto.Hash, saltLen int) ([]byte, error) {
	whole := make([]byte, (bits+7)/8)
	em := whole[len(whole)-(bits-1+7)/8:] // one byte less where the modulus has a bit in a byte of its own
	h := hash.New()
	hashLen := h.Size()
	if saltLen < 0 || len(em) < hashLen+saltLen+2 {
		return nil, errors.New("the key is too short for such a salt")
	}
	db, m := em[:len(em)-hashLen-1], em[len(em)-hashLen-1:len(em)-1]
	salt := db[len(db)-saltLen:]
	rand.Read(salt) // never fails
	h.Write(make([]byte, 8))
	h.Write(digest)
	h.Write(salt)
	h.Sum(m[:0])
	db[len(db)-saltLen-1] = 1
	maskMGF1(db, m, hash)
	db[0] &= 0xff >> (8*len(em) - (bits - 1))
	em[len(em)-1] = 0xbc
	return whole, nil
}

// maskMGF1 XORs out with MGF1 of seed (RFC 8017, appendix B.2.1).
func maskMGF1(out, seed []byte, hash crypto.Hash) {
	for counter := uint32(0); len(out) > 0; counter++ {
		h := hash.New()
		h.Write(seed)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		for _, b := range h.Sum(nil) {
			if len(out) == 0 {
				return
			}
			out[0] ^= b
			out = out[1:]
		}
	}
}
