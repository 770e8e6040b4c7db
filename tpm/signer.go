package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// Signer is a private key in a TPM: a [crypto.Signer] for TLS, certificate
// requests and all else. It opens the TPM for each signature and closes it
// again, so that others may use it in between; a key blob is loaded and
// flushed each time. Each TPM command has the deadline of its [Options].
//
// No signature leaves it that does not verify under its public key: neither a
// broken bus, nor another key at the handle, nor a fault in an RSA computation,
// which could give away the key, goes unseen.
//
// The key must have no password. Where it has one, and its attributes do not
// say noDA, an attempt counts towards the TPM's lockout: after the first, no
// Signer of this process makes another, see [attempts.Memory].
//
// Its methods may be called from several goroutines; signatures go one at a time.
type Signer struct {
	address string
	opts    Options
	key     signingKey
	public  crypto.PublicKey

	mu      sync.Mutex
	schemes []tls.SignatureScheme // that passed the self-test
}

// signingKey is a key that is in the TPM while it is used.
type signingKey interface {
	with(t *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error
	where() string // of attempts.Object
	String() string
}

// NewSigner is the signer of a key blob of the TPM at address. It does not ask
// the TPM yet.
func NewSigner(address string, opts Options, b *KeyBlob) (*Signer, error) {
	return newSigner(address, opts, b, b.public)
}

// NewPersistentSigner is the signer of the key at a persistent handle of the
// TPM at address, 0x81000000 to 0x81ffffff, which has to be the one of public.
// It does not ask the TPM yet; if another key is at the handle, signing fails.
func NewPersistentSigner(address string, opts Options, handle uint32, public crypto.PublicKey) (*Signer, error) {
	if !isPersistent(tpm2.TPMHandle(handle)) {
		return nil, fmt.Errorf("%#08x is no persistent handle: those are 0x81000000 to 0x81ffffff", handle)
	}
	return newSigner(address, opts, persistentKey{tpm2.TPMHandle(handle), public}, public)
}

func newSigner(address string, opts Options, key signingKey, public crypto.PublicKey) (*Signer, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		if _, err := p.ECDH(); err != nil {
			return nil, fmt.Errorf("%s: its public key is no point of P-256, P-384 or P-521: %w", key, err)
		}
	default:
		return nil, fmt.Errorf("%s: cannot sign with a key of type %T", key, public)
	}
	return &Signer{address: address, opts: opts, key: key, public: public}, nil
}

// persistentKey is a key at a persistent handle, and what key it has to be.
type persistentKey struct {
	handle tpm2.TPMHandle
	public crypto.PublicKey
}

func (k persistentKey) String() string { return fmt.Sprintf("the key at %#08x", uint32(k.handle)) }

func (k persistentKey) where() string { return fmt.Sprintf("%#08x", uint32(k.handle)) }

