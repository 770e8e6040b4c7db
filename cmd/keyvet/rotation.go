package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// newEngine is the engine that rotates this device's credential.
func (d *deviceRun) newEngine() *rotate.Engine {
	e := &rotate.Engine{
		Journal: rotate.File{Path: rotate.JournalPath(d.cfg.StateDir)}, Store: d.store,
		Keys: deviceKeys{d}, Vetter: deviceVetter{d}, Cloud: deviceCloud{d}, Gate: deviceGate{d},
		Grace: d.cfg.Rotate.Grace.Duration, JobKeys: d.cfg.JobKeys(), MinInterval: d.cfg.Rotate.MinInterval.Duration, Log: d.log,
	}
	if d.once {
		e.Attempts = onceAttempts - 1
	}
	e.EndOld = func(_ context.Context, id string) error {
		if id != rotate.Claim || !d.cfg.Provision.DeleteClaim {
			return nil // the operator's
		}
		return removeClaim(d.cfg)
	}
	return e
}

// named gives the engine the thing's name, which a self-check has found out.
func (d *deviceRun) named() *rotate.Engine {
	d.engine.CommonName, d.engine.Subject = d.thing, ""
	if d.cfg.Thing.Name == "cert:CN" {
		d.engine.Subject = d.thing // or the device would be another thing
	}
	return d.engine
}

// prepare goes on with a rotation that was interrupted, and provisions a device
// that has a claim alone.
func (d *deviceRun) prepare(ctx context.Context) (changed bool, err error) {
	before, state := d.credential, d.agent.Gate.State()
	defer func() {
		d.load()
		changed = !d.credential.same(&before) || state == gate.Open && d.agent.Gate.State() != gate.Open
	}()
	_, err = d.named().Resume(ctx)
	switch {
	case errors.Is(err, rotate.ErrNothing):
	case errors.Is(err, rotate.ErrWaits):
		d.log.Info("a rotation waits", "reason", err)
		return false, nil
	case err != nil: // how it ended; and a journal that cannot be read stops no report
		d.log.Error("rotation", "error", err)
	}
	_, current := d.store.Current()
	if d.cfg.Provision.ClaimCertificate == "" || !errors.Is(current, identity.ErrNone) || !errors.Is(d.credentialErr, fs.ErrNotExist) {
		return false, nil
	}
	if again := d.provisioning.again; time.Now().Before(again) {
		return false, notReady{fmt.Errorf("provisioning by claim failed and is tried again at %s: %w", again.Format(time.RFC3339), d.provisioning.err)}
	}
	_, err = d.named().Run(ctx, rotate.Request{Trigger: device.TriggerFirstBoot, Key: d.cfg.Rotate.Key, From: rotate.Claim})
	if ended := new(rotate.Error); errors.As(err, &ended) { // each time it takes a key and perhaps a certificate
		d.provisioning.failed(time.Now(), err)
	}
	if err != nil {
		return false, notReady{fmt.Errorf("provisioning by claim: %w", err)}
	}
	return false, nil
}

// trouble is what failed over and over, and is to be tried again ever more seldom.
type trouble struct {
	times int
	err   error
	again time.Time // not before
}

// failed is one more failure; the first two are tried again at once.
func (t *trouble) failed(now time.Time, err error) {
	t.times++
	t.err = err
	if n := t.times - 3; n >= 0 {
		t.again = now.Add(min(time.Minute<<min(n, 10), 6*time.Hour))
	}
}

// resume goes on with a rotation that waits.
func (d *deviceRun) resume(ctx context.Context, _ agent.Actions) error {
	_, err := d.named().Resume(ctx)
	d.load()
	return err
}

// rotate carries out a rotation that the cloud, the operator or the certificate's
// end asks for.
func (d *deviceRun) rotate(ctx context.Context, asked agent.Rotation) error {
	request := rotate.Request{Trigger: asked.Trigger, Job: rotate.Job{ID: asked.Job, Execution: asked.Execution}, Key: cmp.Or(asked.Key, d.cfg.Rotate.Key)}
	switch current, err := d.store.Current(); {
	case errors.Is(err, identity.ErrNone):
		request.From = rotate.Configured
	case err == nil && current == identity.First && d.cfg.Identity.Certificate != "":
		request.From = rotate.Configured
		return d.named().Refuse(ctx, request, fmt.Errorf("there is a credential in %s/identity besides the one of identity.certificate: remove the one that is not in use", d.cfg.StateDir))
	}
	_, err := d.named().Run(ctx, request)
	if s, loadErr := d.engine.Journal.Load(); err != nil && loadErr == nil && s.Rotation != nil {
		d.putAside(asked.Job, resumeEvery) // the rotation under way is resumed by itself
	}
	d.load()
	return err
}

// deviceKeys makes keys in the TPM or, on a device that has none, in software.
type deviceKeys struct{ *deviceRun }

