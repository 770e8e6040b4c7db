package awsiot

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/mqtt"
)

// Provisioner speaks fleet provisioning (AWS IoT Developer Guide, "Device
// provisioning MQTT API"), on the session of a claim or of a thing.
type Provisioner struct {
	session *mqtt.Session
}

// NewProvisioner makes the provisioner of a session that need not be a thing's.
func NewProvisioner(s *mqtt.Session) Provisioner { return Provisioner{session: s} }

// claimPrefix is what the client id of a claim starts with in docs/aws/claim-policy.json,
// so that whoever has a claim cannot take over the connection of a thing.
const claimPrefix = "keyvet-claim-"

// ClaimClientID is the client id for a session with a claim, whose devices
// would cut each other off if they had one between them.
func ClaimClientID(thing string) string {
	id := claimPrefix + thing
	return id[:min(len(id), maxClientID)]
}

// Certificate is a certificate as it was issued.
type Certificate struct {
	ID             string // AWS IoT's; safe as the name of a file
	PEM            []byte // leaf first, then what came with it
	OwnershipToken string // of fleet provisioning alone; good for an hour
}

// CreateCertificate has AWS IoT, or the account's certificate provider, sign
// a certificate for the key of csrPEM. It is pending until [Provisioner.RegisterThing].
func (p Provisioner) CreateCertificate(ctx context.Context, csrPEM []byte) (Certificate, error) {
	reply, err := request(ctx, p.session, "$aws/certificates/create-from-csr/json", plain(map[string]any{
		"certificateSigningRequest": string(csrPEM),
	}))
	var cert Certificate
	if err == nil {
		cert, err = parseCreated(reply)
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("create certificate: %w", err)
	}
	return cert, nil
}

// RegisterThing carries the provisioning template out for the certificate
// that token came with, which is active from then on. It returns the name of
// the thing and what the template has for the device.
func (p Provisioner) RegisterThing(ctx context.Context, template, token string, parameters map[string]string) (thing string, configuration map[string]string, err error) {
	if !validName(template) || len(template) > 36 {
		return "", nil, fmt.Errorf("register thing: %.80q is no name of a provisioning template", template)
	}
	if parameters == nil {
		parameters = map[string]string{}
	}
	reply, err := request(ctx, p.session, "$aws/provisioning-templates/"+template+"/provision/json", plain(map[string]any{
		"certificateOwnershipToken": token, "parameters": parameters,
	}))
	if err == nil {
		thing, configuration, err = parseRegistered(reply)
	}
	if err != nil {
		return "", nil, fmt.Errorf("register thing: %w", err)
	}
	return thing, configuration, nil
}

// RequestCertificate asks the operator's own issuer for a certificate for the
// key of csrPEM. jobID is the job that asked for it, or "".
func (c *Client) RequestCertificate(ctx context.Context, jobID string, csrPEM []byte) (Certificate, error) {
	reply, err := request(ctx, c.session, c.own("certificate/create"), plain(map[string]any{
		"jobId": jobID, "csr": string(csrPEM),
	}))
	var cert Certificate
	if err == nil {
		cert, err = parseIssued(reply)
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("request certificate: %w", err)
	}
	return cert, nil
}

// CommitCertificate tells the operator's own issuer, on a session with the new
// certificate, that the one before may go.
func (c *Client) CommitCertificate(ctx context.Context, jobID, certificateID string) error {
	_, err := request(ctx, c.session, c.own("certificate/commit"), plain(map[string]any{
		"jobId": jobID, "certificateId": certificateID,
	}))
	if err != nil {
		return fmt.Errorf("commit certificate: %w", err)
	}
	return nil
}

func parseCreated(reply []byte) (Certificate, error) {
	var doc struct {
		ID    string `json:"certificateId"`
		PEM   string `json:"certificatePem"`
		Token string `json:"certificateOwnershipToken"`
	}
	if err := decode(reply, &doc); err != nil {
		return Certificate{}, err
	}
	if doc.Token == "" {
		return Certificate{}, errors.New("reply: certificateOwnershipToken is not there")
	}
	return newCertificate(doc.ID, doc.PEM, doc.Token)
}

func parseIssued(reply []byte) (Certificate, error) {
	var doc struct {
		ID    string `json:"certificateId"`
		PEM   string `json:"certificatePem"`
		Chain string `json:"chainPem"`
	}
	if err := decode(reply, &doc); err != nil {
		return Certificate{}, err
	}
	return newCertificate(doc.ID, doc.PEM+"\n"+doc.Chain, "")
}

// maxChain bounds the certificates of one reply.
const maxChain = 10

// newCertificate takes the certificates of text and nothing else of it. What is in
// them is for the caller to judge.
func newCertificate(id, text, token string) (Certificate, error) {
	if !validName(id) {
		return Certificate{}, fmt.Errorf("reply: %.80q is no certificate id", id)
	}
	var chain bytes.Buffer
	n := 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return Certificate{}, errors.New("reply: something other than PEM stands beside the certificate")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return Certificate{}, fmt.Errorf("reply: a PEM block is a %.40q, not a certificate", block.Type)
		}
		if n == maxChain {
			return Certificate{}, fmt.Errorf("reply: more than %d certificates", maxChain)
		}
		if err := pem.Encode(&chain, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return Certificate{}, err
		}
	}
	if n == 0 {
		return Certificate{}, errors.New("reply: there is no certificate in it")
	}
	return Certificate{ID: id, PEM: chain.Bytes(), OwnershipToken: token}, nil
}

func parseRegistered(reply []byte) (thing string, configuration map[string]string, err error) {
	var doc struct {
		Thing         string                     `json:"thingName"`
		Configuration map[string]json.RawMessage `json:"deviceConfiguration"`
	}
	if err := decode(reply, &doc); err != nil {
		return "", nil, err
	}
	if err := CheckThingName(doc.Thing); err != nil {
		return "", nil, fmt.Errorf("reply: %w", err)
	}
	configuration = make(map[string]string, len(doc.Configuration))
	for name, value := range doc.Configuration {
		text, ok := (member{value: value}).text()
		if !ok { // a template may have numbers; the thing is registered all the same
			text = string(value)
		}
		configuration[name] = text
	}
	return doc.Thing, configuration, nil
}