func (k persistentKey) with(t *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error {
	h, area, err := t.readPublic(k.handle)
	if err != nil {
		return t.gone(err)
	}
	found, _, err := publicKey(area)
	if err != nil {
		return err
	}
	if same, ok := found.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(k.public) {
		return fmt.Errorf("%w: another key is there than the one expected", ErrGone)
	}
	if err := maySign(area); err != nil {
		return err
	}
	return use(h, area)
}

// gone wraps ErrGone around the error of a key that the TPM does not find at its
// handle, or refuses to load, unless one of its hierarchies is disabled, which
// hides keys until the TPM is reset.
func (t *TPM) gone(err error) error {
	if errors.Is(err, ErrNotLoadable) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if !errors.Is(err, tpm2.TPMRCHandle) {
		return err
	}
	s, stateErr := t.readState()
	switch {
	case stateErr != nil:
		return fmt.Errorf("%w (why is not known: %w)", err, stateErr)
	case !s.owner || !s.endorsement:
		return fmt.Errorf("a hierarchy is disabled until the TPM is reset: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// maySign returns why a key cannot sign what it is given, or nil.
func maySign(area *tpm2.TPMTPublic) error {
	switch a := area.ObjectAttributes; {
	case !a.SignEncrypt:
		return errors.New("the key is not for signing")
	case a.Restricted:
		return errors.New("the key is restricted: it signs nothing from outside the TPM")
	case !a.UserWithAuth:
		return errors.New("the key needs a policy, which is not supported")
	}
	return nil
}

// Public is an *rsa.PublicKey or an *ecdsa.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// NeedsOwner is [KeyBlob.NeedsOwner]; a key at a handle does not.
func (s *Signer) NeedsOwner() bool {
	b, isBlob := s.key.(*KeyBlob)
	return isBlob && b.NeedsOwner()
}

// ErrGone is wrapped by the error of a [Signer] whose private key this TPM does
// not have: it never had it, was cleared since, or the key was removed or
// replaced. A TPM that is busy, absent or switched off in part is another error:
// the key may be there all the same.
var ErrGone = errors.New("the private key is not in this TPM")

// SelfTest has the key sign once in each way that TLS asks for, and gives the
// schemes whose signatures verified, best first; they belong into
// SupportedSignatureAlgorithms of [tls.Certificate]. It must come before the
// first use. TLS 1.3 takes no PKCS#1 v1.5: an RSA key that fails with PSS is
// for TLS 1.2 alone. Once all passed, later calls do not ask the TPM again. The
// error wraps ErrGone, ErrAbsent or ErrTimeout where that is why.
func (s *Signer) SelfTest() ([]tls.SignatureScheme, error) { return s.selfTest(s.sign) }

// SelfTestOn is [Signer.SelfTest] over a connection that is open, whose TPM has to
// be the one at the address of s.
func (s *Signer) SelfTestOn(t *TPM) ([]tls.SignatureScheme, error) {
	return s.selfTest(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.signOn(t, digest, opts)
	})
}

func (s *Signer) selfTest(sign func([]byte, crypto.SignerOpts) ([]byte, error)) ([]tls.SignatureScheme, error) {
	s.mu.Lock()
	schemes := s.schemes
	s.mu.Unlock()
	if schemes != nil {
		return schemes, nil
	}
	var failed error
	for _, w := range waysToSign(s.public) {
		h := w.opts.HashFunc().New()
		h.Write([]byte("keyvet self-test"))
		if _, err := s.verified(h.Sum(nil), w.opts, sign); err != nil {
			failed = err
			if errors.Is(err, ErrAbsent) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrGone) {
				break
			}
			continue
		}
		schemes = append(schemes, w.scheme)
	}
	switch {
	case schemes == nil:
		return nil, fmt.Errorf("self-test: %w", failed)
	case failed == nil:
		s.mu.Lock()
		s.schemes = schemes
		s.mu.Unlock()
	}
	return schemes, nil
}

type wayToSign struct {
	scheme tls.SignatureScheme
	opts   crypto.SignerOpts
}

// waysToSign are the schemes of TLS that every server knows for such a key
// (RFC 8446, section 4.2.3).
func waysToSign(public crypto.PublicKey) []wayToSign {
	switch p := public.(type) {
	case *rsa.PublicKey:
		return []wayToSign{
			{tls.PSSWithSHA256, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}},
			{tls.PKCS1WithSHA256, crypto.SHA256},
		}
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return []wayToSign{{tls.ECDSAWithP256AndSHA256, crypto.SHA256}}
		case elliptic.P384():
			return []wayToSign{{tls.ECDSAWithP384AndSHA384, crypto.SHA384}}
		case elliptic.P521():
			return []wayToSign{{tls.ECDSAWithP521AndSHA512, crypto.SHA512}}
		}
	}
	return nil
}

// Sign signs a digest by SHA-256, SHA-384 or SHA-512: ECDSA in ASN.1, RSA by
// PSS if opts is an *rsa.PSSOptions, else by PKCS#1 v1.5. The salt of PSS is as
// long as the hash, unless opts asks for another length.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.verified(digest, opts, s.sign)
}

// verified is a signature that verifies.
func (s *Signer) verified(digest []byte, opts crypto.SignerOpts, sign func([]byte, crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	signature, err := sign(digest, opts)
	if err == nil {
		err = verify(s.public, digest, opts, signature)
	}
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.key, err)
	}
	return signature, nil
}

// hashes are those of TLS (Part 2, section 6.3).
var hashes = map[crypto.Hash]tpm2.TPMAlgID{
	crypto.SHA256: tpm2.TPMAlgSHA256, crypto.SHA384: tpm2.TPMAlgSHA384, crypto.SHA512: tpm2.TPMAlgSHA512,
}

func (s *Signer) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, err := hashOf(digest, opts); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := Open(s.address, s.opts)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return s.signOn(t, digest, opts)
}

func hashOf(digest []byte, opts crypto.SignerOpts) (tpm2.TPMAlgID, error) {
	hash, ok := hashes[opts.HashFunc()]
	if !ok || len(digest) != opts.HashFunc().Size() {
		return 0, fmt.Errorf("a digest of %d bytes by %v cannot be signed", len(digest), opts.HashFunc())
	}
	return hash, nil
}

