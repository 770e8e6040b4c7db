package identity

import (
	"bytes"
	"errors"
	"io/fs"
)

// Show puts a copy of the credential in use into another store, in the run
// directory, for the programs that rely on it while the gate is open. There as
// here it changes by one rename, so that they never read a certificate and the
// key of another; a systemd path unit that watches the link sees it.
func (s *Store) Show(shown *Store) error {
	id, err := s.Current()
	if err != nil {
		return err
	}
	chain, err := s.Certificate(id)
	if err != nil {
		return err
	}
	key, err := s.Key(id)
	if err != nil && (id != First || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if err := shown.Recover(); err != nil {
		return err
	}
	if current, err := shown.Current(); err == nil && current == id {
		shownChain, chainErr := shown.Certificate(id)
		shownKey, _ := shown.Key(id)
		if chainErr == nil && bytes.Equal(shownChain, chain) && bytes.Equal(shownKey, key) {
			return shown.removeAllBut(id)
		}
		if err := shown.Hide(); err != nil { // another pair was put in the first one's place
			return err
		}
	}
	if key != nil {
		if err := shown.PutKey(id, key); err != nil {
			return err
		}
	}
	if err := shown.PutCertificate(id, chain); err != nil {
		return err
	}
	if err := shown.Use(id); err != nil {
		return err
	}
	return shown.removeAllBut(id)
}

// Hide takes what [Store.Show] put into a store away, as when the gate shuts.
func (s *Store) Hide() error {
	if err := s.Recover(); err != nil {
		return err
	}
	if err := s.UseNone(); err != nil {
		return err
	}
	return s.removeAllBut("")
}

func (s *Store) removeAllBut(id string) error {
	ids, err := s.List()
	for _, other := range ids {
		if other != id {
			err = errors.Join(err, s.Remove(other))
		}
	}
	return err
}
