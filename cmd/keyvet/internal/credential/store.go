package credential

import (
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

// Store has the device's credentials by their ids, and the one that is in use in
// hand: what was read of it, and what the thing is called.
type Store struct {
	Files *identity.Store // those that keyvet made

	config   config.Config
	current  Credential
	err      error  // why current cannot be used
	thing    string // "" until Name has found it out
	thingErr error
}

// Open opens the store in the state directory, ends what a power cut interrupted
// there, and takes the credential in use.
func Open(c config.Config) (*Store, error) {
	s := &Store{Files: &identity.Store{Dir: c.StateDir}, config: c}
	if err := s.Files.Recover(); err != nil {
		return nil, err
	}
	s.Take("")
	return s, nil
}

// InUse reads the credential in use.
func InUse(c config.Config) (Credential, error) {
	certificate, key := c.CredentialFiles()
	return read(c, certificate, key)
}

// Claim reads the claim's credential.
func Claim(c config.Config) (Credential, error) {
	return read(c, c.Provision.ClaimCertificate, c.Provision.ClaimKey)
}

// Paths returns the files of a credential: an id of the store, [rotate.Claim] or
// [rotate.Configured]. A key may be the name of a handle in the TPM.
func (s *Store) Paths(id string) (certificate, key string) {
	switch id {
	case rotate.Claim:
		return s.config.Provision.ClaimCertificate, s.config.Provision.ClaimKey
	case rotate.Configured:
		return s.config.ConfiguredFiles()
	case identity.First:
		if s.config.Identity.Key != "" {
			return s.Files.CertificatePath(id), s.config.Identity.Key
		}
	}
	return s.Files.CertificatePath(id), s.Files.KeyPath(id)
}

// Read reads a credential; "" is the one in use.
func (s *Store) Read(id string) (Credential, error) {
	if id == "" {
		return InUse(s.config)
	}
	certificate, key := s.Paths(id)
	return read(s.config, certificate, key)
}

// Take reads a credential, "" for the one in use, and has it in hand from here on.
func (s *Store) Take(id string) { s.current, s.err = s.Read(id) }

// Reload takes the credential in use if it is another one by now. The gate does
// not open before it until it was vetted.
func (s *Store) Reload() {
	read, err := s.Read("")
	if !read.Same(&s.current) || (err == nil) != (s.err == nil) {
		s.current, s.err = read, err
	}
}

// Current returns the credential in hand. The error says why it cannot be used.
func (s *Store) Current() (*Credential, error) { return &s.current, s.err }
