package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Kept is what a TPM has shown of the keys that it makes of a seed and a template,
// for later boots: making an RSA key again, to see that it is the same, takes a
// chip 2 to 25 s.
//
// The TPM's attestation key has signed it. That key is a child of the endorsement
// hierarchy, or a primary key there, so a TPM that signs by it has the seed that
// the endorsement keys were made of, and makes the same ones; one of a file is of
// no use either after a TPM2_Clear, which changes the storage root key. Kept is
// therefore worth as much as a signature by that key in this boot, and no more:
// [TPM.UseKept] takes it on trust, and [TPM.Attest] makes that good.
//
// With the keys goes what needs no asking where they are the same: which of them
// the TPM is known by, which does not change with the same firmware, and the
// public areas of NV indices, by which these are read.
type Kept struct {
	body      keptBody
	evidence  device.Evidence
	statement evidence.Statement
	areas     map[string]*tpm2.TPMTPublic // by the id of the key
	indices   map[tpm2.TPMHandle]*nvIndex
}

// keptBody is what is signed.
type keptBody struct {
	Schema       string       `json:"schema"`
	Keys         []keptKey    `json:"keys"`
	NamingKey    string       `json:"namingKey"`    // id of the one that the TPM is known by; "" if it has none
	Certificates evidence.Hex `json:"certificates"` // SHA-256 of the EK certificates in NV
	Indices      []keptIndex  `json:"indices"`      // that were read
}

type keptIndex struct {
	Public  []byte       `json:"public"` // TPMS_NV_PUBLIC
	Name    evidence.Hex `json:"name"`
	Content evidence.Hex `json:"content"` // SHA-256
}

type keptKey struct {
	ID     string `json:"id"`
	Public []byte `json:"public"` // TPMT_PUBLIC
}

// keptFile is the form in which it is written.
type keptFile struct {
	keptBody
	Evidence device.Evidence `json:"evidence"`
}

const (
	keptSchema = "keyvet.kept/2"

	// MaxKeptBytes bounds what [Kept.Encode] returns.
	MaxKeptBytes = 32 << 10
)

func (b keptBody) digest() [sha256.Size]byte {
	text, _ := json.Marshal(b) // no error: texts and bytes
	return sha256.Sum256(text)
}

// Encode returns k as JSON.
func (k *Kept) Encode() ([]byte, error) { return json.Marshal(keptFile{k.body, k.evidence}) }

// ParseKept reads what [Kept.Encode] wrote. What no attestation key has signed,
// and a key that is of no template, is refused.
func ParseKept(text []byte) (*Kept, error) {
	k, err := parseKept(text)
	if err != nil {
		return nil, fmt.Errorf("kept keys: %w", err)
	}
	return k, nil
}

func parseKept(text []byte) (*Kept, error) {
	if len(text) > MaxKeptBytes {
		return nil, fmt.Errorf("more than %d bytes", MaxKeptBytes)
	}
	var file keptFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	k := &Kept{
		body: file.keptBody, evidence: file.Evidence,
		areas: make(map[string]*tpm2.TPMTPublic), indices: make(map[tpm2.TPMHandle]*nvIndex),
	}
	if k.body.Schema != keptSchema {
		return nil, fmt.Errorf("schema %.40q is not %s", k.body.Schema, keptSchema)
	}
	for _, key := range k.body.Keys {
		area, err := keptArea(key)
		if err != nil {
			return nil, fmt.Errorf("%.40q: %w", key.ID, err)
		}
		if k.areas[key.ID] != nil {
			return nil, fmt.Errorf("%s is there twice", key.ID)
		}
		k.areas[key.ID] = area
	}
	for _, index := range k.body.Indices {
		public, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](index.Public)
		if err != nil {
			return nil, fmt.Errorf("NV index: %w", err)
		}
		k.indices[public.NVIndex] = &nvIndex{*public, tpm2.TPM2BName{Buffer: index.Name}, index.Content}
	}
	statement, err := evidence.VerifyDigest(&k.evidence, k.body.digest())
	if err != nil {
		return nil, err
	}
	k.statement = *statement
	return k, nil
}

// keptArea is the public area of a key, which is one of the template of its id.
func keptArea(key keptKey) (*tpm2.TPMTPublic, error) {
	template := templateOf(key.ID)
	if template == nil {
		return nil, errors.New("no key that is kept")
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](key.Public)
	switch {
	case err != nil:
		return nil, err
	case !bytes.Equal(tpm2.Marshal(*area), key.Public) || !sameTemplate(area, &template.area):
		return nil, errors.New("not of its template")
	}
	return area, nil
}

// templateOf is the template of a key that may be kept; nil if there is none.
func templateOf(id string) *primary {
	for _, p := range []*primary{&storageRootKey, &rsaStorageRootKey} {
		if p.id == id {
			return p
		}
	}
	for i := range endorsementKeys {
		if endorsementKeys[i].id == id {
			return &endorsementKeys[i].primary
		}
	}
	return nil
}

