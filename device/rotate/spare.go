package rotate

import (
	"crypto/rand"
	"path/filepath"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/identity"
)

// spare is a file that keeps room on the disk for what going back writes.
type spare struct {
	disk durable.Disk
	path string
}

func spareOf(store *identity.Store) spare {
	return spare{store.Disk, filepath.Join(store.Dir, "rotation.spare")}
}

// take fills it with what no file system makes smaller.
func (s spare) take() error {
	filling := make([]byte, maxJournalBytes)
	rand.Read(filling) // never fails
	return s.disk.WriteFile(s.path, filling, 0o600)
}

func (s spare) free() error { return s.disk.Remove(s.path) }
