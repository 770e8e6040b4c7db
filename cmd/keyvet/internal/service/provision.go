package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/rotate"
)

// provision makes the first credential, by the claim.
func (r *rotator) provision(ctx context.Context) error {
	if err := r.misnamed(r.config.Provision.Template); err != nil {
		return agent.NotReady{Err: fmt.Errorf("provisioning by claim: %w", err)}
	}
	if time.Now().Before(r.provisioning.again) {
		return agent.NotReady{Err: r.provisioning}
	}
	if r.provisioning.times > 0 { // its steps are known
		log := r.engine.Log
		defer func() { r.engine.Log = log }()
		r.engine.Log = slog.New(warnings{r.log.Handler()})
	}
	_, err := r.engine.Run(ctx, rotate.Request{Trigger: device.TriggerFirstBoot, Key: r.config.Rotate.Key, From: rotate.Claim})
	if ended := new(rotate.Error); errors.As(err, &ended) { // each time it takes a key and perhaps a certificate
		if r.provisioning.failed(time.Now(), err, slices.Contains(refusals, ended.Reason)); !r.provisioning.again.IsZero() {
			return agent.NotReady{Err: r.provisioning}
		}
	}
	if err != nil {
		return agent.NotReady{Err: fmt.Errorf("provisioning by claim: %w", err)}
	}
	return nil
}

// warnings is a log without what is less.
type warnings struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// refusals are the reasons that the next try would most likely have again.
var refusals = []device.ReasonCode{
	rotate.ReasonCreateRejected, rotate.ReasonNotActivated, rotate.ReasonCertificateInvalid, rotate.ReasonCertificateKey,
	rotate.ReasonCertificateSubject, rotate.ReasonCertificateUsage,
}

// trouble is what failed over and over, and is to be tried again ever more seldom.
type trouble struct {
	times int
	err   error
	again time.Time // not before
}

// Error says why, and when it is tried again.
func (t trouble) Error() string {
	return fmt.Sprintf("provisioning by claim failed and is tried again at %s: %v", t.again.Format(time.RFC3339), t.err)
}

func (t trouble) Unwrap() error { return t.err }

// Between two tries. A refusal costs two requests: six an hour at most.
const (
	refusedFirst = 5 * time.Minute
	failedFirst  = time.Minute
	failedMost   = time.Hour
)

// failed is one more failure. The first two that are no refusal are tried again
// at once.
func (t *trouble) failed(now time.Time, err error, refused bool) {
	t.times++
	t.err = err
	var pause time.Duration
	switch {
	case refused:
		pause = refusedFirst
		for range min(t.times-1, 10) {
			pause = min(3*pause, failedMost)
		}
	case t.times > 2:
		pause = min(failedFirst<<min(t.times-3, 10), failedMost)
	default:
		return
	}
	t.again = now.Add(pause + rand.N(pause/4))
}

// misnaming is a template that named the thing otherwise than the configuration,
// for a configuration: each certificate that it makes is another thing's.
type misnaming struct {
	Thing string `json:"thing"` // what the template said
	For   string `json:"for"`   // the digest of what decides it
}

const maxMisnamingBytes = 1 << 10

func misnamingPath(c config.Config) string { return filepath.Join(c.StateDir, "misnamed.json") }

// decides is the digest of what a template makes a name of, and what it should be.
func (r *rotator) decides(template string) string {
	thing, _ := r.credentials.Thing()
	b, err := json.Marshal([]any{thing, r.config.Thing.Name, template, r.config.Provision.Parameters}) // maps are sorted
	if err != nil {
		panic(err) // of strings
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// misname keeps that a template named the thing otherwise.
func (r *rotator) misname(template, thing string) {
	b, err := json.Marshal(misnaming{thing, r.decides(template)})
	if err == nil {
		err = durable.WriteFile(misnamingPath(r.config), append(b, '\n'), 0o600)
	}
	if err != nil {
		r.log.Error("that the template names another thing cannot be kept", "error", err)
	}
}

// misnamed is the error of a template that is known to name another thing, so that
// it is not asked for another certificate.
func (r *rotator) misnamed(template string) error {
	b, err := durable.Disk{}.ReadFile(misnamingPath(r.config), maxMisnamingBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var known misnaming
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		r.log.Warn("what is known of the template cannot be read", "error", err)
		return nil
	}
	if known.For != r.decides(template) {
		return nil
	}
	name, _ := r.credentials.Thing()
	return fmt.Errorf("the template %s makes this device the thing %q, but thing.name says %q: no other certificate is asked for until thing.name, the template's name or provision.parameters changes (thing.name = \"template\" takes the template's name)", template, known.Thing, name)
}
