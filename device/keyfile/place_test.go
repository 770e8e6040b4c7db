package keyfile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

// TestPlace has a key behind a link: who can get there depends on the directories
// that it really lies in.
func TestPlace(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	shut := filepath.Join(root, "shut")
	key := filepath.Join(shut, "open", "key.pem")
	for _, err := range []error{os.Mkdir(shut, 0o700), os.Mkdir(filepath.Dir(key), 0o755), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o644), os.Symlink(key, filepath.Join(root, "link.pem"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{key, filepath.Join(root, "link.pem")} {
		keys, gaps := Read(path)
		if len(keys) != 1 || len(gaps) != 0 || keys[0].Private == nil || keys[0].Private.Place == nil {
			t.Fatalf("%+v %v", keys, gaps)
		}
		p := keys[0].Private.Place
		last := p.Dirs[len(p.Dirs)-1]
		if p.Owner != os.Geteuid() || p.Dirs[0].Path != filepath.Dir(key) || p.Dirs[0].Mode.Perm() != 0o755 ||
			p.Dirs[1].Path != shut || p.Dirs[1].Mode.Perm() != 0o700 || p.Dirs[1].Owner != os.Geteuid() || last.Path != "/" {
			t.Errorf("%s: %+v", path, p)
		}
	}
}
