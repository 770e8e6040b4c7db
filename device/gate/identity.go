package gate

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/device/durable"
)

// IdentityPath is the directory in runDir that holds certificate.pem and
// key.pem for other programs while a gate is open.
//
//	identity -> identity.<first half of the key's SHA-256>
//
// The directory is a symbolic link, so that a program that opens it once never
// sees the certificate of one key beside another key. Its files may be read by
// the group that keyvet runs as.
func IdentityPath(runDir string) string { return filepath.Join(runDir, "identity") }

const (
	identityDirMode  = 0o750
	identityFileMode = 0o640
)

// handOut puts the credential where other programs find it.
func (g *Gate) handOut() error {
	var disk durable.Disk
	if len(g.credential.Certificate) == 0 {
		return nil
	}
	link := IdentityPath(g.runDir)
	dir := link + "." + g.spki[:32]
	if err := disk.Dir(dir, identityDirMode); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"certificate.pem": g.credential.Certificate, "key.pem": g.credential.KeyFile} {
		if len(content) == 0 {
			continue
		}
		if err := disk.WriteFile(filepath.Join(dir, name), content, identityFileMode); err != nil {
			return err
		}
	}
	if target, err := disk.Readlink(link); err == nil && target == filepath.Base(dir) {
		return nil
	}
	if err := disk.Remove(link + ".new"); err != nil {
		return err
	}
	if err := disk.Symlink(filepath.Base(dir), link+".new"); err != nil {
		return err
	}
	if err := disk.Rename(link+".new", link); err != nil {
		return err
	}
	return g.removeIdentities(filepath.Base(dir))
}

// takeBack removes what other programs had. Who has a file open keeps that.
func (g *Gate) takeBack() error {
	var disk durable.Disk
	return errors.Join(disk.Remove(IdentityPath(g.runDir)), g.removeIdentities(""))
}

// removeIdentities removes the directories of all credentials but one.
func (g *Gate) removeIdentities(but string) error {
	var disk durable.Disk
	entries, err := disk.ReadDir(g.runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() == but || !strings.HasPrefix(e.Name(), "identity.") {
			continue
		}
		path := filepath.Join(g.runDir, e.Name())
		if e.IsDir() {
			err = errors.Join(err, disk.RemoveDir(path))
		} else {
			err = errors.Join(err, disk.Remove(path))
		}
	}
	return err
}
