package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Activate answers a verifier's challenge with its secret, which only the TPM
// can that has both the endorsement key and the attestation key of the
// challenge (TPM2_ActivateCredential, Part 3, section 12.5). It takes two free
// transient slots.
func (t *TPM) Activate(c *evidence.Challenge) (secret []byte, err error) {
	const most = 1 << 10 // bytes; a secret is as long as an RSA key
	if len(c.CredentialBlob) > most || len(c.Secret) > most {
		return nil, errors.New("activate: the challenge is too large to be one")
	}
	err = t.withAK(func(ak loadedAK) error {
		return t.withEK(c, func(ek tpm2.NamedHandle, area *tpm2.TPMTPublic) error {
			err := t.endorsed(ek, area, func(ek tpm2.AuthHandle) error {
				rsp, err := tpm2.ActivateCredential{
					ActivateHandle: emptyAuth(ak.NamedHandle), KeyHandle: ek,
					CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.CredentialBlob}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
				}.Execute(t)
				if err == nil {
					secret = rsp.CertInfo.Buffer
				}
				return err
			})
			switch {
			case errors.Is(err, tpm2.TPMRCIntegrity):
				return fmt.Errorf("activate: the challenge is damaged, or was made for another attestation key: %w", err)
			case err != nil:
				return fmt.Errorf("activate: %w", explain(err))
			}
			return nil
		})
	})
	return secret, err
}

// withEK uses the endorsement key that a challenge is to, at its persistent
// handle or else made by a template of its algorithm.
func (t *TPM) withEK(c *evidence.Challenge, use func(tpm2.NamedHandle, *tpm2.TPMTPublic) error) error {
	wanted := func(area *tpm2.TPMTPublic) bool {
		_, spki, err := publicKey(area)
		return err == nil && device.Key{SPKI: spki}.SPKISHA256() == c.EKSPKISHA256
	}
	handles, err := t.handles(firstEKHandle, lastEKHandle)
	if err != nil {
		return err
	}
	for _, h := range handles {
		public, name, err := t.publicOf(h)
		if err != nil {
			return fmt.Errorf("read public area: %w", explain(err))
		}
		if area, err := named(public, name); err == nil && isEK(area, c.EKAlgorithm) && wanted(area) {
			return use(tpm2.NamedHandle{Handle: h, Name: name}, area)
		}
	}
	found := false
	for _, ek := range endorsementKeys {
		if found || ek.algorithm != c.EKAlgorithm {
			continue
		}
		err := t.withPrimary(ek.primary, func(h tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
			area, err := public.Contents()
			if err != nil {
				return err
			}
			if !wanted(area) {
				return nil
			}
			found = true
			return use(h, area)
		})
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("activate: the challenge is to an endorsement key, %q, that this TPM does not have: another TPM's", c.EKAlgorithm)
	}
	return nil
}

// endorsed uses an endorsement key with what that takes: its empty password where
// it has one (EK Profile, the H templates), else the policy of the L templates,
// the password of the endorsement hierarchy.
func (t *TPM) endorsed(ek tpm2.NamedHandle, area *tpm2.TPMTPublic, use func(tpm2.AuthHandle) error) error {
	if area.ObjectAttributes.UserWithAuth && !isPersistent(ek.Handle) {
		return use(emptyAuth(ek)) // made by its template, without a password
	}
	if area.ObjectAttributes.UserWithAuth {
		key, where := emptyAuth(ek), fmt.Sprintf("%#08x", uint32(ek.Handle))
		return t.byEmptyPassword(key, area, where, "the endorsement key at "+where, func() error { return use(key) })
	}
	hierarchy, err := t.hierarchy(tpm2.TPMRHEndorsement)
	if err != nil {
		return err
	}
	const nonceSize = 16
	policy := func(tr transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: hierarchy, PolicySession: session, NonceTPM: nonce}.Execute(tr)
		return t.ofHierarchy(tpm2.TPMRHEndorsement, err)
	}
	return use(tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: tpm2.Policy(area.NameAlg, nonceSize, policy)})
}
