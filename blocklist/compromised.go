package blocklist

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// Compromised looks a key up among those whose private half is public. The key
// is known by its SubjectPublicKeyInfo, as it was found and as certificates
// have it, and in a set of the kind [Named] also by its number: the modulus, the
// x coordinate, y of DSA, the public key of Ed25519. Asked
// is false if the list has no such keys at all, or the key has none of these, as a
// private key has whose public half nobody computed. An error means that the list
// could not be read.
func (l *List) Compromised(k device.Key) (entries []device.Compromised, asked bool, err error) {
	return Lists{l}.Compromised(k)
}

// Compromised asks every list; see [List.Compromised]. A list that could not
// answer is an error, beside the entries that others have.
func (ls Lists) Compromised(k device.Key) (all []device.Compromised, asked bool, err error) {
	var sums keySums
	if len(k.SPKI) > 0 {
		sums.spki = append(sums.spki, sha256.Sum256(k.SPKI))
	}
	spki, unknown := marshalSPKI(k.Public)
	if unknown != nil {
		spki = usualSPKI(k.SPKI)
	}
	if len(spki) > 0 && !bytes.Equal(spki, k.SPKI) {
		sums.spki = append(sums.spki, sha256.Sum256(spki))
	}
	if number := keyNumberOf(k); len(number) > 0 {
		sums.number = append(sums.number, sha256.Sum256(number))
	}
	for _, l := range ls {
		entries, has, failed := l.compromised(sums)
		all, asked, err = append(all, entries...), asked || has && (sums.spki != nil || sums.number != nil), cmp.Or(err, failed)
	}
	return all, asked, err
}

// keySums are what lists of compromised keys know one key by.
type keySums struct{ spki, number [][sha256.Size]byte }

func (l *List) compromised(sums keySums) (entries []device.Compromised, has bool, err error) {
	defer l.recoverFault(&err)()
	for i := range l.sets {
		s := &l.sets[i]
		switch s.Kind {
		case Named:
			has = true
			entries = append(entries, s.findNamed(sums)...)
		case Compromised, SPKISHA256:
			has = true
			for _, f := range sums.spki {
				if at, found := s.find(f[:]); found {
					name, _ := s.entryName(at) // the key is listed all the same
					entries = append(entries, device.Compromised{
						Name: name, List: s.Title, Cite: s.Cite, Reason: s.Reason,
					})
					break
				}
			}
		}
	}
	return entries, has, nil
}

// findNamed returns the entries of a set that are the key, or share its number.
// One whose name cannot be unpacked is returned without it.
func (s *set) findNamed(sums keySums) (entries []device.Compromised) {
	var places []int
	for _, sum := range slices.Concat(sums.spki, sums.number) {
		for _, place := range s.named.find(fingerprint(sum[:])) {
			if slices.Contains(places, place) {
				continue
			}
			places = append(places, place)
			e, _ := s.named.entry(place) // the key is listed all the same
			entries = append(entries, device.Compromised{
				Name: e.Name, Class: e.Class, Source: e.Source, List: s.Title, Cite: s.Cite, Reason: s.Reason,
			})
		}
	}
	return entries
}

// find returns where a list has a fingerprint.
func (s *set) find(fingerprint []byte) (at int, found bool) {
	size := uint64(s.Kind.entryBytes())
	return sort.Find(s.Keys, func(i int) int { return bytes.Compare(fingerprint, s.entries.read(uint64(i)*size, size)) })
}

// entryName is the name of an entry, "" if it has none.
func (s *set) entryName(at int) (name string, err error) {
	if s.Kind != Compromised {
		return "", nil
	}
	defer returnFault(&err)
	begin := uint64(binary.LittleEndian.Uint32(s.labels.read(4*uint64(at), 4)))
	if begin >= s.names.n || begin+1+uint64(s.names.read(begin, 1)[0]) > s.names.n {
		return "", errors.New("a name lies outside the list")
	}
	text := s.names.read(begin+1, uint64(s.names.read(begin, 1)[0]))
	return string(text), checkText("name of a key", text)
}

// debianFingerprint is what openssl-blacklist knows a modulus by.
func debianFingerprint(n keyNumber) []byte {
	sum := debian.OpenSSLBlacklist(n.Int)
	return sum[:]
}

// usualSPKI encodes a key that is not understood as certificates do: one on a curve
// that is known by the name of the curve and both coordinates (RFC 5480), one with a
// NULL for parameters without it (RFC 8410). It is nil for others.
func usualSPKI(spki []byte) []byte {
	k, _ := device.SplitSPKI(spki)
	oid, params, key := k.Algorithm, []byte(nil), k.Key
	switch {
	case oid.Equal(oidEC), oid.Equal(oidECDH):
		c, known := curve.Known(k.Params)
		if !known {
			return nil
		}
		point, ok := c.Uncompressed(key)
		if !ok {
			return nil
		}
		oid, key = oidEC, point
		params, _ = asn1.Marshal(c.OID) // one that is known
	case !bytes.Equal(k.Params, asn1.NullBytes):
		return nil
	}
	usual, _ := marshalInfo(oid, params, key) // of what could be read
	return usual
}

// marshalSPKI encodes a key as certificates do (RFC 5280, section 4.1).
func marshalSPKI(pub crypto.PublicKey) ([]byte, error) {
	large, ok := pub.(*device.LargeRSA)
	if !ok {
		return x509.MarshalPKIXPublicKey(pub)
	}
	key, err := asn1.Marshal(*large) // RSAPublicKey (RFC 8017, section A.1.1) is N and E too
	if err != nil {
		return nil, err
	}
	return marshalInfo(oidRSA, asn1.NullBytes, key)
}

// marshalInfo makes a SubjectPublicKeyInfo; params is DER.
func marshalInfo(oid asn1.ObjectIdentifier, params, key []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: params}},
		asn1.BitString{Bytes: key, BitLength: 8 * len(key)},
	})
}
