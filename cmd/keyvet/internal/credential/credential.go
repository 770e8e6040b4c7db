// Package credential is the device's certificate with its key: which one is in
// use, what it can do, and what the thing is called that it stands for.
package credential

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm"
)

// Credential is a certificate with its key, which may be one that only the TPM
// can use. Its files are read once: what is vetted, used and handed out are the
// same bytes.
type Credential struct {
	tls.Certificate
	proven     bool   // the private key is there, and the certificate's
	chain, key []byte // what other programs get, in PEM: the certificates, and the one private key; a key at a handle of the TPM has none

	name, keyName string
	handle        uint32       // of the key in the TPM; 0 for a key in a file
	keys          []device.Key // of the certificate file, as the inventory has them
	own           int          // which of keys is the device's
	gaps          []device.Gap
}

// read loads a certificate and its key. What was found is there for
// the inventory also on an error, which is why the credential cannot be used. A
// key in the TPM is not asked for anything yet: the TPM may be busy, and answer
// later.
func read(c config.Config, certificatePath, keyPath string) (Credential, error) {
	l := Credential{name: certificatePath, keyName: keyPath}
	file, err := keyfile.Load(certificatePath)
	if err != nil {
		l.gap(certificatePath, err)
		return l, fmt.Errorf("no device certificate: %s: %w", certificatePath, err)
	}
	l.keys, l.gaps = file.Keys()
	l.chain = onlyPEM(file.Data, func(kind string) bool { return kind == "CERTIFICATE" })
	if block, _ := pem.Decode(l.chain); block != nil {
		l.own = max(0, slices.IndexFunc(l.keys, func(k device.Key) bool { return k.Leaf() != nil && bytes.Equal(k.Leaf().Raw, block.Bytes) }))
	}
	if err := l.readKey(c, file); err != nil {
		return l, err
	}
	if l.handle != 0 {
		l.Certificate, err = keyPair(l.chain, func(public crypto.PublicKey, _ []byte) (crypto.PrivateKey, error) {
			return tpm.NewPersistentSigner(c.TPM.Address, c.TPMOptions(), l.handle, public)
		})
	} else {
		l.Certificate, err = keyPairOfFile(c, l.chain, l.key)
	}
	if err != nil {
		l.PrivateKey = nil
		return l, fmt.Errorf("%s and %s: %w", certificatePath, keyPath, err)
	}
	return l, nil
}

func (l *Credential) gap(what string, why error) {
	l.gaps = append(l.gaps, device.Gap{What: what, Why: why.Error()})
}

// readKey reads the private key: the only one of its file. Another one beside it
// would be handed out, and perhaps used, without being vetted.
func (l *Credential) readKey(c config.Config, certificate *keyfile.File) error {
	handle, inTPM, err := config.PersistentHandle(l.keyName)
	if inTPM {
		l.handle = handle
		return err
	}
	file := certificate
	if l.keyName != l.name {
		if file, err = keyfile.Load(l.keyName); err != nil {
			l.gap(l.keyName, err)
			return fmt.Errorf("no device key: %s: %w", l.keyName, err)
		}
	}
	keys, gaps := file.Keys()
	if file != certificate {
		l.gaps = append(l.gaps, gaps...)
	}
	keys = slices.DeleteFunc(keys, func(k device.Key) bool { return k.Private == nil })
	l.key = onlyPEM(file.Data, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") })
	blocks := bytes.Count(l.key, []byte("-----BEGIN "))
	if n := max(len(keys), blocks); n > 1 {
		l.key = nil
		err = fmt.Errorf("holds %d private keys: remove all but the one of the certificate", n)
	} else if n == 0 || blocks == 0 {
		err = errors.New("holds no private key in PEM")
	} else if len(keys) == 0 && len(gaps) == 0 {
		err = errors.New("holds a private key that cannot be read")
	}
	if err != nil {
		l.gap(l.keyName, err)
		return fmt.Errorf("no device key: %s %w", l.keyName, err)
	}
	if len(keys) == 1 && len(l.keys) > 0 {
		private := *keys[0].Private
		own, comparable := keys[0].Public.(interface{ Equal(crypto.PublicKey) bool })
		if comparable && own.Equal(l.keys[l.own].Public) && bytes.Equal(private.SPKI, keys[0].SPKI) {
			private.SPKI = l.keys[l.own].SPKI // the encodings may differ where the keys do not
		}
		sum := sha256.Sum256(l.key)
		private.SHA256 = hex.EncodeToString(sum[:])
		l.keys[l.own].Private = &private
	}
	return nil
}

// onlyPEM is the PEM blocks of some kinds, and nothing that stands between them.
// It takes the lines as package keyfile does, without white space around them and
// what cannot be seen, such as the byte order marks of files put together.
func onlyPEM(text []byte, want func(kind string) bool) []byte {
	var only, lines []byte
	for line := range bytes.Lines(text) {
		lines = append(append(lines, bytes.TrimFunc(line, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })...), '\n')
	}
	text = lines
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if want(block.Type) {
			only = append(only, pem.EncodeToMemory(block)...)
		}
	}
	return only
}