func (s *Signer) signOn(t *TPM, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	hash, err := hashOf(digest, opts)
	if err != nil {
		return nil, err
	}
	err = s.have(t, func(h tpm2.AuthHandle, area *tpm2.TPMTPublic) (err error) {
		pss, isPSS := opts.(*rsa.PSSOptions)
		rsaPublic, isRSA := s.public.(*rsa.PublicKey)
		switch {
		case !isRSA:
			signature, err = t.sign(h, tpm2.TPMAlgECDSA, hash, digest)
		case !isPSS:
			signature, err = t.sign(h, tpm2.TPMAlgRSASSA, hash, digest)
		case signsRaw(area):
			signature, err = t.signPSS(h, rsaPublic, digest, pss)
		default:
			signature, err = t.sign(h, tpm2.TPMAlgRSAPSS, hash, digest)
		}
		return err
	})
	return signature, err
}

// with has the key in a TPM that is open for as long as use runs.
func (s *Signer) with(t *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have(t, use)
}

// have is with under the lock.
func (s *Signer) have(t *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error {
	return s.key.with(t, func(h tpm2.AuthHandle, area *tpm2.TPMTPublic) error {
		return t.byEmptyPassword(h, area, s.key.where(), "the key", func() error { return use(h, area) })
	})
}

// sign is TPM2_Sign (Part 3, section 20.2).
func (t *TPM) sign(h tpm2.AuthHandle, scheme, hash tpm2.TPMAlgID, digest []byte) ([]byte, error) {
	details := &tpm2.TPMSSchemeHash{HashAlg: hash}
	rsp, err := tpm2.Sign{
		KeyHandle:  h,
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, details)},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}, // none: the digest comes from outside
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	var rsaSignature *tpm2.TPMSSignatureRSA
	switch scheme {
	case tpm2.TPMAlgECDSA:
		ecc, err := rsp.Signature.Signature.ECDSA()
		if err != nil {
			return nil, err
		}
		return asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer),
		})
	case tpm2.TPMAlgRSASSA:
		rsaSignature, err = rsp.Signature.Signature.RSASSA()
	default:
		rsaSignature, err = rsp.Signature.Signature.RSAPSS()
	}
	if err != nil {
		return nil, err
	}
	return rsaSignature.Sig.Buffer, nil
}

// signsRaw reports whether the TPM does the bare RSA operation with this key: it
// may decrypt too, and has no scheme of its own.
func signsRaw(area *tpm2.TPMTPublic) bool {
	parms, err := area.Parameters.RSADetail()
	return err == nil && area.ObjectAttributes.Decrypt && parms.Scheme.Scheme == tpm2.TPMAlgNull
}

// signPSS pads here and has the TPM decrypt with no scheme, which is the bare
// operation (TPM2_RSA_Decrypt, Part 3, section 14.3). TPM2_Sign leaves the
// length of the salt to the TPM, and some make it as long as fits (Part 1,
// annex B.7), where TLS wants that of the hash.
func (t *TPM) signPSS(h tpm2.AuthHandle, public *rsa.PublicKey, digest []byte, opts *rsa.PSSOptions) ([]byte, error) {
	padded, err := padPSS(public.N.BitLen(), digest, opts.Hash, saltLength(opts))
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.RSADecrypt{KeyHandle: h, CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: padded}}.Execute(t)
	if err != nil {
		return nil, err
	}
	if len(rsp.Message.Buffer) > public.Size() {
		return nil, fmt.Errorf("the TPM answered %d bytes", len(rsp.Message.Buffer))
	}
	return new(big.Int).SetBytes(rsp.Message.Buffer).FillBytes(make([]byte, public.Size())), nil
}

// saltLength is the length in bytes that opts asks for. PSSSaltLengthAuto
// leaves it to the signer.
func saltLength(opts *rsa.PSSOptions) int {
	if opts.SaltLength == rsa.PSSSaltLengthEqualsHash || opts.SaltLength == rsa.PSSSaltLengthAuto {
		return opts.HashFunc().Size()
	}
	return opts.SaltLength
}

// verify holds a signature against what was asked for.
func verify(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts, signature []byte) error {
	ok := false
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(p, digest, signature)
	case *rsa.PublicKey:
		if pss, isPSS := opts.(*rsa.PSSOptions); isPSS {
			ok = rsa.VerifyPSS(p, pss.HashFunc(), digest, signature, &rsa.PSSOptions{SaltLength: saltLength(pss)}) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(p, opts.HashFunc(), digest, signature) == nil
		}
	}
	if !ok {
		return errors.New("the TPM's signature does not verify under the public key, or is padded otherwise than asked for")
	}
	return nil
}
