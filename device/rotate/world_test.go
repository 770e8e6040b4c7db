package rotate_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

// world is what is around the engine and stays through a power cut of the
// device: the cloud, the TPM, the clock.
type world struct {
	certificates map[string]certificate // by id
	jobs         map[string]device.JobState
	details      map[string]map[string]string
	script       map[string][]answer // what calls answer with; the last stays
	calls        map[string]int
	made         int // keys
	badKey       device.ReasonCode
	cancelAt     string                  // the step at which the job is canceled
	confirms     bool                    // the issuer retires the old certificate when the new one is confirmed
	ended        string                  // the old credential that is not in the store
	shape        func(*x509.Certificate) // of the certificates that are issued
	encode       func(der []byte) []byte // the same; nil: as crypto/x509 does
	gone         map[int]bool            // keys that the TPM lost
	now          time.Time
	guards       string // the key of the gate; lost at a power cut
	offline      bool
}

type certificate struct {
	spki   string
	active bool
}

// answer is what a call answers with, and whether it has its effect all the same.
type answer struct {
	err  error
	done bool
}

const thing = "gateway-1"

func newWorld() *world {
	return &world{
		certificates: map[string]certificate{}, jobs: map[string]device.JobState{}, details: map[string]map[string]string{},
		script: map[string][]answer{}, calls: map[string]int{}, gone: map[int]bool{}, now: time.Now(),
	}
}

func (w *world) clone() *world {
	c := *w
	c.certificates, c.jobs, c.details = maps.Clone(w.certificates), maps.Clone(w.jobs), maps.Clone(w.details)
	c.script, c.calls, c.gone = maps.Clone(w.script), maps.Clone(w.calls), maps.Clone(w.gone)
	return &c
}

// next is the answer of a call by its name.
func (w *world) next(call string) answer {
	w.calls[call]++
	queue := w.script[call]
	if len(queue) == 0 {
		return answer{nil, true}
	}
	if len(queue) > 1 {
		w.script[call] = queue[1:]
	}
	return queue[0]
}

// call does effect between two points at which power may go.
func (w *world) call(power *durabletest.Power, name string, effect func() error) error {
	power.Point()
	a := w.next(name)
	if a.done {
		if err := effect(); err != nil {
			return err
		}
	}
	power.Point()
	return a.err
}

// pool are keys made once, so that a sweep of thousands of runs is fast.
var pool = sync.OnceValue(func() (all [][]byte) {
	for range 64 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			panic(err)
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return all
})

// parsed are the keys of the pool.
var parsed = sync.OnceValue(func() map[string]*ecdsa.PrivateKey {
	all := map[string]*ecdsa.PrivateKey{}
	for _, file := range pool() {
		block, _ := pem.Decode(file)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			panic(err)
		}
		all[string(file)] = key.(*ecdsa.PrivateKey)
	}
	return all
})

func open(file []byte) (*ecdsa.PrivateKey, error) {
	key := parsed()[string(file)]
	if key == nil {
		return nil, errors.New("no key of the pool, or not whole")
	}
	return key, nil
}

// keys is the TPM.
type keys struct {
	*world
	power *durabletest.Power
}

func (k keys) Make(_ context.Context, algorithm string) (file []byte, err error) {
	err = k.call(k.power, "make", func() error {
		k.made++
		file = pool()[k.made%len(pool())]
		return nil
	})
	return file, err
}

func (k keys) Open(_ context.Context, file []byte) (crypto.Signer, error) {
	key, err := open(file)
	if err != nil {
		return nil, err
	}
	for i := range k.gone {
		if bytes.Equal(file, pool()[i]) {
			return nil, fmt.Errorf("tpm: %w", rotate.ErrKeyGone)
		}
	}
	return key, nil
}

func (k keys) Destroy(context.Context, []byte) error {
	return k.call(k.power, "destroy", func() error { return nil })
}

// Vet implements rotate.Vetter.
func (w *world) Vet(_ context.Context, key device.Key) []device.Finding {
	found := []device.Finding{{Check: "roca", Key: key.ID, Status: device.Pass}}
	if w.badKey != "" {
		found = append(found, device.Finding{Check: "debian", Key: key.ID, Status: device.Fail, ReasonCode: w.badKey, Message: "bad"})
	}
	for _, c := range key.Chain {
		if w.now.Before(c.NotBefore) {
			found = append(found, device.Finding{Check: "expiry", Status: device.Undecided, ReasonCode: "KEYVET_CERTIFICATE_NOT_YET_VALID", Message: "not yet"})
		}
	}
	return found
}

// cloud makes sessions by what is in the store.
type cloud struct {
	*world
	store *identity.Store
	power *durabletest.Power
}

