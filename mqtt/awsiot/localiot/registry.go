package localiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// registry is what outlives the process.
type registry struct {
	Things       map[string]time.Time     `json:"things"`       // when each was made
	Certificates map[string]*registration `json:"certificates"` // by certificate id
	Shadows      map[string]*shadow       `json:"shadows"`      // by shadowKey
	Jobs         []*job                   `json:"jobs"`         // oldest first
}

// CertificateStatus is what AWS IoT's registry says of a certificate (API
// reference, "CertificateDescription"). Only an active one may connect.
type CertificateStatus string

// The statuses that the endpoint knows.
const (
	Active            CertificateStatus = "ACTIVE"
	Inactive          CertificateStatus = "INACTIVE"
	PendingActivation CertificateStatus = "PENDING_ACTIVATION"
)

// Certificate is one client certificate of the registry.
type Certificate struct {
	ID     string
	Thing  string // "" if it is no thing's
	Status CertificateStatus
	Claim  bool // it may do nothing but provision
	DER    []byte
	Made   time.Time
}

type registration struct {
	Thing  string            `json:"thing,omitempty"`
	Status CertificateStatus `json:"status"`
	Claim  bool              `json:"claim,omitempty"`
	DER    []byte            `json:"der"`
	Made   time.Time         `json:"made"`
	// Requested tells that a device asked for it, Used that it has connected.
	Requested bool `json:"requested,omitempty"`
	Used      bool `json:"used,omitempty"`
	// Token is the ownership token of one that is not provisioned yet.
	Token string `json:"token,omitempty"`
}

const registryFile = "registry.json"

func openRegistry(dir string) (registry, error) {
	r := registry{Things: make(map[string]time.Time), Certificates: make(map[string]*registration), Shadows: make(map[string]*shadow)}
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

// register keeps a certificate, and makes its thing if there is none of that name.
func (r *registry) register(der []byte, reg registration) (id string) {
	id, reg.DER, reg.Made = CertificateID(der), der, time.Now()
	r.Certificates[id] = &reg
	r.makeThing(reg.Thing)
	return id
}

func (r *registry) makeThing(thing string) {
	if _, there := r.Things[thing]; !there && thing != "" {
		r.Things[thing] = time.Now()
	}
}

var name = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)

func validName(s string) bool { return name.MatchString(s) }

// Things are the names of all things, sorted.
func (s *Server) Things() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.registry.Things))
}

// Certificates are those of a thing, or those of no thing for "", oldest first.
func (s *Server) Certificates(thing string) []Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Certificate
	for id, r := range s.registry.Certificates {
		if r.Thing == thing {
			found = append(found, Certificate{ID: id, Thing: r.Thing, Status: r.Status, Claim: r.Claim, DER: r.DER, Made: r.Made})
		}
	}
	slices.SortFunc(found, func(a, b Certificate) int {
		if c := a.Made.Compare(b.Made); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return found
}

// Activate makes a certificate active.
func (s *Server) Activate(certificateID string) error {
	if err := s.setStatus(certificateID, Active); err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	return nil
}

// Deactivate makes a certificate inactive and closes its connections.
func (s *Server) Deactivate(certificateID string) error {
	if err := s.setStatus(certificateID, Inactive); err != nil {
		return fmt.Errorf("deactivate: %w", err)
	}
	return nil
}

func (s *Server) setStatus(certificateID string, status CertificateStatus) error {
	s.mu.Lock()
	r, ok := s.registry.Certificates[certificateID]
	if !ok {
		s.mu.Unlock()
		return fmt.Errorf("no certificate %q", certificateID)
	}
	r.Status = status
	err := s.registry.save(s.dir)
	s.mu.Unlock()
	if status != Active {
		s.disconnect(certificateID)
	}
	return err
}

// disconnect closes the connections of a certificate.
func (s *Server) disconnect(certificateID string) {
	for _, client := range s.broker.Clients.GetAll() {
		if p, ok := client.Net.Conn.(*peer); ok && p.certificateID == certificateID {
			client.Stop(errors.New("certificate is not active"))
		}
	}
}