// Prove has the key show that it signs, before anything is vetted: a key file
// says nothing of whether this TPM still has the private half. t is the connection
// to the TPM that is open; nil for one of its own.
func (l *Credential) Prove(t *tpm.TPM) {
	l.proven = false
	if l.PrivateKey == nil {
		return
	}
	signer := l.Signer()
	if signer == nil {
		l.proven = true // it was held against the certificate as it was read
		return
	}
	proof := new(device.Proof)
	prove := signer.SelfTest
	if t != nil {
		prove = func() ([]tls.SignatureScheme, error) { return signer.SelfTestOn(t) }
	}
	if _, err := prove(); err != nil {
		proof.Gone, proof.Why = errors.Is(Gone(err), rotate.ErrKeyGone), err.Error()
	} else {
		proof.Signed, l.proven = true, true
	}
	if len(l.keys) == 0 {
		return
	}
	k := &l.keys[l.own]
	if k.Private == nil {
		k.Private = &device.PrivateFile{Path: l.keyName, Mode: fs.ModeDevice, SPKI: k.SPKI}
	}
	k.Private.Proof = proof
}

// Same reports whether l and o are the same files, and as good.
func (l *Credential) Same(o *Credential) bool {
	return bytes.Equal(l.chain, o.chain) && bytes.Equal(l.key, o.key) && l.handle == o.handle && (l.PrivateKey == nil) == (o.PrivateKey == nil)
}

// keyPairOfFile is for a key in a file, which may be one that only the TPM can use.
func keyPairOfFile(c config.Config, certificate, key []byte) (tls.Certificate, error) {
	blob, err := tpm.ParseKeyBlob(key)
	switch {
	case errors.Is(err, tpm.ErrNoKeyBlob):
		pair, err := tls.X509KeyPair(certificate, key)
		if block, _ := pem.Decode(certificate); err != nil && block != nil {
			if _, refused := x509.ParseCertificate(block.Bytes); refused != nil { // perhaps for its encoding alone
				return keyPair(certificate, func(public crypto.PublicKey, _ []byte) (crypto.PrivateKey, error) { return privateKey(key, public) })
			}
		}
		return pair, err
	case err != nil:
		return tls.Certificate{}, err
	}
	return keyPair(certificate, func(_ crypto.PublicKey, spki []byte) (crypto.PrivateKey, error) {
		if !device.SameKey(spki, blob.SPKI()) {
			return nil, errors.New("the key does not belong to the certificate")
		}
		return tpm.NewSigner(c.TPM.Address, c.TPMOptions(), blob)
	})
}

// privateKey returns the private key in a PEM file if it belongs to the public one.
func privateKey(text []byte, public crypto.PublicKey) (crypto.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no private key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
			if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
				return nil, err
			}
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key cannot sign")
	}
	if own, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(public) {
		return nil, errors.New("the key does not belong to the certificate")
	}
	return key, nil
}

// keyPair is a chain in PEM, leaf first, with the private key of its leaf.
func keyPair(chain []byte, private func(public crypto.PublicKey, spki []byte) (crypto.PrivateKey, error)) (pair tls.Certificate, err error) {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			pair.Certificate = append(pair.Certificate, block.Bytes)
		}
	}
	if len(pair.Certificate) == 0 {
		return pair, errors.New("no certificate in PEM")
	}
	if pair.Leaf, _, err = keyfile.ParseCertificate(pair.Certificate[0]); err != nil {
		return pair, err
	}
	pair.PrivateKey, err = private(pair.Leaf.PublicKey, pair.Leaf.RawSubjectPublicKeyInfo)
	return pair, err
}

