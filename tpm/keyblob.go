package tpm

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/keyvet/keyvet/device"
)

// KeyBlob is a key pair as it lies in a file: the public area, and the private
// area under a key of the TPM's, so that it can be used in that TPM alone.
type KeyBlob struct {
	file   *loadable
	area   *tpm2.TPMTPublic
	public crypto.PublicKey
	spki   []byte
	beside error // why it is not under the key at 0x81000001
}

// ErrNoKeyBlob: the text holds no TSS2 PRIVATE KEY.
var ErrNoKeyBlob = errors.New("no TSS2 PRIVATE KEY")

const keyBlobType = "TSS2 PRIVATE KEY"

// ParseKeyBlob reads the first TSS2 PRIVATE KEY in PEM text, a loadable key
// such as tpm2-openssl and tpm2_encodeobject write ("ASN.1 Specification for
// TPM 2.0 Key Files", section 3). The error wraps ErrNoKeyBlob if the text has
// none. A key is refused that needs a policy, that has to be imported first, or
// whose parent is neither the owner hierarchy's primary key nor at a persistent
// handle. Whether it needs a password the TPM has to tell: tpm2_encodeobject
// writes emptyAuth the wrong way round (tpm2-tools, issue 3458).
func ParseKeyBlob(text []byte) (*KeyBlob, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("read key blob: %w", ErrNoKeyBlob)
		}
		if block.Type == keyBlobType {
			b, err := parseKeyBlob(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("read key blob: %w", err)
			}
			return b, nil
		}
		text = rest
	}
}

func parseKeyBlob(der []byte) (*KeyBlob, error) {
	file, err := parseLoadable(der)
	if err != nil {
		return nil, err
	}
	switch {
	case !file.Keytype.Equal(keyfile.OIDLoadableKey):
		return nil, fmt.Errorf("type %v is no loadable key: import it into the TPM first", file.Keytype)
	case len(file.Policy) > 0 || len(file.AuthPolicy) > 0:
		return nil, errors.New("the key needs a policy, which is not supported")
	case file.Parent != tpm2.TPMRHOwner && !isPersistent(file.Parent):
		return nil, fmt.Errorf("parent %#08x is neither the owner hierarchy nor a persistent handle", uint32(file.Parent))
	}
	return newKeyBlob(file)
}

func newKeyBlob(file *loadable) (_ *KeyBlob, err error) {
	b := &KeyBlob{file: file}
	if b.area, err = file.Pubkey.Contents(); err != nil {
		return nil, fmt.Errorf("public area: %w", err)
	}
	if b.public, b.spki, err = publicKey(b.area); err != nil {
		return nil, fmt.Errorf("public area: %w", err)
	}
	if err := maySign(b.area); err != nil {
		return nil, err
	}
	return b, nil
}

// PEM is the key as a TSS2 PRIVATE KEY. Whoever has it and may use the TPM may
// use the key.
func (b *KeyBlob) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: keyBlobType, Bytes: b.file.marshal()})
}

// Public is the public key, in one of the forms of [device.Key.Public].
func (b *KeyBlob) Public() crypto.PublicKey { return b.public }

// SPKI is the DER SubjectPublicKeyInfo, nil if there is none for this algorithm.
func (b *KeyBlob) SPKI() []byte { return bytes.Clone(b.spki) }

// keyTemplates are the keys that [TPM.CreateKey] makes. They have no scheme of
// their own, so that each signature can be in the scheme that the server asks
// for. That of an RSA key may decrypt too: see signPSS. Nobody has to give a
// password, so their use counts towards no lockout.
var keyTemplates = map[string]tpm2.TPMTPublic{
	device.ECDSAP256: eccTemplate(tpm2.TPMECCNistP256),
	device.ECDSAP384: eccTemplate(tpm2.TPMECCNistP384),
	device.RSA2048:   rsaTemplate(2048),
	device.RSA3072:   rsaTemplate(3072),
}

func eccTemplate(curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	return keyTemplate(tpm2.TPMAlgECC, false, tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}))
}

func rsaTemplate(bits tpm2.TPMKeyBits) tpm2.TPMTPublic {
	return keyTemplate(tpm2.TPMAlgRSA, true, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: bits}))
}

func keyTemplate(algorithm tpm2.TPMAlgID, decrypt bool, parameters tpm2.TPMUPublicParms) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    algorithm,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true, Decrypt: decrypt,
		},
		Parameters: parameters,
	}
}

