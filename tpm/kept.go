package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
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
type Kept struct {
	body      keptBody
	evidence  device.Evidence
	statement evidence.Statement
	areas     map[string]*tpm2.TPMTPublic // by the id of the key
}

// keptBody is what is signed.
type keptBody struct {
	Schema       string       `json:"schema"`
	Keys         []keptKey    `json:"keys"`
	Certificates evidence.Hex `json:"certificates"` // SHA-256 of the EK certificates in NV
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
	keptSchema = "keyvet.kept/1"

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
		return nil, fmt.Errorf("tpm: kept keys: %w", err)
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
	k := &Kept{body: file.keptBody, evidence: file.Evidence, areas: make(map[string]*tpm2.TPMTPublic)}
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

// holds returns why a TPM that is in that state is not in one of k any more: other
// firmware may make other keys, and the count of resets, which nothing turns back,
// begins again after TPM2_Clear (Part 1, on resetCount).
func (k *Kept) holds(firmware uint64, resets, restarts uint32) error {
	was := &k.statement
	switch {
	case firmware != was.FirmwareVersion:
		return errors.New("other firmware")
	case resets < was.ResetCount, resets == was.ResetCount && restarts < was.RestartCount:
		return fmt.Errorf("%d resets, and %d before: cleared since", resets, was.ResetCount)
	}
	return nil
}

// UseKept has [TPM.Inventory] take the keys of k that it would have to have made,
// on trust: until [TPM.Attest] has succeeded on the same TPM value, nothing shows
// that they are of this TPM. The error says why k is not of the TPM as it is now.
// a is the attestation key in use from here on; it takes the place of [TPM.UseAK].
func (t *TPM) UseKept(a *AK, k *Kept) error {
	_, err := t.Info()
	s := t.read.stated.Load()
	if s == nil {
		return fmt.Errorf("tpm: kept keys: the TPM is not in working order (%v)", err)
	}
	err = k.holds(s.firmware, s.clock.ResetCount, s.clock.RestartCount)
	if !bytes.Equal(objectName(tpm2.Marshal(*a.area)), k.statement.AKName) {
		err = errors.New("another attestation key has signed them")
	}
	if err != nil {
		return fmt.Errorf("tpm: kept keys: %w", err)
	}
	t.ak, t.read.kept = a, k
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
	if err := t.quotePCRs(e, ak.NamedHandle, evidence.QualifyingData(digest, nonce), tpm2.TPMAlgSHA256, nil); err != nil {
		return nil, nil, err
	}
	s, err := evidence.VerifyDigest(e, digest)
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: the TPM signed something else: %w", err)
	}
	return e, s, nil
}