// Pair returns what TLS takes of the credential, once its key has shown that it
// signs: with those certificates of the CA files that it leads to, which
// just-in-time registration wants to see (AWS IoT Developer Guide, "Just-in-time
// registration").
func (c *Credential) Pair(caFiles []string) (tls.Certificate, error) {
	pair := c.Certificate
	if s := c.Signer(); s != nil {
		schemes, err := s.SelfTest()
		if err != nil {
			return pair, fmt.Errorf("the device's key in the TPM cannot be used: %w", err)
		}
		pair.SupportedSignatureAlgorithms = schemes
	}
	pair.Certificate = append([][]byte(nil), pair.Certificate...)
	issuers := keyfile.Certificates(caFiles, func(string, error) {}) // the inventory tells
	for last := c.last(); last != nil && len(pair.Certificate) <= len(c.Certificate.Certificate)+len(issuers); {
		last = issuerOf(last, issuers)
		if last != nil {
			pair.Certificate = append(pair.Certificate, last.Raw)
		}
	}
	return pair, nil
}

// last is the certificate at the end of the chain; nil if it cannot be read.
func (c *Credential) last() *x509.Certificate {
	n := len(c.Certificate.Certificate)
	last, _, err := keyfile.ParseCertificate(c.Certificate.Certificate[n-1])
	if err != nil {
		return nil
	}
	return last
}

// issuerOf is the one of the certificates that signed c; nil if none did, or c itself.
func issuerOf(c *x509.Certificate, issuers []*x509.Certificate) *x509.Certificate {
	if c.CheckSignatureFrom(c) == nil {
		return nil
	}
	for _, issuer := range issuers {
		if c.CheckSignatureFrom(issuer) == nil {
			return issuer
		}
	}
	return nil
}

// Guarded returns the credential as the gate has it.
func (c *Credential) Guarded() gate.Credential {
	g := gate.Credential{Proven: c.proven, Certificate: c.chain, KeyFile: c.key}
	if c.Leaf != nil {
		g.SPKI, g.Leaf = c.Leaf.RawSubjectPublicKeyInfo, c.Leaf.Raw
	}
	return g
}

// Signer returns the signer of a key that is in the TPM; nil for another key.
func (c *Credential) Signer() *tpm.Signer {
	s, _ := c.PrivateKey.(*tpm.Signer)
	return s
}

// Gone marks an error after which this TPM, or this file, will never have the key
// again.
func Gone(err error) error {
	if errors.Is(err, tpm.ErrGone) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", rotate.ErrKeyGone, err)
	}
	return err
}

// Keys returns the credential for the inventory: its own key in the given role,
// the rest of the certificate file as CA keys. present are the keys that were read
// before, among them the TPM's. That there is no credential yet matters only if it
// was asked for by name.
func (c *Credential) Keys(role device.Role, named bool, present []device.Key) (keys []device.Key, gaps []device.Gap) {
	name := strings.ToLower(string(role))
	if _, err := os.Lstat(c.name); errors.Is(err, fs.ErrNotExist) && !named && len(c.keys) == 0 {
		return nil, []device.Gap{{What: name + " certificate", Why: c.name + " is not there yet", Minor: true}}
	}
	gaps = slices.Clone(c.gaps)
	for i := range c.keys {
		c.keys[i].Role, c.keys[i].ID = device.RoleCA, fmt.Sprintf("%s#%d", name, i+1)
	}
	if len(c.keys) == 0 {
		return nil, gaps
	}
	own := &c.keys[c.own]
	own.Role, own.ID = role, name
	if c.handle != 0 {
		private, err := privateInTPM(present, c.handle)
		if err != nil {
			gaps = append(gaps, device.Gap{What: c.keyName, Why: err.Error()})
		}
		if private != nil {
			if own.Private != nil {
				private.Proof = own.Private.Proof
			}
			own.Private = private
		}
	}
	return c.keys, gaps
}

// privateInTPM is the private half of the key that the TPM holds at a handle.
func privateInTPM(keys []device.Key, handle uint32) (*device.PrivateFile, error) {
	source := fmt.Sprintf("tpm:%#08x", handle)
	for _, k := range keys {
		if k.Source == source {
			return &device.PrivateFile{Path: source, Mode: fs.ModeDevice, SPKI: k.SPKI}, nil
		}
	}
	return nil, errors.New("the TPM showed no key at that handle")
}