// CreateKey makes a signing key: "ecdsa-p256", "ecdsa-p384", "rsa-2048" or
// "rsa-3072", in the TPM and never to leave it (TPM2_Create, Part 3, section
// 12.1). Its parent is the storage key at 0x81000001 if there is one that can be
// used without a password, else the owner hierarchy's primary key, which needs
// that hierarchy to have no password. Nothing of it stays in the TPM.
func (t *TPM) CreateKey(algorithm string) (*KeyBlob, error) {
	template, ok := keyTemplates[algorithm]
	if !ok {
		return nil, fmt.Errorf("create key: unknown algorithm %q", algorithm)
	}
	b, err := t.createKey(template)
	if err != nil {
		return nil, fmt.Errorf("create key %s: %w", algorithm, err)
	}
	return b, nil
}

func (t *TPM) createKey(template tpm2.TPMTPublic) (*KeyBlob, error) {
	handles, err := t.handles(srkHandle, srkHandle)
	if err != nil {
		return nil, err
	}
	var beside error
	if len(handles) > 0 {
		b, err := t.createUnder(parent{handle: srkHandle}, template)
		if err == nil || !isOfParent(err) {
			return b, err
		}
		beside = fmt.Errorf("the key at %#08x cannot be the parent of others: %w", uint32(srkHandle), err)
	}
	b, err := t.createUnder(parent{handle: tpm2.TPMRHOwner}, template)
	switch {
	case err != nil && beside != nil:
		return nil, fmt.Errorf("%w; under the primary key of the owner hierarchy: %w", beside, err)
	case err != nil:
		return nil, err
	}
	b.beside = beside
	return b, nil
}

func (t *TPM) createUnder(p parent, template tpm2.TPMTPublic) (b *KeyBlob, err error) {
	err = t.withParent(p, func(p parent, h tpm2.AuthHandle) error {
		rsp, err := tpm2.Create{ParentHandle: h, InPublic: tpm2.New2B(template)}.Execute(t.forCreation(&template))
		if err != nil {
			return explainCreation(err)
		}
		if b, err = newKeyBlob(newLoadable(rsp, p)); err != nil {
			return err
		}
		return t.saveNew(h, b.file, b.area)
	})
	if err != nil {
		return nil, ofCreation(err)
	}
	return b, nil
}

// Beside returns why a key that [TPM.CreateKey] made is not under the storage key
// at 0x81000001, though a key is there; nil if it is, or none is there.
func (b *KeyBlob) Beside() error { return b.beside }

// Why [TPM.CreateKey] made no key, as far as a caller may test for.
var (
	ErrFull      = errors.New("the TPM has no room for one more key")
	ErrAlgorithm = errors.New("the TPM does not make such keys")
)

// ofCreation sorts the errors of TPM2_Create (Part 3, section 12.1.2).
func ofCreation(err error) error {
	if errors.Is(err, errUnsupported) {
		return fmt.Errorf("%w: %w", ErrAlgorithm, err)
	}
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles, tpm2.TPMRCMemory} {
		if errors.Is(err, code) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	return err
}

// forCreation is the transport of the command that makes a key by a template.
func (t *TPM) forCreation(template *tpm2.TPMTPublic) transport.TPM {
	if template.Type == tpm2.TPMAlgRSA {
		return t.link.Within(max(t.opts.Timeout, rsaCreation))
	}
	return t.link
}