// holds returns why a TPM that signs s is not as it was when it signed k: other
// firmware may make other keys, and the count of resets, which nothing turns back,
// begins again after TPM2_Clear (Part 1, on resetCount).
func (k *Kept) holds(s *evidence.Statement) error {
	was := &k.statement
	switch {
	case s.FirmwareVersion != was.FirmwareVersion:
		return errors.New("other firmware")
	case s.ResetCount < was.ResetCount, s.ResetCount == was.ResetCount && s.RestartCount < was.RestartCount:
		return fmt.Errorf("%d resets, and %d before: cleared since", s.ResetCount, was.ResetCount)
	}
	return nil
}

// UseKept has [TPM.Inventory] take the keys of k that it would have to have made,
// on trust: until [TPM.Attest] has succeeded on the same TPM value, nothing shows
// that they are of this TPM. The error says why k is not of the TPM as it is now.
// a is the attestation key in use from here on; it takes the place of [TPM.UseAK].
//
// Whether the TPM is in failure mode is not asked: in that mode it signs nothing.
func (t *TPM) UseKept(a *AK, k *Kept) error {
	s, err := t.describe()
	if err == nil && s.firmware != k.statement.FirmwareVersion {
		err = errors.New("other firmware")
	}
	if !bytes.Equal(objectName(tpm2.Marshal(*a.area)), k.statement.AKName) {
		err = errors.New("another attestation key has signed them")
	}
	if err != nil {
		return fmt.Errorf("kept keys: %w", err)
	}
	t.ak, t.read.kept = a, k
	t.read.stated.Store(s)
	return nil
}

// Shown returns what the TPM has shown of its keys in the last [TPM.Inventory], to
// be kept; nil if there is nothing new.
func (t *TPM) Shown() *Kept { return t.read.shown }

// keptPrimary returns a key of k, which is nil where nothing is kept. The storage
// root key is of another seed than the attestation key: what shows that it is the
// same is that the file of the attestation key can still be used.
func (t *TPM) keptPrimary(p primary) (object, bool) {
	k := t.read.kept
	if k == nil || p.hierarchy != tpm2.TPMRHEndorsement && t.ak.file == nil {
		return object{}, false
	}
	area := k.areas[p.id]
	if area == nil {
		return object{}, false
	}
	return object{source: "tpm:kept:" + p.name, area: area, public: tpm2.Marshal(*area)}, true
}

// readEndorsements reads the certificates of the endorsement keys and those of
// their issuers. If they are others than those that keys are kept with, or not all
// could be read, nothing is taken from what is kept.
func (inv *inventory) readEndorsements() (certs []*certificate, issuers []*x509.Certificate) {
	before := len(inv.gaps)
	certs, issuers = inv.readCertificates()
	inv.toKeep.Certificates = certificatesDigest(certs)
	if inv.open(before) > 0 {
		inv.toKeep.Certificates = nil
	}
	if k := inv.t.read.kept; k != nil && !bytes.Equal(k.body.Certificates, inv.toKeep.Certificates) {
		inv.t.read.kept = nil
	}
	inv.t.read.certificates.Store(&endorsements{certs, issuers})
	return certs, issuers
}

// errOther: what is kept of something is not what it is now.
var errOther = errors.New("not as it was")

// readKept reads an NV index by what is kept of it, if it holds what it held then.
func (inv *inventory) readKept(index tpm2.TPMHandle) ([]byte, error) {
	k := inv.t.read.kept
	if k == nil || k.indices[index] == nil {
		return nil, errOther
	}
	was := k.indices[index]
	content, err := inv.t.readIndex(was)
	if digest := sha256.Sum256(content); err == nil && !bytes.Equal(digest[:], was.content) {
		err = errOther
	}
	if err == nil {
		inv.keepIndex(was)
	}
	return content, err
}

// certificatesDigest is what of the EK certificates is kept.
func certificatesDigest(certs []*certificate) []byte {
	h := sha256.New()
	for _, c := range certs {
		h.Write(binary.BigEndian.AppendUint32(nil, c.index))
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(c.der))))
		h.Write(c.der)
	}
	return h.Sum(nil)
}

// signState has the attestation key sign a digest, and what it says of its firmware and
// resets with it. A nonce shows that it did so now.
func (t *TPM) signState(ak loadedAK, digest [sha256.Size]byte) (*device.Evidence, *evidence.Statement, error) {
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	text := base64.StdEncoding.EncodeToString
	e := &device.Evidence{
		Level: device.EvidenceSelfAsserted, AKPublic: text(ak.public.Bytes()), AKParent: text(ak.parent), Nonce: text(nonce),
	}
	if err := t.quotePCRs(e, ak.NamedHandle, evidence.QualifyingData(digest, nonce, nil), tpm2.TPMAlgSHA256, nil); err != nil {
		return nil, nil, err
	}
	s, err := evidence.VerifyDigest(e, digest)
	if err != nil {
		return nil, nil, fmt.Errorf("the TPM signed something else: %w", err)
	}
	return e, s, nil
}
