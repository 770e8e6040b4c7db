package tpm

import (
	"errors"
	"fmt"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/attempts"
)

// parent is where a key file says that its key lies: under the storage key at a
// persistent handle, or under the primary storage key of a hierarchy.
type parent struct {
	handle tpm2.TPMHandle
	rsa    bool // of a hierarchy: its RSA-2048 key, where there is no P-256
}

// rsaStorage is template H-1 with an empty unique field, as a key file has it
// for rsaParent ("ASN.1 Specification for TPM 2.0 Key Files", section 3.1).
var rsaStorage = func() tpm2.TPMTPublic {
	area := tpm2.RSASRKTemplate
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return area
}()

// The primary keys that a key file means by the owner hierarchy: template H-2
// with an empty unique field ("ASN.1 Specification for TPM 2.0 Key Files",
// section 3.1), another key than storageRootKey, and its like of RSA.
var (
	storageParent    = primary{"tpm-key-parent", "ECDSA-P256", "SRK-P256 (H)", tpm2.TPMRHOwner, keyfile.ECCSRK_H2_Template}
	rsaStorageParent = primary{"tpm-key-parent", "RSA-2048", "SRK-RSA2048 (H)", tpm2.TPMRHOwner, rsaStorage}
)

// storageKeys returns the primary storage keys of a hierarchy, the one of P-256
// and the one of RSA-2048.
func storageKeys(hierarchy tpm2.TPMHandle) (p256, rsa primary) {
	if hierarchy == tpm2.TPMRHEndorsement {
		return endorsementStorage, rsaEndorsementStorage
	}
	return storageParent, rsaStorageParent
}

// withParent has the parent of a key for as long as use runs, and tells it which
// one it is: a file that names none of RSA may come from a TPM without P-256.
func (t *TPM) withParent(p parent, use func(parent, tpm2.AuthHandle) error) error {
	if isPersistent(p.handle) {
		h, area, err := t.readPublic(p.handle)
		if err != nil {
			return err
		}
		if err := mayStore(area); err != nil {
			return fmt.Errorf("%w at %#08x: %w", errNoParent, uint32(p.handle), err)
		}
		where := fmt.Sprintf("%#08x", uint32(p.handle))
		return t.byEmptyPassword(h, area, where, "the storage key at "+where, func() error { return use(p, h) })
	}
	p256, rsa := storageKeys(p.handle)
	if p.rsa {
		p256 = rsa
	}
	err := t.withEither(p256, rsa, func(made primary, h tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
		return use(parent{p.handle, made.area.Type == tpm2.TPMAlgRSA}, withoutPassword(h.Handle, h.Name))
	})
	if noKey, ok := errors.AsType[*notMade](err); ok { // not to be taken for what the TPM says of the key itself
		return fmt.Errorf("the TPM makes no storage key to be its parent, neither of P-256 nor of RSA-2048: %v", noKey.err)
	}
	return err
}

// errNoParent: the key cannot be the parent of others.
var errNoParent = errors.New("no storage key")

// mayStore returns why a key cannot be the parent of others, by what its public
// area says (Part 1, on storage keys), or nil.
func mayStore(area *tpm2.TPMTPublic) error {
	switch a := area.ObjectAttributes; {
	case area.Type != tpm2.TPMAlgRSA && area.Type != tpm2.TPMAlgECC:
		return errors.New("what is there has no public key")
	case a.SignEncrypt || !a.Decrypt:
		return errors.New("the key that is there is for signing")
	case !a.Restricted:
		return errors.New("the key that is there is not restricted to what the TPM made")
	case !a.UserWithAuth:
		return errors.New("the key that is there needs a policy, which is not supported")
	}
	return nil
}

// isOfParent reports whether the TPM refused not the key to be made but its
// parent: its handle, its password, or the use of keys with one.
func isOfParent(err error) bool {
	if errors.Is(err, errNoParent) || errors.Is(err, tpm2.TPMRCLockout) || errors.Is(err, attempts.ErrRefused) || errors.Is(err, attempts.ErrTooClose) {
		return true
	}
	format1, ok := errors.AsType[tpm2.TPMFmt1Error](err)
	if !ok {
		return false
	}
	handle, _ := format1.Handle()
	session, _ := format1.Session()
	return handle || session
}

// without reports whether an error is that of a TPM which does not make a kind
// of key: it says so, or does not list it.
func (t *TPM) without(err error, area *tpm2.TPMTPublic) bool {
	if err == nil || errors.Is(err, errTPM12) || isTPM12(err) {
		return false
	}
	return errors.Is(err, errUnsupported) || t.lacks(area)
}

// notMade is the error of a TPM that makes neither of two keys.
type notMade struct{ err error }

func (n *notMade) Error() string { return n.err.Error() }
func (n *notMade) Unwrap() error { return n.err }

// withEither makes a primary key for as long as use runs: of P-256, or of RSA on
// a TPM that lacks P-256, as its lists say or its answer.
func (t *TPM) withEither(p256, rsa primary, use func(primary, tpm2.NamedHandle, tpm2.TPM2BPublic) error) error {
	made := false
	with := func(p primary) error {
		return t.withPrimary(p, func(h tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
			made = true
			return use(p, h, public)
		})
	}
	err := with(p256)
	if !made && t.without(err, &p256.area) && p256.area.Type == tpm2.TPMAlgECC {
		if rsaErr := with(rsa); rsaErr == nil || made || !errors.Is(rsaErr, errUnsupported) {
			return rsaErr
		}
	}
	if err != nil && !made && errors.Is(err, errUnsupported) {
		return &notMade{err}
	}
	return err
}
