package tpm

import (
	"encoding/pem"
	"errors"
	"fmt"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
)

// AK is an attestation key that is kept, in a file or at a persistent handle.
// Without one, [TPM] makes a primary key by a template, each time the same.
//
// In a file it is a child of the endorsement hierarchy's storage key: a random
// key, which is another one after each TPM2_Clear and on each installation, as
// the primary key is not. It is no child of the EK, whose policy would take a
// session besides, and whose RSA template takes a chip minutes. On a TPM without
// P-256, key and storage key are RSA-2048; there a key at a handle saves minutes.
type AK struct {
	handle tpm2.TPMHandle // 0: it is in the file
	file   *loadable      // nil: it is at the handle
	area   *tpm2.TPMTPublic
}

// ErrAKUnusable: the TPM cannot load this attestation key, and never will: it is
// of another TPM, or this one was cleared since.
var ErrAKUnusable = errors.New("the attestation key cannot be used")

// The primary keys that a key file means by the endorsement hierarchy, as those
// of storageParent are by the owner hierarchy.
var (
	endorsementStorage    = primary{"tpm-ak-parent", "ECDSA-P256", "SRK-P256 (H)", tpm2.TPMRHEndorsement, keyfile.ECCSRK_H2_Template}
	rsaEndorsementStorage = primary{"tpm-ak-parent", "RSA-2048", "SRK-RSA2048 (H)", tpm2.TPMRHEndorsement, rsaStorage}
)

// ParseAK reads what [AK.PEM] wrote.
func ParseAK(text []byte) (*AK, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlobType {
		return nil, fmt.Errorf("read attestation key: %w", ErrNoKeyBlob)
	}
	file, err := parseLoadable(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read attestation key: %w", err)
	}
	area, err := file.Pubkey.Contents()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read attestation key: public area: %w", err)
	case !file.Keytype.Equal(keyfile.OIDLoadableKey) || file.Parent != tpm2.TPMRHEndorsement || !isAK(area):
		return nil, errors.New("read attestation key: the key in the file is another one")
	}
	return &AK{file: file, area: area}, nil
}

// PEM is the key as a TSS2 PRIVATE KEY, which its TPM alone can use; nil if it
// is at a persistent handle.
func (a *AK) PEM() []byte {
	if a.file == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlobType, Bytes: a.file.marshal()})
}

func (a *AK) source() string {
	if a.file != nil {
		return "tpm:blob"
	}
	return fmt.Sprintf("tpm:%#08x", uint32(a.handle))
}

// CreateAK makes an attestation key to be kept in a file, and has it sign once:
// a key that is kept shows that this TPM can attest. Nothing of it stays in the
// TPM.
func (t *TPM) CreateAK() (*AK, error) {
	a, err := t.createAK(attestationKey)
	if t.without(err, &attestationKey.area) {
		if rsa, rsaErr := t.createAK(rsaAttestationKey); !errors.Is(rsaErr, errUnsupported) {
			a, err = rsa, rsaErr
		}
	}
	if err == nil {
		err = a.with(t, func(ak loadedAK) error {
			_, _, err := t.signState(ak, [32]byte{})
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("create attestation key: %w", err)
	}
	return a, nil
}

func (t *TPM) createAK(template primary) (*AK, error) {
	a := new(AK)
	err := t.withParent(parent{handle: tpm2.TPMRHEndorsement}, func(p parent, h tpm2.AuthHandle) error {
		rsp, err := tpm2.Create{ParentHandle: h, InPublic: tpm2.New2B(template.area)}.Execute(t.forCreation(&template.area))
		if err != nil {
			return explainCreation(err)
		}
		if a.area, err = rsp.OutPublic.Contents(); err != nil {
			return err
		}
		a.file = newLoadable(rsp, p)
		return t.saveNew(h, a.file, a.area)
	})
	return a, err
}

// PersistentAK is the attestation key at a persistent handle of the owner,
// 0x81000000 to 0x817fffff. If nothing is there, the primary key is put there
// (TPM2_EvictControl, Part 3, section 28.5), which needs the owner hierarchy to
// have no password; this alone changes the TPM. A key that was not made by
// keyvet's template is refused: it may have a password that nobody can give.
func (t *TPM) PersistentAK(handle uint32) (*AK, error) {
	a := &AK{handle: tpm2.TPMHandle(handle)}
	if !isPersistent(a.handle) || handle > lastOwnerPersistent {
		return nil, fmt.Errorf("attestation key: %#08x is no persistent handle of the owner: those are 0x81000000 to 0x817fffff", handle)
	}
	_, area, err := t.readPublic(a.handle)
	if errors.Is(err, tpm2.TPMRCHandle) {
		if err = t.persistAK(a.handle); err == nil {
			_, area, err = t.readPublic(a.handle)
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("attestation key: %w", err)
	case !isAK(area):
		return nil, fmt.Errorf("attestation key: another key is at %#08x: choose a handle that is free", handle)
	}
	a.area = area
	return a, nil
}

func (t *TPM) persistAK(handle tpm2.TPMHandle) error {
	return t.withEither(attestationKey, rsaAttestationKey, func(_ primary, h tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
		owner, err := t.hierarchy(tpm2.TPMRHOwner)
		if err == nil {
			_, err = tpm2.EvictControl{Auth: owner, ObjectHandle: &h, PersistentHandle: handle}.Execute(t)
		}
		if err != nil {
			return fmt.Errorf("put it at %#08x: %w", uint32(handle), explain(t.ofHierarchy(tpm2.TPMRHOwner, err)))
		}
		return nil
	})
}

// UseAK has [TPM.Inventory], [TPM.Attest] and [TPM.Activate] use that key, once
// the TPM has shown that it can. It comes before them. The error wraps
// ErrAKUnusable if there is nothing for it but another key.
func (t *TPM) UseAK(a *AK) error {
	if err := a.with(t, func(loadedAK) error { return nil }); err != nil {
		return fmt.Errorf("attestation key: %w", err)
	}
	t.ak = a
	return nil
}

// loadedAK is an attestation key that is in the TPM.
type loadedAK struct {
	tpm2.NamedHandle
	source string // as sources tell it
	public tpm2.TPM2BPublic
	parent []byte // its name; nil for a primary key
}

// withAK has the attestation key in the TPM for as long as use runs.
func (t *TPM) withAK(use func(loadedAK) error) error {
	if t.ak != nil {
		return t.ak.with(t, use)
	}
	return t.withEither(attestationKey, rsaAttestationKey, func(p primary, h tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
		return use(loadedAK{NamedHandle: h, source: "tpm:template:" + p.name, public: public})
	})
}

func (a *AK) with(t *TPM, use func(loadedAK) error) error {
	if a.file == nil {
		h, area, err := t.readPublic(a.handle)
		if err != nil {
			return err
		}
		if !sameKey(area, a.area) {
			return fmt.Errorf("another key is at %#08x than before", uint32(a.handle))
		}
		return use(loadedAK{NamedHandle: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}, source: a.source(), public: tpm2.New2B(*area)})
	}
	err := t.withLoaded(a.file, a.area, saveAgain, func(h tpm2.NamedHandle, parent tpm2.TPM2BName) error {
		return use(loadedAK{NamedHandle: h, source: a.source(), public: a.file.Pubkey, parent: parent.Buffer})
	})
	if errors.Is(err, ErrNotLoadable) {
		return fmt.Errorf("%w: %w", ErrAKUnusable, err)
	}
	return err
}
