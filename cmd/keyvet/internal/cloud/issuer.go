package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// enrolment is a session of a rotation's.
type enrolment struct {
	cloud       *Cloud
	conn        io.Closer
	provisioner provisioner
	thing       thingClient // nil by claim, which is no thing
	session     *Session    // the same session, as the agent has one; nil by claim
}

var _ rotate.Session = (*enrolment)(nil)

// provisioner is [awsiot.Provisioner].
type provisioner interface {
	CreateCertificate(ctx context.Context, csrPEM []byte) (awsiot.Certificate, error)
	RegisterThing(ctx context.Context, template, token string, parameters map[string]string) (thing string, configuration map[string]string, err error)
}

// thingClient is [awsiot.Client], of an issuer behind topics and of jobs.
type thingClient interface {
	jobClient
	RequestCertificate(ctx context.Context, jobID string, csrPEM []byte) (awsiot.Certificate, error)
	CommitCertificate(ctx context.Context, jobID, certificateID string) error
}

// Close implements [rotate.Session].
func (e *enrolment) Close() { e.conn.Close() } // an error of it is of no account

// Create asks for a certificate: a claim by fleet provisioning, a device as
// rotate.issuer says.
func (e *enrolment) Create(ctx context.Context, o rotate.Order, request []byte) (rotate.Certificate, error) {
	var c awsiot.Certificate
	var err error
	if e.thing == nil || e.cloud.Config.Rotate.Issuer == config.IssuerFleet {
		c, err = e.provisioner.CreateCertificate(ctx, request)
	} else {
		c, err = e.thing.RequestCertificate(ctx, o.Job.ID, request)
	}
	return rotate.Certificate{ID: c.ID, PEM: c.PEM, Token: c.OwnershipToken}, refusal(err)
}

// Activate implements [rotate.Issuer].
func (e *enrolment) Activate(ctx context.Context, c rotate.Certificate) (string, error) {
	if c.Token == "" {
		return "", nil // it is usable as it is
	}
	template := e.cloud.Config.RotateTemplate()
	if e.thing == nil {
		template = e.cloud.Config.Provision.Template
	}
	own, _ := e.cloud.Credentials.Thing() // "" before the first provisioning
	named := e.thing == nil && e.cloud.Config.Thing.Name == config.NameOfTemplate
	if named {
		own = "" // perhaps that of an earlier first time
	}
	thing, _, err := e.provisioner.RegisterThing(ctx, template, c.Token, parameters(e.cloud.Config.Provision.Parameters, own))
	if err == nil && own != "" && thing != own {
		if e.cloud.Misnamed != nil {
			e.cloud.Misnamed(template, thing)
		}
		return thing, fmt.Errorf("%w: the template %s made this device the thing %q, but thing.name says %q", rotate.ErrRejected, template, thing, own)
	}
	if err == nil && named {
		err = e.cloud.Credentials.Keep(thing)
	}
	return thing, refusal(err)
}

// parameters are those of a provisioning template: in their values {thing}
// stands for the thing's name. If there are none, ThingName is it.
func parameters(configured map[string]string, thing string) map[string]string {
	all := make(map[string]string)
	for name, value := range configured {
		all[name] = strings.ReplaceAll(value, "{thing}", thing)
	}
	if len(all) == 0 && thing != "" {
		all["ThingName"] = thing
	}
	return all
}

// Confirm implements [rotate.Issuer].
func (e *enrolment) Confirm(ctx context.Context, o rotate.Order, c rotate.Certificate) error {
	if o.From == rotate.Claim || e.cloud.Config.Rotate.Issuer == config.IssuerFleet {
		return nil
	}
	return refusal(e.thing.CommitCertificate(ctx, o.Job.ID, c.ID))
}

// Tell implements [rotate.Jobs].
func (e *enrolment) Tell(ctx context.Context, job device.Job, status device.JobState, details map[string]string) error {
	if e.thing == nil {
		return nil // a claim has no jobs
	}
	if status.Ended() {
		defer delete(e.cloud.ours, job.ID)
	}
	described, err := e.thing.DescribeJob(ctx, job.ID)
	switch {
	case err != nil:
		return refusal(err)
	case described == nil, described.Execution != job.Execution, described.Status.Ended() && described.Status != status:
		return fmt.Errorf("%w: %s", rotate.ErrJobEnded, job.ID)
	case described.Status.Ended():
		return nil // told before
	}
	return refusal(answerJob(ctx, e.thing, described, status, details))
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
func (e *enrolment) MoveGate(ctx context.Context, o rotate.Order, id string) error {
	switch g := e.cloud.Mover.Move(ctx, e.session, o.Trigger, id); {
	case g.Moved:
		return nil
	case g.Acknowledged:
		return fmt.Errorf("%w: %s", rotate.ErrRejected, g.Refusal)
	default:
		return g.Undelivered
	}
}
