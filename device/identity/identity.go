// Package identity keeps the device's credentials, of which one is in use: its
// certificate and its key in a directory of their own, and a symbolic link
// that says which.
//
//	identity -> credentials/<id>
//	credentials/<id>/certificate.pem    the chain, leaf first
//	credentials/<id>/key.pem            a TSS2 PRIVATE KEY or a private key
//
// Going over to another pair is one rename, so that certificate and key are
// always those of one pair. A directory called identity, put there with the
// image or by hand, is the first credential; the first switch moves it to
// credentials/first. It alone may be without key.pem: its key is then where the
// configuration says, such as at a handle of the TPM.
package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/device/durable"
)

// ErrNone says that the store has no credential in use.
var ErrNone = errors.New("no credential is in use")

// First is the id of the credential in a directory called identity.
const First = "first"

// Store is the credentials in a state directory. [Store.Recover] comes before
// anything else. One process owns it.
type Store struct {
	Dir  string // the state directory
	Disk durable.Disk
}

const (
	link        = "identity"
	newLink     = "identity.new" // about to be renamed to link
	credentials = "credentials"
	removed     = ".removed-" // prefix of a credential that is being removed

	certificateFile = "certificate.pem"
	keyFile         = "key.pem"

	maxFileBytes = 256 << 10
)

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.Dir}, names...)...)
}

// CertificatePath is the chain of a credential; that of the one in use if id is "".
func (s *Store) CertificatePath(id string) string { return s.file(id, certificateFile) }

// KeyPath is the key of a credential; that of the one in use if id is "".
func (s *Store) KeyPath(id string) string { return s.file(id, keyFile) }

func (s *Store) file(id, name string) string {
	if id == "" || id == First && s.inPlace() {
		return s.path(link, name)
	}
	return s.path(credentials, id, name)
}

// inPlace reports whether the first credential is still where it was put.
func (s *Store) inPlace() bool {
	info, err := s.Disk.Lstat(s.path(link))
	return err == nil && info.IsDir()
}

// CheckID returns why id cannot name a credential, or nil.
func CheckID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if id == "" || len(id) > 64 || strings.Trim(id, letters) != "" {
		return fmt.Errorf("%q is no id of a credential", id)
	}
	return nil
}