func (d deviceKeys) Make(ctx context.Context, algorithm string) ([]byte, error) {
	if d.cfg.TPM.Address == "" {
		return makeKeyFile(algorithm)
	}
	t, err := tpm.Open(d.cfg.TPM.Address, d.cfg.TPMOptions())
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if strings.HasPrefix(algorithm, "rsa") {
		if err := makesGoodRSA(t); err != nil {
			return nil, fmt.Errorf("%w: %w", rotate.ErrAlgorithm, err)
		}
	}
	blob, err := t.CreateKey(algorithm)
	switch {
	case errors.Is(err, tpm.ErrFull):
		return nil, fmt.Errorf("%w: %w", rotate.ErrTPMFull, err)
	case errors.Is(err, tpm.ErrAlgorithm):
		return nil, fmt.Errorf("%w: %w", rotate.ErrAlgorithm, err)
	case err != nil:
		return nil, err
	}
	return blob.PEM(), nil
}

// makesGoodRSA tells why no RSA key of this TPM's firmware can be trusted.
func makesGoodRSA(t *tpm.TPM) error {
	info, err := t.Info()
	if err != nil {
		return err
	}
	for _, a := range advisory.Match(info) {
		if a.Affected && a.CVE == "CVE-2017-15361" {
			return fmt.Errorf("firmware %s makes RSA keys that can be factored (%s): take an ECDSA key", info.FirmwareVersion, a.CVE)
		}
	}
	return nil
}

func makeKeyFile(algorithm string) ([]byte, error) {
	var key crypto.Signer
	var err error
	switch algorithm {
	case "ecdsa-p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa-2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		err = fmt.Errorf("unknown algorithm %q: %w", algorithm, rotate.ErrAlgorithm)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func (d deviceKeys) Open(_ context.Context, file []byte) (crypto.Signer, error) {
	blob, err := tpm.ParseKeyBlob(file)
	if err == nil {
		s, err := tpm.NewSigner(d.cfg.TPM.Address, d.cfg.TPMOptions(), blob)
		if err == nil {
			_, err = s.SelfTest()
		}
		return s, keyGone(err)
	}
	if !errors.Is(err, tpm.ErrNoKeyBlob) {
		return nil, err
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, errors.New("no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", key)
	}
	return signer, nil
}

// Destroy has nothing to do: the blob is all there is of a key.
func (d deviceKeys) Destroy(context.Context, []byte) error { return nil }

// keyGone marks an error after which this TPM will never have the key again.
func keyGone(err error) error {
	if errors.Is(err, tpm.ErrGone) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", rotate.ErrKeyGone, err)
	}
	return err
}

// deviceVetter puts every check to one key.
type deviceVetter struct{ *deviceRun }

func (d deviceVetter) Vet(ctx context.Context, key device.Key) []device.Finding {
	v := &vetter{cfg: d.cfg, tell: d.progress}
	env := &check.Env{Now: time.Now(), ExpiryWarning: d.cfg.Check.ExpiryWarning.Duration}
	inv := device.Inventory{ReadAt: env.Now, Keys: []device.Key{key}}
	lists, _ := v.loadEnv(env) // what is missing, a check that needs it says
	defer lists.Close()
	return check.Run(ctx, inv, env)
}

// deviceCloud makes sessions by one credential or another.
type deviceCloud struct{ *deviceRun }

func (d deviceCloud) Dial(ctx context.Context, id string) (rotate.Session, error) {
	c, err := d.credentialOf(id)
	if err != nil {
		return nil, keyGone(err)
	}
	pair, err := c.tested(d.cfg)
	if err != nil {
		return nil, keyGone(err)
	}
	if id == rotate.Claim {
		return d.dialByClaim(ctx, pair)
	}
	if d.thingErr != nil {
		return nil, d.thingErr
	}
	// A dialer of its own: that one credential is refused says nothing of the
	// endpoint, and the engine pauses by itself.
	dialer, err := d.newDialer(pair, d.clientID(), false)
	if err != nil {
		return nil, err
	}
	client, session, err := d.dial(ctx, dialer)
	if err != nil {
		return nil, err
	}
	return &rotationSession{run: d.deviceRun, session: session, issuer: client.Provisioner, cloud: newCloud(d.deviceRun, client, session)}, nil
}

func (d deviceCloud) dialByClaim(ctx context.Context, pair tls.Certificate) (rotate.Session, error) {
	var err error
	if d.claimDialer == nil {
		d.claimDialer, err = d.newDialer(pair, awsiot.ClaimClientID(cmp.Or(d.thing, rand.Text())), false)
	}
	if err != nil {
		return nil, err
	}
	d.claimDialer.SetCertificate(pair)
	session, err := d.claimDialer.Dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &rotationSession{run: d.deviceRun, session: session, issuer: awsiot.NewProvisioner(session), byClaim: true}, nil
}

