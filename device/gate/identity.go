package gate

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
)

// IdentityPath is the directory in a run directory that holds certificate.pem
// and key.pem for other programs while a gate is open.
//
//	identity -> identity.<first half of the SHA-256 of both files>
//
// The directory is a symbolic link, so that a program that opens it once never
// sees the certificate of one credential beside the key of another. Its files
// may be read by the group that keyvet runs as.
func IdentityPath(dir string) string { return filepath.Join(dir, identityName) }

const (
	identityName     = "identity"
	identityDirMode  = 0o750
	identityFileMode = 0o640
)

// handOut puts v's credential where other programs find it.
func (g *Gate) handOut(v Vetted) error {
	c := v.Credential
	if len(c.Certificate) == 0 {
		return nil
	}
	link := IdentityPath(g.dir)
	dir := link + "." + digest(append(append([]byte{}, c.Certificate...), c.KeyFile...))[:32]
	if err := g.disk.Dir(dir, identityDirMode); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"certificate.pem": c.Certificate, "key.pem": c.KeyFile} {
		if len(content) == 0 {
			continue
		}
		if err := g.disk.WriteFile(filepath.Join(dir, name), content, identityFileMode); err != nil {
			return err
		}
	}
	if target, err := g.disk.Readlink(link); err != nil || target != filepath.Base(dir) {
		if err := g.disk.Remove(link + ".new"); err != nil {
			return err
		}
		if err := g.disk.Symlink(filepath.Base(dir), link+".new"); err != nil {
			return err
		}
		if err := g.disk.Rename(link+".new", link); err != nil {
			return err
		}
	}
	return g.removeIdentities(filepath.Base(dir))
}

// takeBack removes what other programs had. A program that has a file open keeps it.
func (g *Gate) takeBack() error {
	return errors.Join(g.remove(IdentityPath(g.dir), g.disk.Remove), g.removeIdentities(""))
}

// removeIdentities removes the directories of all credentials but one.
func (g *Gate) removeIdentities(but string) error {
	entries, err := g.disk.ReadDir(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() == but || !strings.HasPrefix(e.Name(), identityName+".") {
			continue
		}
		path := filepath.Join(g.dir, e.Name())
		if e.IsDir() {
			err = errors.Join(err, g.disk.RemoveDir(path))
		} else {
			err = errors.Join(err, g.disk.Remove(path))
		}
	}
	return err
}