// Recover ends what a power cut interrupted: a switch goes forward where
// nothing is in use any more, else back; a removal that has begun is finished.
func (s *Store) Recover() error {
	for _, dir := range []string{"", credentials} {
		if err := s.Disk.Dir(s.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := s.recoverSwitch(); err != nil {
		return err
	}
	entries, err := s.Disk.ReadDir(s.path(credentials))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := s.path(credentials, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), removed):
			_ = s.Disk.RemoveDir(dir) // what stays is in nobody's way, and Remove says so
		case e.IsDir():
			err = s.Disk.Dir(dir, 0o700) // of half-written files
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) recoverSwitch() error {
	switch there, err := s.exists(newLink); {
	case err != nil:
		return err
	case !there:
		return nil
	}
	switch there, err := s.exists(link); {
	case err != nil:
		return err
	case there:
		return s.Disk.Remove(s.path(newLink))
	}
	return s.Disk.Rename(s.path(newLink), s.path(link))
}

func (s *Store) exists(name string) (bool, error) {
	_, err := s.Disk.Lstat(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Current is the id of the credential in use. The error wraps ErrNone if there
// is none.
func (s *Store) Current() (string, error) {
	info, err := s.Disk.Lstat(s.path(link))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", ErrNone
	case err != nil:
		return "", err
	case info.IsDir():
		return First, nil
	}
	target, err := s.Disk.Readlink(s.path(link))
	if err != nil {
		return "", err
	}
	dir, id := path.Split(target)
	if dir != credentials+"/" || CheckID(id) != nil {
		return "", fmt.Errorf("%s points to %q, which is no credential", s.path(link), target)
	}
	return id, nil
}

// List gives the ids of all credentials, whole or not, sorted by name.
func (s *Store) List() ([]string, error) {
	var ids []string
	if s.inPlace() {
		ids = append(ids, First)
	}
	entries, err := s.Disk.ReadDir(s.path(credentials))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// PutKey writes the key of a new credential, or of one that has no certificate yet.
func (s *Store) PutKey(id string, key []byte) error { return s.put(id, keyFile, key) }

// PutCertificate writes the chain of a credential.
func (s *Store) PutCertificate(id string, chain []byte) error {
	return s.put(id, certificateFile, chain)
}

// Put writes both.
func (s *Store) Put(id string, chain, key []byte) error {
	if err := s.PutKey(id, key); err != nil {
		return err
	}
	return s.PutCertificate(id, chain)
}

func (s *Store) put(id, name string, data []byte) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if len(data) == 0 || len(data) > maxFileBytes {
		return fmt.Errorf("%s of credential %s would have %d bytes", name, id, len(data))
	}
	switch current, err := s.Current(); {
	case err != nil && !errors.Is(err, ErrNone):
		return err
	case current == id:
		return fmt.Errorf("credential %s is in use and is not written to", id)
	}
	err := s.Disk.Dir(s.path(credentials, id), 0o700)
	if err == nil {
		err = s.Disk.WriteFile(s.path(credentials, id, name), data, 0o600)
	}
	if err != nil {
		return err
	}
	return nil
}

// Key reads the key of a credential. The error wraps fs.ErrNotExist if it has none.
func (s *Store) Key(id string) ([]byte, error) { return s.read(s.KeyPath(id)) }

// Certificate reads the chain of a credential. The error wraps fs.ErrNotExist
// if it has none.
func (s *Store) Certificate(id string) ([]byte, error) { return s.read(s.CertificatePath(id)) }

func (s *Store) read(path string) ([]byte, error) {
	b, err := s.Disk.ReadFile(path, maxFileBytes)
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Use goes over to a credential, which has to be whole.
func (s *Store) Use(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	current, err := s.Current()
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	if current == id {
		return nil
	}
	if _, err := s.Certificate(id); err != nil {
		return err
	}
	if _, err := s.Key(id); err != nil && (id != First || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if err := s.use(id); err != nil {
		return fmt.Errorf("use credential %s: %w", id, err)
	}
	return nil
}

// use leaves, wherever it is interrupted, what [Store.Recover] can tell apart:
// the old credential under its link, or no link and the new one beside it.
func (s *Store) use(id string) error {
	if err := s.Disk.Remove(s.path(newLink)); err != nil { // of a switch that failed
		return err
	}
	if err := s.Disk.Symlink(path.Join(credentials, id), s.path(newLink)); err != nil {
		return err
	}
	if s.inPlace() {
		if err := s.remove(First); err != nil && !errors.Is(err, fs.ErrNotExist) { // an earlier one, not in use
			return err
		}
		if err := s.Disk.Rename(s.path(link), s.path(credentials, First)); err != nil {
			return err
		}
	}
	return s.Disk.Rename(s.path(newLink), s.path(link))
}

// UseNone takes the credential out of use, as before the first provisioning.
// A first credential that is still where it was put stays.
func (s *Store) UseNone() error {
	if s.inPlace() {
		return fmt.Errorf("%s is a directory and stays in use", s.path(link))
	}
	if err := s.Disk.Remove(s.path(link)); err != nil {
		return err
	}
	return nil
}

// Remove removes a credential, whole or not, that is not in use. That it is
// not there is no error.
func (s *Store) Remove(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	switch current, err := s.Current(); {
	case err != nil && !errors.Is(err, ErrNone):
		return err
	case current == id:
		return fmt.Errorf("credential %s is in use and is not removed", id)
	}
	err := s.remove(id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove credential %s: %w", id, err)
	}
	return nil
}

// remove first takes the name away, so that no half of a credential is listed.
func (s *Store) remove(id string) error {
	gone := s.path(credentials, removed+id)
	if err := s.Disk.RemoveDir(gone); err != nil {
		return err
	}
	if err := s.Disk.Rename(s.path(credentials, id), gone); err != nil {
		return err
	}
	return s.Disk.RemoveDir(gone)
}