// paths are the files of a credential.
func (d *deviceRun) paths(id string) (certificate, key string) {
	switch id {
	case rotate.Claim:
		return d.cfg.Provision.ClaimCertificate, d.cfg.Provision.ClaimKey
	case rotate.Configured:
		return d.cfg.ConfiguredFiles()
	case identity.First:
		if d.cfg.Identity.Key != "" {
			return d.store.CertificatePath(id), d.cfg.Identity.Key
		}
	}
	return d.store.CertificatePath(id), d.store.KeyPath(id)
}

func (d *deviceRun) credentialOf(id string) (credential, error) {
	certificate, key := d.paths(id)
	return readCredential(d.cfg, certificate, key)
}

// rotationSession is a session of the engine's.
type rotationSession struct {
	run     *deviceRun
	session *mqtt.Session
	issuer  awsiot.Provisioner
	cloud   *cloud // nil by claim
	byClaim bool
}

func (s *rotationSession) Close() { s.session.Close() }

// Create asks for a certificate: a claim by fleet provisioning, a device as
// rotate.issuer says.
func (s *rotationSession) Create(ctx context.Context, o rotate.Order, request []byte) (rotate.Certificate, error) {
	var c awsiot.Certificate
	var err error
	if s.byClaim || s.run.cfg.Rotate.Issuer == config.IssuerFleet {
		c, err = s.issuer.CreateCertificate(ctx, request)
	} else {
		c, err = s.cloud.RequestCertificate(ctx, o.Job.ID, request)
	}
	return rotate.Certificate{ID: c.ID, PEM: c.PEM, Token: c.OwnershipToken}, refusal(err)
}

func (s *rotationSession) Activate(ctx context.Context, c rotate.Certificate) (string, error) {
	if c.Token == "" {
		return "", nil // it is usable as it is
	}
	template := s.run.cfg.RotateTemplate()
	if s.byClaim {
		template = s.run.cfg.Provision.Template
	}
	thing, _, err := s.issuer.RegisterThing(ctx, template, c.Token, s.run.parameters())
	if err == nil && s.run.thing != "" && thing != s.run.thing {
		return thing, fmt.Errorf("%w: the template made this device the thing %q, but thing.name says %q", rotate.ErrRejected, thing, s.run.thing)
	}
	return thing, refusal(err)
}

// parameters are those of a provisioning template: in their values {thing}
// stands for the thing's name. If there are none, ThingName is it.
func (d *deviceRun) parameters() map[string]string {
	all := make(map[string]string)
	for name, value := range d.cfg.Provision.Parameters {
		all[name] = strings.ReplaceAll(value, "{thing}", d.thing)
	}
	if len(all) == 0 && d.thing != "" {
		all["ThingName"] = d.thing
	}
	return all
}

func (s *rotationSession) Confirm(ctx context.Context, o rotate.Order, c rotate.Certificate) error {
	if o.From == rotate.Claim || s.run.cfg.Rotate.Issuer == config.IssuerFleet {
		return nil
	}
	return refusal(s.cloud.CommitCertificate(ctx, o.Job.ID, c.ID))
}

func (s *rotationSession) Tell(ctx context.Context, job rotate.Job, status rotate.Status, details map[string]string) error {
	if s.cloud == nil {
		return nil // a claim has no jobs
	}
	described, err := s.cloud.DescribeJob(ctx, job.ID)
	switch {
	case err != nil:
		return refusal(err)
	case described == nil, described.Execution != job.Execution, described.Status.Ended() && described.Status != awsiot.JobStatus(status):
		return fmt.Errorf("%w: %s", rotate.ErrJobEnded, job.ID)
	case described.Status.Ended():
		return nil // told before
	}
	return refusal(s.cloud.answerJob(ctx, described, agent.Outcome(status), details))
}

// refusal sorts the errors of AWS IoT for the engine.
func refusal(err error) error {
	var rejected *awsiot.Rejected
	switch {
	case err == nil:
		return nil
	case errors.Is(err, awsiot.ErrJobEnded):
		return fmt.Errorf("%w: %w", rotate.ErrJobEnded, err)
	case errors.Is(err, awsiot.ErrThrottled):
		return fmt.Errorf("%w: %w", rotate.ErrThrottled, err)
	case errors.As(err, &rejected):
		return fmt.Errorf("%w: %w", rotate.ErrRejected, err)
	}
	return err
}

// MoveGate has the agent vet the new key and move its gate.
func (s *rotationSession) MoveGate(ctx context.Context, o rotate.Order, id string) error {
	switch g := s.run.agent.Move(ctx, s.cloud, o.Trigger, id); {
	case g.Moved:
		return nil
	case g.Acknowledged:
		return fmt.Errorf("%w: %s", rotate.ErrRejected, g.Refusal)
	default:
		return g.Undelivered
	}
}

// deviceGate is the gate of the agent.
type deviceGate struct{ *deviceRun }

func (d deviceGate) Back(string) error {
	d.load()
	return d.agent.Gate.Shut()
}