func (c cloud) Dial(ctx context.Context, id string) (rotate.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var s rotate.Session
	err := c.call(c.power, "dial", func() error {
		if c.offline {
			return errors.New("no route")
		}
		if id == rotate.Claim || id == rotate.Configured {
			s = session{c.world, c.power, id, "", new(bool)}
			return nil
		}
		certificateID, err := usable(c.world, c.store, id)
		s = session{c.world, c.power, id, certificateID, new(bool)}
		return err
	})
	return s, err
}

// usable returns why a credential of the store makes no session.
func usable(w *world, store *identity.Store, id string) (certificateID string, err error) {
	chain, err := store.Certificate(id)
	if err != nil {
		return "", err
	}
	file, err := store.Key(id)
	if id == identity.First && errors.Is(err, fs.ErrNotExist) {
		file, err = pool()[0], nil // at its handle
	}
	if err != nil {
		return "", err
	}
	key, err := keys{world: w}.Open(context.Background(), file)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return "", errors.New("no certificate")
	}
	sum := sha256.Sum256(block.Bytes)
	certificateID = hex.EncodeToString(sum[:])
	c := w.certificates[certificateID]
	if c.spki != spkiOf(key.Public()) {
		return "", fmt.Errorf("%s holds a certificate for another key, or an unknown one", id)
	}
	if !c.active {
		return "", fmt.Errorf("%s is not active", id)
	}
	return certificateID, nil
}

func spkiOf(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	return string(der)
}

type session struct {
	*world
	power         *durabletest.Power
	id            string
	certificateID string
	dead          *bool
}

func (s session) Close() {}

// on does what a session does as long as its certificate is active.
func (s session) on(ctx context.Context, name string, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if *s.dead {
		return errors.New("the connection is dead")
	}
	err := s.call(s.power, name, func() error {
		if s.certificateID != "" && !s.certificates[s.certificateID].active {
			return errors.New("connection lost")
		}
		return effect()
	})
	*s.dead = err != nil && !errors.Is(err, rotate.ErrRejected) && !errors.Is(err, rotate.ErrThrottled) && !errors.Is(err, rotate.ErrJobEnded)
	return err
}

var authority = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func (w *world) issue(public crypto.PublicKey, commonName string) rotate.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(w.certificates) + 1)), Subject: pkix.Name{CommonName: commonName},
		NotBefore: w.now.Add(-time.Minute), NotAfter: w.now.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if w.shape != nil {
		w.shape(template)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, authority())
	if err != nil {
		panic(err)
	}
	if w.encode != nil {
		der = w.encode(der)
	}
	sum := sha256.Sum256(der)
	id := hex.EncodeToString(sum[:])
	w.certificates[id] = certificate{spki: spkiOf(public)}
	return rotate.Certificate{ID: id, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Token: "token of " + id}
}

func (s session) Create(ctx context.Context, o rotate.Order, request []byte) (given rotate.Certificate, err error) {
	err = s.on(ctx, "create", func() error {
		if err := s.ordered(o); err != nil || o.From != s.id {
			return errors.Join(err, fmt.Errorf("asked for by %q, ordered from %q: %w", s.id, o.From, rotate.ErrRejected))
		}
		block, _ := pem.Decode(request)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err == nil {
			err = csr.CheckSignature()
		}
		if err != nil {
			return err
		}
		given = s.issue(csr.PublicKey, csr.Subject.CommonName)
		return nil
	})
	return given, err
}

func (s session) Activate(ctx context.Context, c rotate.Certificate) (name string, err error) {
	err = s.on(ctx, "activate", func() error {
		known, ok := s.certificates[c.ID]
		if !ok || c.Token != "token of "+c.ID || known.active { // a token is good for one time
			return fmt.Errorf("bad token: %w", rotate.ErrRejected)
		}
		known.active = true
		s.certificates[c.ID] = known
		name = thing
		return nil
	})
	return name, err
}

func (s session) Confirm(ctx context.Context, o rotate.Order, c rotate.Certificate) error {
	return s.on(ctx, "confirm", func() error {
		if err := s.ordered(o); err != nil {
			return err
		}
		if c.ID != s.certificateID {
			return fmt.Errorf("confirmed by another credential: %w", rotate.ErrRejected)
		}
		if s.confirms {
			s.retireOthers(c.ID)
		}
		return nil
	})
}

func (s session) MoveGate(ctx context.Context, o rotate.Order, id string) error {
	if s.id != id {
		return errors.New("the gate is moved on a report by another credential")
	}
	return s.on(ctx, "move", func() error {
		if err := s.ordered(o); err != nil {
			return err
		}
		s.guards = id
		return nil
	})
}

