package tpm

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

// NV indices of the EK Profile, section 2.2.1.4 and 2.2.1.5.
const (
	firstEKIndex    = 0x01c00000
	lastEKIndex     = 0x01c07fff
	firstChainIndex = 0x01c00100 // certificates of the issuers
	lastChainIndex  = 0x01c001ff
)

// NV indices of platform certificates (TCG Registry of Reserved TPM 2.0 Handles
// and Localities) and of the certificates of device identities, IDevID and IAK
// (TCG TPM 2.0 Keys for Device Identity and Attestation).
const (
	firstPlatformIndex = 0x01c08000
	lastPlatformIndex  = 0x01c0ffff
	firstIdentityIndex = 0x01c90000
	lastIdentityIndex  = 0x01c9ffff
)

// holdsCertificate reports whether an index of the range is for a certificate,
// and not for a template or nonce.
func holdsCertificate(index uint32) bool {
	switch index {
	case 0x01c00003, 0x01c00004, 0x01c0000b, 0x01c0000c:
		return false
	}
	high := index >= 0x01c00012 && index < firstChainIndex
	return !high || index%2 == 0
}

// certificate is what an NV index holds.
type certificate struct {
	index  uint32
	der    []byte
	cert   *x509.Certificate // nil if unparsable
	err    error             // why it is
	odd    string            // what of its encoding breaks the standards
	public crypto.PublicKey  // nil if there is none, or it cannot be told
	spki   []byte            // of the key, as it is in the certificate
}

// parse fills in all but index and der. Of an unparsable certificate, its key
// is taken even so.
func (c *certificate) parse() {
	if c.cert, c.odd, c.err = keyfile.ParseCertificate(c.der); c.err != nil {
		c.public, c.spki, _ = keyfile.CertificateKey(c.der)
		return
	}
	c.public, c.spki = c.cert.PublicKey, c.cert.RawSubjectPublicKeyInfo
}

func (c *certificate) source() string { return fmt.Sprintf("tpm:nv:%#08x", c.index) }

// why returns why the certificate cannot be parsed.
func (c *certificate) why() string { return fmt.Sprintf("%s: %v", c.source(), c.err) }

// key is the key in the certificate, under that id.
func (c *certificate) key(id string) device.Key {
	role := device.RoleEK
	if c.index >= firstIdentityIndex && c.index <= lastIdentityIndex {
		role = device.RolePersistent
	}
	return device.Key{ID: id, Role: role, Source: c.source(), Public: c.public, SPKI: c.spki}
}

// endorsements are the certificates in NV of the endorsement keys, and of their
// issuers.
type endorsements struct {
	certs   []*certificate
	issuers []*x509.Certificate
}

// readCertificates reads the certificates of the endorsement keys, and apart
// from them those of their issuers.
func (inv *inventory) readCertificates() (certs []*certificate, issuers []*x509.Certificate) {
	for _, c := range inv.readRange("tpm: EK certificates", firstEKIndex, lastEKIndex) {
		if c.index < firstChainIndex || c.index > lastChainIndex {
			certs = append(certs, c)
		} else if c.err != nil {
			inv.gap(c.source(), c.err)
		} else {
			issuers = append(issuers, c.cert)
		}
	}
	return certs, issuers
}

// readIdentities reads the certificates of the device's identities, and apart
// from them those of their issuers.
func (inv *inventory) readIdentities() (certs []*certificate, issuers []*x509.Certificate) {
	for _, c := range inv.readRange("tpm: device identity certificates", firstIdentityIndex, lastIdentityIndex) {
		if c.err == nil && c.cert.IsCA {
			issuers = append(issuers, c.cert)
		} else {
			certs = append(certs, c)
		}
	}
	return certs, issuers
}

// readPlatformCertificate is the digest of the first platform certificate, or "".
func (inv *inventory) readPlatformCertificate() string {
	for _, h := range inv.indices("tpm: platform certificates", firstPlatformIndex, lastPlatformIndex) {
		content, err := inv.readNV(h)
		if err != nil {
			inv.platformGap(uint32(h), err)
		} else if digest := certificateDigest(content); digest != "" {
			return digest
		}
	}
	return ""
}

// platformGap tells that a platform certificate cannot be read, which is minor:
// there is no key in it.
func (inv *inventory) platformGap(index uint32, why error) {
	inv.gaps = append(inv.gaps, device.Gap{What: (&certificate{index: index}).source(), Why: "platform certificate: " + why.Error(), Minor: true})
}