// with has the key in the TPM for as long as use runs.
func (b *KeyBlob) with(t *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error {
	used := false
	err := t.withLoaded(b.file, b.area, saveAtOnce, func(h tpm2.NamedHandle, _ tpm2.TPM2BName) error {
		used = true
		return use(emptyAuth(h), b.area)
	})
	if err != nil && !used {
		return t.gone(err)
	}
	return err
}

// ErrNotLoadable: the TPM refuses the key of a blob itself, and always will.
var ErrNotLoadable = errors.New("the TPM cannot load it: it is of another TPM or another parent, or this TPM was cleared since")

// withLoaded has the key of a file in the TPM for as long as use runs; its
// parent is out of it again by then, so that there is room for two such keys.
// Whatever happens, the key is flushed afterwards, unless the connection broke, or
// [TPM.Hold] says that it stays.
func (t *TPM) withLoaded(file *loadable, area *tpm2.TPMTPublic, save saving, use func(key tpm2.NamedHandle, parent tpm2.TPM2BName) error) (err error) {
	id := t.contextOf(file)
	if h := t.held.take(id); h != nil {
		defer t.held.giveBack(h)
		return use(h.key, h.parent)
	}
	creator := &creator{t: t, link: t.link, area: area}
	key, parent, there, err := creator.restore(id)
	defer func() {
		if err == nil && t.held.keep(id, &heldKey{creator: creator, key: key, parent: parent}) {
			return
		}
		if flushErr := creator.flush(); err == nil {
			err = flushErr
		}
	}()
	if err != nil {
		return err
	}
	if !there {
		if key, parent, err = creator.load(file); err != nil {
			return err
		}
		t.save(id, key, parent, save)
	}
	return use(key, parent)
}

// load loads the key of a file under its parent.
func (c *creator) load(file *loadable) (key tpm2.NamedHandle, parentName tpm2.TPM2BName, err error) {
	err = c.t.withParent(file.parent(), func(_ parent, h tpm2.AuthHandle) (err error) {
		key, err = c.loadUnder(h, file)
		parentName = h.Name
		return err
	})
	return key, parentName, err
}

// loadUnder loads the key of a file under its parent, which is in the TPM.
func (c *creator) loadUnder(parent tpm2.AuthHandle, file *loadable) (key tpm2.NamedHandle, err error) {
	rsp, err := tpm2.Load{ParentHandle: parent, InPrivate: file.Privkey, InPublic: file.Pubkey}.Execute(c)
	switch {
	case isParameter(err):
		return key, fmt.Errorf("%w: %w", ErrNotLoadable, err)
	case err != nil:
		return key, fmt.Errorf("load: %w", explain(err))
	}
	if _, err := named(file.Pubkey, rsp.Name); err != nil {
		return key, err
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, nil
}

// saveNew saves a key that was just made, as long as its parent is in the TPM, whose
// creation takes longest. If it cannot, the key's first use loads it.
func (t *TPM) saveNew(parent tpm2.AuthHandle, file *loadable, area *tpm2.TPMTPublic) error {
	creator := &creator{t: t, link: t.link, area: area}
	if key, err := creator.loadUnder(parent, file); err == nil {
		t.save(t.contextOf(file), key, parent.Name, saveAtOnce)
	}
	return creator.flush()
}

// isParameter reports whether the TPM refused a parameter of the command, and not
// the command, a handle or a session.
func isParameter(err error) bool {
	var format1 tpm2.TPMFmt1Error
	if !errors.As(err, &format1) {
		return false
	}
	parameter, _ := format1.Parameter()
	return parameter
}

func (b *KeyBlob) String() string { return "the key blob" }

// NeedsOwner reports whether the key is under the owner hierarchy itself: using it
// takes that hierarchy's password, once it has one.
func (b *KeyBlob) NeedsOwner() bool { return b.file.Parent == tpm2.TPMRHOwner }

// where changes with the password, which is in the private area.
func (b *KeyBlob) where() string {
	return fmt.Sprintf("private area %x", sha256.Sum256(b.file.Privkey.Buffer))
}

func isPersistent(h tpm2.TPMHandle) bool { return h >= firstPersistent && h <= lastPersistent }

func withoutPassword(h tpm2.TPMHandle, name tpm2.TPM2BName) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h, Name: name, Auth: tpm2.PasswordAuth(nil)}
}

// publicOf reads the public area of an object, and the name that goes with it.
func (t *TPM) publicOf(h tpm2.TPMHandle) (public tpm2.TPM2BPublic, name tpm2.TPM2BName, err error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(t)
	if err != nil {
		return public, name, err
	}
	return rsp.OutPublic, rsp.Name, nil
}

// readPublic reads the public area of what is at a persistent handle.
func (t *TPM) readPublic(h tpm2.TPMHandle) (tpm2.AuthHandle, *tpm2.TPMTPublic, error) {
	public, name, err := t.publicOf(h)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return tpm2.AuthHandle{}, nil, fmt.Errorf("nothing is at %#08x: %w", uint32(h), err)
	}
	var area *tpm2.TPMTPublic
	if err == nil {
		area, err = named(public, name)
	}
	if err != nil {
		return tpm2.AuthHandle{}, nil, fmt.Errorf("read public area of %#08x: %w", uint32(h), explain(err))
	}
	return withoutPassword(h, name), area, nil
}