// ordered says why an order is not the one that the world gave.
func (s session) ordered(o rotate.Order) error {
	if _, known := s.jobs[o.Job.ID]; o.Job.ID != "" && !known || o.Job.ID == "" && len(s.jobs) > 0 {
		return fmt.Errorf("an order of the job %q: %w", o.Job.ID, rotate.ErrRejected)
	}
	if o.Trigger == "" || o.From == "" {
		return fmt.Errorf("an order of %q, from %q: %w", o.Trigger, o.From, rotate.ErrRejected)
	}
	return nil
}

// retireOthers deactivates every other certificate, as the fleet's rule does.
func (w *world) retireOthers(id string) {
	for other, c := range w.certificates {
		if other != id {
			c.active = false
			w.certificates[other] = c
		}
	}
}

const canceled device.JobState = "CANCELED"

func (s session) Tell(ctx context.Context, job device.Job, status device.JobState, details map[string]string) error {
	return s.on(ctx, "tell "+string(status), func() error {
		if status == device.JobInProgress && s.cancelAt != "" && details["step"] == s.cancelAt {
			s.jobs[job.ID] = canceled
		}
		switch s.jobs[job.ID] {
		case device.JobSucceeded, device.JobFailed, device.JobRejected, canceled:
			return fmt.Errorf("job %s: %w", job.ID, rotate.ErrJobEnded)
		case "":
			return fmt.Errorf("no job %s: %w", job.ID, rotate.ErrRejected)
		}
		s.jobs[job.ID], s.details[job.ID] = status, details
		switch status {
		case device.JobSucceeded:
			if s.certificateID != details["newCertificateId"] {
				return fmt.Errorf("success is told by another credential than the new one: %w", rotate.ErrRejected)
			}
			s.retireOthers(s.certificateID)
		case device.JobFailed:
			if c, ok := s.certificates[details["newCertificateId"]]; ok && details["newCertificateId"] != s.certificateID {
				c.active = false
				s.certificates[details["newCertificateId"]] = c
			}
		}
		return nil
	})
}

// gate is the gate before the key.
type gate struct {
	*world
	power *durabletest.Power
}

func (g gate) Back(id string) error {
	return g.call(g.power, "back", func() error { g.guards = id; return nil })
}

const (
	stateDir = "/state"
	grace    = 24 * time.Hour
)

// boot is a device that starts on what is on the disk.
func boot(w *world, disk durable.FS, power *durabletest.Power) *rotate.Engine {
	d := durable.Disk{FS: power.FS(disk)}
	store := &identity.Store{Dir: stateDir, Disk: d}
	return &rotate.Engine{
		Journal: rotate.File{Path: rotate.JournalPath(stateDir), Disk: d}, Store: store,
		Keys: keys{w, power}, Vetter: w, Cloud: cloud{w, &identity.Store{Dir: stateDir, Disk: durable.Disk{FS: disk}}, power}, Gate: gate{w, power},
		Name: func() rotate.Name { return rotate.Name{Common: thing} }, Grace: grace,
		EndOld: func(_ context.Context, id string) error {
			return w.call(power, "end", func() error { w.ended = id; return nil })
		},
		Clock: rotate.Clock{Now: func() time.Time { return w.now }, Pause: func(_ context.Context, d time.Duration) { w.now = w.now.Add(d) }},
	}
}

// atHandle is a first credential in place whose key is at a handle of the TPM.
const atHandle = ".handle"

// device0 is a device and its world before a rotation.
func device0(t *testing.T, first string) (*world, *durabletest.Disk) {
	t.Helper()
	w, disk := newWorld(), durabletest.New()
	store := &identity.Store{Dir: stateDir, Disk: durable.Disk{FS: disk}}
	must(t, store.Recover())
	if first == rotate.Claim || first == rotate.Configured {
		return w, disk
	}
	key, err := open(pool()[0])
	must(t, err)
	c := w.issue(key.Public(), thing)
	w.certificates[c.ID] = certificate{spkiOf(key.Public()), true}
	if first == identity.First || first == atHandle {
		must(t, store.Disk.Dir(stateDir+"/identity", 0o700))
		if first == identity.First {
			must(t, store.Disk.WriteFile(stateDir+"/identity/key.pem", pool()[0], 0o600))
		}
		first = identity.First
		must(t, store.Disk.WriteFile(stateDir+"/identity/certificate.pem", c.PEM, 0o600))
	} else {
		must(t, store.Put(first, c.PEM, pool()[0]))
		must(t, store.Use(first))
	}
	w.guards = first
	return w, disk
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func activeOnes(w *world) (ids []string) {
	for id, c := range w.certificates {
		if c.active {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