// certificateDigest is the lower-case hex SHA-256 of the certificate in an NV
// index, an X.509 or an attribute certificate; "" if there is none.
func certificateDigest(content []byte) string {
	der, _, err := ekcert.Unwrap(content)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// indices are the NV indices from first up to last, of a list that is read once.
func (inv *inventory) indices(what string, first, last uint32) (indices []tpm2.TPMHandle) {
	if inv.nv == nil {
		nv, err := inv.t.handles(firstEKIndex, lastIdentityIndex)
		if err != nil {
			inv.gap(what, err)
			return nil
		}
		inv.nv = &nv
	}
	for _, h := range *inv.nv {
		if uint32(h) >= first && uint32(h) <= last {
			indices = append(indices, h)
		}
	}
	return indices
}

// readRange reads all certificates at the NV indices from first up to last.
func (inv *inventory) readRange(what string, first, last uint32) []*certificate {
	var parts []part
	for _, h := range inv.indices(what, first, last) {
		index := uint32(h)
		if !holdsCertificate(index) {
			continue
		}
		content, err := inv.readNV(h)
		parts = append(parts, part{index, content, err})
	}
	return inv.certificatesIn(parts)
}

// certificatesIn returns the certificates that indices hold. Those of a chain
// are one stream of bytes over its indices: each may hold one, or several, or a
// part of one (EK Profile, section 2.2.1.5.2).
func (inv *inventory) certificatesIn(parts []part) []*certificate {
	var certs []*certificate
	var cut part
	for _, p := range parts {
		if p.err != nil {
			inv.gap((&certificate{index: p.index}).source(), p.err)
			if inv.isGuarded(p.err) {
				inv.excusable = append(inv.excusable, excusable{len(inv.gaps) - 1, ekOf(p.index)})
			}
			continue
		}
		found, rest, err := split(p)
		if cut.bytes != nil {
			joined, restOfJoined, joinedErr := split(part{index: cut.index, bytes: slices.Concat(cut.bytes, p.bytes)})
			if len(joined) > 0 && joined[0].err == nil || len(joined) == 0 && joinedErr == nil {
				found, rest, err = joined, restOfJoined, joinedErr
			} else {
				inv.cutOff(cut) // what follows is not its end
			}
		}
		if certs, cut = append(certs, found...), rest; err != nil {
			inv.gap((&certificate{index: p.index}).source(), err)
		}
	}
	inv.cutOff(cut)
	return certs
}

// part is what an NV index holds of a stream, or what is left of it.
type part struct {
	index uint32 // that it begins in
	bytes []byte
	err   error // why it could not be read
}

// cutOff adds as a gap a certificate that goes on nowhere.
func (inv *inventory) cutOff(p part) {
	if p.bytes != nil {
		inv.gap((&certificate{index: p.index}).source(), fmt.Errorf("the certificate ends after %d bytes: %w", len(p.bytes), ekcert.ErrNotCertificate))
	}
}

// split returns the certificates of a part, and of a chain what may go on in
// the next one.
func split(p part) (certs []*certificate, cut part, err error) {
	for content := p.bytes; len(content) > 0; {
		c := &certificate{index: p.index}
		der, rest, err := ekcert.Unwrap(content)
		if err != nil && p.index >= firstChainIndex && p.index <= lastChainIndex && ekcert.IsCut(content) {
			return certs, part{index: p.index, bytes: content}, nil
		}
		if err != nil {
			return certs, part{}, err
		}
		c.der, content = der, rest
		c.parse()
		certs = append(certs, c)
	}
	return certs, part{}, nil
}

// addCertificates gives each key its certificate, which is the first one with
// the same public key. Any other certificate is a key of its own: the TPM
// claims it.
func (inv *inventory) addCertificates(certs []*certificate, issuers []*x509.Certificate) {
	pool := device.NewIssuers(issuers)
	for _, c := range certs {
		var chain []*x509.Certificate
		if c.err == nil {
			chain = pool.Chain(c.cert)
		}
		matched := false
		for i := range inv.keys {
			k := &inv.keys[i]
			bits := keyBits(k.SPKI)
			if (bits == nil || !bytes.Equal(bits, keyBits(c.spki))) && !c.isOnlyFor(k.ID) {
				continue
			}
			switch {
			case c.err == nil && k.Chain == nil:
				k.Chain, k.Beside, k.Encoding, matched = chain, issuers, c.odd, true
			case c.err != nil && k.CertificateError == "":
				k.CertificateError, matched = c.why(), true
			}
		}
		switch {
		case matched:
		case c.public == nil:
			inv.gaps = append(inv.gaps, device.Gap{What: "certificate", Why: c.why(), Minor: true})
		default:
			k := c.key(fmt.Sprintf("tpm-nv-%#08x", c.index))
			if k.Role == device.RoleEK {
				k.ID = fmt.Sprintf("tpm-ek-nv-%#08x", c.index)
			}
			if k.Chain, k.Beside, k.Encoding = chain, issuers, c.odd; c.err != nil {
				k.CertificateError = c.why()
			}
			inv.addKey(k)
		}
	}
}

// isOnlyFor reports whether only the NV index says whose certificate it is, and
// names the key with that id.
func (c *certificate) isOnlyFor(id string) bool {
	return c.public == nil && slices.ContainsFunc(endorsementKeys, func(ek endorsementKey) bool { return ek.index == c.index && ek.id == id })
}

// keyBits is the key in a SubjectPublicKeyInfo without its algorithm, which
// some certificates give as RSAES-OAEP for what is the same key; nil if there is none.
func keyBits(spki []byte) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil
	}
	return info.Key.Bytes
}
