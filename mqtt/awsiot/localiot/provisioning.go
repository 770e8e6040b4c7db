package localiot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Topics of fleet provisioning (AWS IoT Developer Guide, "Device provisioning
// MQTT API").
const (
	createFromCSR   = "$aws/certificates/create-from-csr/json"
	provisionPrefix = "$aws/provisioning-templates/"
	provisionSuffix = "/provision/json"
)

// tokenLife is how long an ownership token is good for.
const tokenLife = time.Hour

// maxCSR bounds a CSR in bytes of PEM (API reference, "CreateCertificateFromCsr").
const maxCSR = 4096

// provisionError is an answer on a rejected topic.
type provisionError struct {
	status        int
	code, message string
}

func (e *provisionError) Error() string { return e.code + ": " + e.message }

// answerProvisioning carries out an operation on a topic of fleet provisioning.
func (s *Server) answerProvisioning(m Message, send reply) {
	var answer map[string]any
	var err error
	topic := m.Topic
	template := strings.TrimSuffix(strings.TrimPrefix(topic, provisionPrefix), provisionSuffix)
	switch {
	case topic == createFromCSR:
		if s.strikes(func(f Faults) bool { return f.CreateSilent }) {
			return
		}
		answer, err = s.createFromCSR(m.Payload)
	case template != "" && topic == provisionPrefix+template+provisionSuffix:
		answer, err = s.provision(template, m)
	default:
		return
	}
	if err != nil {
		rejected := &provisionError{500, "InternalError", "internal failure"}
		if !errors.As(err, &rejected) {
			s.log.Error("not provisioned", "error", err)
		}
		send("rejected", map[string]any{"statusCode": rejected.status, "errorCode": rejected.code, "errorMessage": rejected.message})
		return
	}
	send("accepted", answer)
}

func (s *Server) createFromCSR(payload []byte) (map[string]any, error) {
	var request struct {
		CSR string `json:"certificateSigningRequest"`
	}
	if decode(payload, &request) != nil {
		return nil, &provisionError{400, "InvalidPayload", "the request cannot be read"}
	}
	switch {
	case s.strikes(func(f Faults) bool { return f.Throttle }):
		return nil, &provisionError{429, "ThrottlingException", "too many requests"}
	case s.strikes(func(f Faults) bool { return f.CreateRejected }):
		return nil, &provisionError{403, "CertificateProviderRejected", "the certificate provider does not sign this"}
	}
	token := rand.Text() + rand.Text()
	id, chain, err := s.sign(request.CSR, registration{Status: PendingActivation, Token: token, Requested: true})
	if err != nil {
		return nil, err
	}
	return map[string]any{"certificateId": id, "certificatePem": string(certificatePEM(chain[0])), "certificateOwnershipToken": token}, nil
}

// sign issues what a CSR asks for, by the certificate provider if there is
// one, and registers it.
func (s *Server) sign(csrPEM string, r registration) (id string, chain [][]byte, err error) {
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return "", nil, &provisionError{400, "InvalidCertificateSigningRequest", err.Error()}
	}
	if s.provider != nil {
		if chain, err = s.provider(csr); err == nil && len(chain) == 0 {
			err = errors.New("the certificate provider gave no certificate")
		}
	} else {
		subject := csr.Subject
		if subject.String() == "" {
			subject = pkix.Name{CommonName: "AWS IoT Certificate"}
		}
		var der []byte
		der, err = s.ca.issue(clientTemplate(subject), csr.PublicKey, s.life)
		chain = [][]byte{der, s.ca.certificate.Raw}
	}
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registry.register(chain[0], r), chain, s.registry.save(s.dir)
}

// parseCSR takes what AWS IoT takes (Developer Guide, "Create your own client
// certificates": RSA of 2048 bits or more, P-256, P-384, P-521).
func parseCSR(text string) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode([]byte(text))
	if len(text) > maxCSR || block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one CERTIFICATE REQUEST in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	switch key := csr.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 {
			return csr, nil
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521() {
			return csr, nil
		}
	}
	return nil, errors.New("the key's algorithm or size is not supported")
}

func (s *Server) provision(name string, m Message) (map[string]any, error) {
	var request struct {
		Token      string            `json:"certificateOwnershipToken"`
		Parameters map[string]string `json:"parameters"`
	}
	if decode(m.Payload, &request) != nil {
		return nil, &provisionError{400, "InvalidPayload", "the request cannot be read"}
	}
	switch {
	case s.strikes(func(f Faults) bool { return f.Throttle }):
		return nil, &provisionError{429, "ThrottlingException", "too many requests"}
	case s.strikes(func(f Faults) bool { return f.ProvisionRejected }), !s.allowed(name, request.Token, request.Parameters, m):
		return nil, &provisionError{403, "AccessDenied", "the pre-provisioning hook does not allow it"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	template, ok := s.templates[name]
	if !ok {
		return nil, &provisionError{404, "ResourceNotFound", "there is no provisioning template " + name}
	}
	id, certificate := s.owned(request.Token)
	if certificate == nil {
		return nil, &provisionError{400, "InvalidCertificateOwnershipToken", "the token is unknown, used or over an hour old"}
	}
	thing, configuration, err := template.evaluate(request.Parameters, id)
	if err != nil {
		return nil, &provisionError{400, "InvalidParameters", err.Error()}
	}
	s.registry.makeThing(thing)
	certificate.Thing, certificate.Token = thing, ""
	if !s.strikesLocked(func(f Faults) bool { return f.NeverActivated }) {
		certificate.Status = template.status
	}
	if err := s.registry.save(s.dir); err != nil {
		return nil, err
	}
	return map[string]any{"thingName": thing, "deviceConfiguration": configuration}, nil
}

// allowed asks the hook, if there is one, about a certificate that can be had.
func (s *Server) allowed(template, token string, parameters map[string]string, m Message) bool {
	s.mu.Lock()
	id, _ := s.owned(token)
	s.mu.Unlock()
	return s.hook == nil || id == "" || s.hook(Asked{template, m.CertificateID, id, m.ClientID, parameters})
}

// owned is the certificate that a token proves to own; mu is held.
func (s *Server) owned(token string) (string, *registration) {
	for id, r := range s.registry.Certificates {
		if token != "" && r.Token == token && time.Since(r.Made) < tokenLife {
			return id, r
		}
	}
	return "", nil
}

// AddTemplate adds a provisioning template, in AWS IoT's JSON (Developer
// Guide, "Provisioning templates"), under a name. Of its resources the thing's
// name and the certificate's status count; policies are localiot's own.
func (s *Server) AddTemplate(name string, body []byte) error {
	t, err := parseTemplate(body)
	if err != nil {
		return fmt.Errorf("template %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.templates[name] = t
	return nil
}
