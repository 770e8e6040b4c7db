package tpm

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

// NV indices of the EK Profile, section 2.2.1.4 and 2.2.1.5.
const (
	firstEKIndex    = 0x01c00000
	lastEKIndex     = 0x01c07fff
	firstChainIndex = 0x01c00100 // certificates of the issuers
	lastChainIndex  = 0x01c001ff
)

// keyOfIndex is the endorsement key whose certificate is at an index.
var keyOfIndex = map[uint32]string{0x01c00002: "tpm-ek-rsa2048", 0x01c0000a: "tpm-ek-p256", 0x01c00012: "tpm-ek-rsa2048", 0x01c00014: "tpm-ek-p256", 0x01c00016: "tpm-ek-p384"}

// holdsCertificate tells whether an index of the range is for a certificate,
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
	index uint32
	der   []byte
	cert  *x509.Certificate // nil if unparsable
	err   error             // why it is
}

func (c *certificate) source() string { return fmt.Sprintf("tpm:nv:%#08x", c.index) }

// key is the key in the certificate, under that id.
func (c *certificate) key(id string) (device.Key, error) {
	if c.err != nil {
		return device.Key{}, c.err
	}
	public := c.cert.PublicKey
	if public == nil {
		public = &device.OtherKey{Algorithm: c.cert.PublicKeyAlgorithm.String()}
	}
	return device.Key{ID: id, Role: device.RoleEK, Source: c.source(), Public: public, SPKI: c.cert.RawSubjectPublicKeyInfo}, nil
}

// readCertificates reads the certificates of the endorsement keys, and apart
// from them those of their issuers.
func (inv *inventory) readCertificates() (certs []*certificate, issuers []*x509.Certificate) {
	indices, err := inv.t.handles(firstEKIndex, lastEKIndex)
	if err != nil {
		inv.gap("tpm: EK certificates", err)
		return nil, nil
	}
	for _, h := range indices {
		index := uint32(h)
		if !holdsCertificate(index) {
			continue
		}
		c := &certificate{index: index}
		content, err := inv.t.readNV(h)
		if err != nil {
			inv.gap(c.source(), err)
			continue
		}
		for len(content) > 0 {
			var der []byte
			if der, content, err = ekcert.Unwrap(content); err != nil {
				inv.gap(c.source(), err)
				break
			}
			c := &certificate{index: index, der: der}
			c.cert, c.err = ekcert.Parse(der)
			if index < firstChainIndex || index > lastChainIndex {
				certs = append(certs, c)
			} else if c.err != nil {
				inv.gap(c.source(), c.err)
			} else {
				issuers = append(issuers, c.cert)
			}
		}
	}
	return certs, issuers
}

// readNV reads a whole NV index. Where the index has a password, a wrong guess
// could count towards the lockout of the TPM, so the index is read by its own,
// empty authorization only if it is exempt from that, else by the owner's,
// which always is.
func (t *TPM) readNV(index tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("tpm: read public area of NV index: %w", err)
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("tpm: read public area of NV index: %w", err)
	}
	a := public.Attributes
	nv := tpm2.NamedHandle{Handle: index, Name: rsp.NVName}
	auth := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	switch {
	case !a.Written:
		return nil, fmt.Errorf("tpm: NV index was never written: %w", ekcert.ErrNotCertificate)
	case a.AuthRead && a.NoDA:
		auth.Handle, auth.Name = nv.Handle, nv.Name
	case !a.OwnerRead:
		return nil, errors.New("tpm: NV index can be read neither without a password nor by the owner")
	}
	if public.DataSize > ekcert.MaxBytes {
		return nil, fmt.Errorf("tpm: NV index of %d bytes: %w", public.DataSize, ekcert.ErrNotCertificate)
	}
	properties, err := t.properties()
	if err != nil {
		return nil, err
	}
	chunk := uint16(min(properties[tpm2.TPMPTNVBufferMax], 1024))
	if chunk == 0 {
		chunk = 512
	}
	content := make([]byte, 0, public.DataSize)
	for offset := uint16(0); offset < public.DataSize; {
		size := min(chunk, public.DataSize-offset)
		rsp, err := tpm2.NVRead{AuthHandle: auth, NVIndex: nv, Size: size, Offset: offset}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("tpm: read NV index: %w", err)
		}
		if len(rsp.Data.Buffer) != int(size) {
			return nil, fmt.Errorf("tpm: read NV index: %d bytes instead of %d", len(rsp.Data.Buffer), size)
		}
		content = append(content, rsp.Data.Buffer...)
		offset += size
	}
	return content, nil
}

// addCertificates gives each key its certificate, which is the one with the
// same public key. A certificate of no key that was read is a key of its own:
// the TPM claims it.
func (inv *inventory) addCertificates(certs []*certificate, issuers []*x509.Certificate) {
	for _, c := range certs {
		if c.err != nil {
			inv.addUnparsable(c)
			continue
		}
		chain := append([]*x509.Certificate{c.cert}, issuersOf(c.cert, issuers)...)
		matched := false
		for i := range inv.keys {
			k := &inv.keys[i]
			if bits := keyBits(k.SPKI); k.Chain == nil && bits != nil && bytes.Equal(bits, keyBits(c.cert.RawSubjectPublicKeyInfo)) {
				k.Chain, matched = chain, true
			}
		}
		if k, err := c.key(fmt.Sprintf("tpm-ek-nv-%#08x", c.index)); err == nil && !matched {
			k.Chain = chain
			inv.addKey(k)
		}
	}
}

// addUnparsable tells of a certificate that cannot be parsed with the key that
// its index is for, else as a gap.
func (inv *inventory) addUnparsable(c *certificate) {
	why := fmt.Sprintf("%s: %v", c.source(), c.err)
	for i := range inv.keys {
		if k := &inv.keys[i]; k.ID == keyOfIndex[c.index] {
			k.CertificateError = why
			return
		}
	}
	inv.gaps = append(inv.gaps, device.Gap{What: "EK certificate", Why: why, Minor: true})
}

// issuersOf is the path from a certificate upwards, as far as it is there.
func issuersOf(cert *x509.Certificate, all []*x509.Certificate) []*x509.Certificate {
	var path []*x509.Certificate
next:
	for range all { // no path is longer, and a loop ends
		for _, issuer := range all {
			if bytes.Equal(cert.RawIssuer, issuer.RawSubject) && !bytes.Equal(cert.Raw, issuer.Raw) {
				path, cert = append(path, issuer), issuer
				continue next
			}
		}
		break
	}
	return path
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
