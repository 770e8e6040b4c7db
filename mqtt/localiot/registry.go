package localiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// registry is what outlives the process: which certificate is which thing's,
// and the shadows.
type registry struct {
	Certificates map[string]registration `json:"certificates"` // by certificate id
	Shadows      map[string]*shadow      `json:"shadows"`      // by shadowKey
}

type registration struct {
	Thing  string `json:"thing"`
	Active bool   `json:"active"`
}

const registryFile = "registry.json"

func openRegistry(dir string) (registry, error) {
	r := registry{Certificates: make(map[string]registration), Shadows: make(map[string]*shadow)}
	b, err := os.ReadFile(filepath.Join(dir, registryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := decode(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", registryFile, err)
	}
	return r, nil
}

func (r registry) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, registryFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

var name = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)

func validName(s string) bool { return name.MatchString(s) }

// Deactivate makes a certificate inactive and closes its connections.
func (s *Server) Deactivate(certificateID string) error {
	s.mu.Lock()
	r, ok := s.registry.Certificates[certificateID]
	if !ok {
		s.mu.Unlock()
		return fmt.Errorf("localiot: deactivate: no certificate %s", certificateID)
	}
	r.Active = false
	s.registry.Certificates[certificateID] = r
	err := s.registry.save(s.dir)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("localiot: deactivate: %w", err)
	}
	for _, client := range s.broker.Clients.GetAll() {
		if p, ok := client.Net.Conn.(*peer); ok && p.certificateID == certificateID {
			client.Stop(errors.New("certificate is inactive"))
		}
	}
	return nil
}
