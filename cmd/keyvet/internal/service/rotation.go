package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

// rotator rotates this device's credential, and provisions a device that has
// none.
type rotator struct {
	config      config.Config
	credentials *credential.Store
	gate        *gate.Gate
	engine      *rotate.Engine
	jobs        jobs
	log         *slog.Logger

	provisioning trouble   // of the claim's
	resumed      time.Time // when a rotation that waits was last resumed
	scheduled    time.Time // before then no rotation by schedule
}

// jobs are those of the cloud.
type jobs interface {
	// PutAside lets a job wait.
	PutAside(job string, pause time.Duration)
}

// engine returns the engine of this device's rotations. Its cloud is the
// caller's to set.
func newEngine(c config.Config, credentials *credential.Store, vetter rotate.Vetter, log *slog.Logger) *rotate.Engine {
	return &rotate.Engine{
		Journal: journalOf(c), Store: credentials.Files, Keys: keys{c, log}, Vetter: vetter,
		Name:  func() rotate.Name { return nameOf(c, credentials) },
		Grace: c.Rotate.Grace.Duration, Jobs: rotate.JobLimits{Keys: c.JobKeys(), MinInterval: c.Rotate.MinInterval.Duration}, Log: log,
		EndOld: func(_ context.Context, id string) error {
			if id != rotate.Claim || !c.Provision.DeleteClaim {
				return nil // the operator's
			}
			return credential.RemoveClaim(c)
		},
	}
}

// nameOf is the thing's name, which a self-check finds out. A thing that is named
// by its certificate would be another one by a certificate for another name.
func nameOf(c config.Config, credentials *credential.Store) rotate.Name {
	thing, _ := credentials.Thing()
	return rotate.Name{Common: thing, Strict: thing != "" && c.Thing.Name == config.NameOfCertificate}
}

func journalOf(c config.Config) rotate.File {
	return rotate.File{Path: rotate.JournalPath(c.StateDir)}
}

// Prepare resumes a rotation that was interrupted, and provisions a device that
// has a claim alone.
func (r *rotator) Prepare(ctx context.Context) (changed bool, err error) {
	own, ownErr := r.credentials.Current()
	before, state := *own, r.gate.State()
	defer func() {
		r.credentials.Reload()
		own, _ := r.credentials.Current()
		changed = !own.Same(&before) || state == gate.Open && r.gate.State() != gate.Open
	}()
	_, nameErr := r.credentials.Thing()
	if nameErr != nil && r.config.Thing.Name == config.NameOfEK {
		return false, agent.NotReady{Err: nameErr} // a first credential on its way would get none
	}
	_, err = r.engine.Resume(ctx)
	switch {
	case errors.Is(err, rotate.ErrNothing):
	case errors.Is(err, rotate.ErrWaits):
		r.log.Info("a rotation waits", "reason", err)
		return false, nil
	case err != nil: // how it ended; and a journal that cannot be read stops no report
		r.log.Error("rotation", "error", err)
	}
	_, ownErr = r.credentials.Current()
	_, made := r.credentials.Files.Current()
	if r.config.Provision.ClaimCertificate == "" || !errors.Is(made, identity.ErrNone) || !errors.Is(ownErr, fs.ErrNotExist) {
		return false, nil
	}
	if nameErr != nil && !errors.Is(nameErr, credential.ErrNamedLater) {
		return false, agent.NotReady{Err: nameErr}
	}
	return false, r.provision(ctx)
}

// Rotate carries out a rotation that the cloud, the operator or the certificate's
// end asks for.
func (r *rotator) Rotate(ctx context.Context, asked agent.Rotation) error {
	if asked.Job.ID != "" {
		r.config.Attempts().Order()
	}
	request := rotate.Request{Trigger: asked.Trigger, Job: asked.Job, Key: cmp.Or(asked.Key, r.config.Rotate.Key)}
	switch current, err := r.credentials.Files.Current(); {
	case errors.Is(err, identity.ErrNone):
		request.From = rotate.Configured
	case err == nil && current == identity.First && r.config.Identity.Certificate != "":
		request.From = rotate.Configured
		return r.engine.Refuse(ctx, request, fmt.Errorf("there is a credential in %s/identity besides the one of identity.certificate: remove the one that is not in use", r.config.StateDir))
	}
	if r.config.Rotate.Issuer == config.IssuerFleet {
		if err := r.misnamed(r.config.RotateTemplate()); err != nil {
			return r.engine.Refuse(ctx, request, err)
		}
	}
	_, err := r.engine.Run(ctx, request)
	if s, loadErr := r.engine.Journal.Load(); err != nil && loadErr == nil && s.Rotation != nil {
		r.jobs.PutAside(asked.Job.ID, resumeEvery) // the rotation under way is resumed by itself
	}
	r.credentials.Reload()
	return err
}

// Back implements [rotate.Gate].
func (r *rotator) Back(string) error {
	r.credentials.Reload()
	return r.gate.Shut()
}
