package localiot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is the local CA: a P-256 key and its certificate.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	path        string
}

func openAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{path: filepath.Join(dir, "ca.pem")}
	keyPath := filepath.Join(dir, "ca-key.pem")
	certPEM, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeAuthority(a.path, keyPath); err != nil {
			return nil, err
		}
		certPEM, err = os.ReadFile(a.path)
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	a.certificate, a.key = pair.Leaf, pair.PrivateKey.(crypto.Signer)
	return a, nil
}

func makeAuthority(certPath, keyPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "keyvet local AWS IoT CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.WriteFile(keyPath, keyPEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certPath, certificatePEM(der), 0o644) // last: without it, both are made again
}

func (a *authority) issue(template *x509.Certificate, pub crypto.PublicKey, life time.Duration) (der []byte, err error) {
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(life)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, template, a.certificate, pub, a.key)
}

const year = 365 * 24 * time.Hour

// serverConfig is mutual TLS with a fresh server certificate for localhost and
// the further names. verify sees the client's chain, leaf first.
func (a *authority) serverConfig(names []string, verify func(chain [][]byte) error) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := a.issue(template, key.Public(), year)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}},
		ClientAuth:             tls.RequireAnyClientCert, // AWS IoT knows a certificate by its registry, not by its CA
		VerifyPeerCertificate:  func(chain [][]byte, _ [][]*x509.Certificate) error { return verify(chain) },
		NextProtos:             []string{"x-amzn-mqtt-ca", "mqtt"},
		SessionTicketsDisabled: true, // as AWS IoT
	}, nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// CertificateID is AWS IoT's id of a certificate: the lower-case hex SHA-256 of its DER.
func CertificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// CAFile is the path of the CA's certificate, PEM.
func (s *Server) CAFile() string { return s.ca.path }

// CAPEM is the CA's certificate.
func (s *Server) CAPEM() []byte { return certificatePEM(s.ca.certificate.Raw) }

// IssueCertificate makes a client certificate on pub, registers it as active
// and binds it to the thing. It returns the chain, leaf first, as PEM. A thing
// may have several certificates.
func (s *Server) IssueCertificate(thing string, pub crypto.PublicKey) ([]byte, error) {
	if !validName(thing) {
		return nil, fmt.Errorf("thing name %q is not 1 to 128 of a-z, A-Z, 0-9, colon, underscore and hyphen", thing)
	}
	return s.issueRegistered(thing, pub, registration{Thing: thing, Status: Active})
}

// IssueClaim makes a claim certificate on pub: it may ask for certificates and
// provision, and nothing else.
func (s *Server) IssueClaim(pub crypto.PublicKey) ([]byte, error) {
	return s.issueRegistered("claim", pub, registration{Status: Active, Claim: true})
}

// IssueUnregistered makes a certificate of the CA that the registry does not
// know, for just-in-time registration: the thing's name is its common name.
func (s *Server) IssueUnregistered(thing string, pub crypto.PublicKey) ([]byte, error) {
	der, err := s.ca.issue(clientTemplate(pkix.Name{CommonName: thing}), pub, s.life)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return append(certificatePEM(der), s.CAPEM()...), nil
}

func clientTemplate(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

func (s *Server) issueRegistered(commonName string, pub crypto.PublicKey, r registration) ([]byte, error) {
	der, err := s.ca.issue(clientTemplate(pkix.Name{CommonName: commonName}), pub, s.life)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if err := s.register(der, r); err != nil {
		return nil, err
	}
	return append(certificatePEM(der), s.CAPEM()...), nil
}

// RegisterCertificate registers a certificate, whoever issued it, as active
// and binds it to the thing.
func (s *Server) RegisterCertificate(thing string, der []byte) error {
	if !validName(thing) {
		return fmt.Errorf("register certificate: %q is no thing's name", thing)
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("register certificate: %w", err)
	}
	if err := s.register(der, registration{Thing: thing, Status: Active}); err != nil {
		return fmt.Errorf("register certificate: %w", err)
	}
	return nil
}

func (s *Server) register(der []byte, r registration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registry.register(der, r)
	return s.registry.save(s.dir)
}
