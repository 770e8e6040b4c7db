// Package cloud is AWS IoT as the device reaches it: sessions for the agent and
// for rotations, and what woke the device in them.
package cloud

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Cloud makes sessions, and knows what has to outlive one.
type Cloud struct {
	Config      config.Config
	Credentials *credential.Store
	Answerer    Answerer
	Gate        Gate
	Mover       Mover
	Log         *slog.Logger
	Attempts    int  // at every endpoint, of one connection
	Persistent  bool // AWS IoT keeps the agent's session while the device is away
	// Changed receives when a pause between two connections may end soon; may be nil.
	Changed <-chan struct{}
	// Network connects to an endpoint; nil: by TCP.
	Network func(ctx context.Context, network, address string) (net.Conn, error)
	// Answered is given AWS IoT's own time of the answer to a report; may be nil.
	Answered func(time.Time)
	// Misnamed is told of a template that names the thing otherwise than the
	// configuration; may be nil.
	Misnamed func(template, thing string)

	dialing dialing
	pace    awsiot.Pace
	aside   map[string]time.Time // ids of jobs that are not to be looked at again before
	foreign map[string]bool      // ids of pending jobs that are others'
	ours    map[string]bool      // ids of keyvet's that were seen and not ended
	ended   device.Job           // the last of keyvet's that is over
	desired begun
	sent    string // id of the last report that AWS IoT has taken
	policy  permissions
}

// Answerer has the TPM answer a challenge.
type Answerer interface {
	Answer(c *evidence.Challenge, nonce []byte) (vet.Answer, error)
}

// Gate says how the gate stands.
type Gate interface{ State() gate.State }

// Mover vets the device with another credential and has the gate move to it.
type Mover interface {
	Move(ctx context.Context, c agent.Cloud, trigger device.Trigger, credential string) gate.Outcome
}

// Session is a proven session, as the agent wants one.
type Session struct {
	*awsiot.Client
	cloud *Cloud
	conn  *mqtt.Session
	alarm *alarm

	unheard    []source // what to listen to that does not yet
	checks     checks   // that the shadow desires
	jobs       *queue
	challenges chan challenge // capacity 1
}

var _ agent.Cloud = (*Session)(nil)

func (c *Cloud) session(client *awsiot.Client, conn *mqtt.Session) *Session {
	client.Pace, client.Log, client.Answered = &c.pace, c.Log, c.Answered
	a := newAlarm()
	s := &Session{
		Client: client, cloud: c, conn: conn, alarm: a, challenges: make(chan challenge, 1),
	}
	s.jobs = &queue{cloud: c, client: s, alarm: a}
	s.unheard = []source{
		{notices, func(ctx context.Context) error { return s.OnJobs(ctx, s.jobs.offer) }},
		{desired, func(ctx context.Context) error { return s.OnDesiredCheck(ctx, s.desire) }},
	}
	if c.Config.TPM.Address != "" {
		s.unheard = append(s.unheard, source{challenges, s.onChallenges})
	}
	return s
}

// Wanted implements [agent.Cloud].
func (s *Session) Wanted() <-chan struct{} { return s.alarm.rung }

// Done implements [agent.Cloud].
func (s *Session) Done() <-chan struct{} { return s.conn.Done() }

// Lost implements [agent.Cloud].
func (s *Session) Lost() error { return s.conn.Err() }

// Close implements [agent.Cloud].
func (s *Session) Close() { s.conn.Close() }

// Publish sends the report, and its summary to the shadow. Where the policy does not
// allow that, the report goes out once, and nothing acknowledges it.
func (s *Session) Publish(ctx context.Context, r *device.Report) error {
	s.SetGate(s.cloud.Gate.State().String())
	if s.cloud.sent != r.ID || s.cloud.policy.of(shadow).wait(time.Now()) == 0 {
		if err := s.Client.PublishEarlier(ctx, r); err != nil {
			return err
		}
		s.cloud.sent = r.ID
	}
	return s.cloud.policy.try(ctx, s.cloud.Log, shadow, func(ctx context.Context) error { return s.Summarize(ctx, r) })
}

// PublishEarlier sends a report that is not the newest, with its findings.
func (s *Session) PublishEarlier(ctx context.Context, r *device.Report) error {
	if err := s.Client.PublishEarlier(ctx, r); err != nil {
		return err
	}
	if err := s.PublishFindings(ctx, r); err != nil { // a later report has those that still hold
		s.cloud.Log.Warn("the findings of an earlier report went out with that alone", "error", err)
	}
	return nil
}

// ReportGate implements [agent.Cloud].
func (s *Session) ReportGate(ctx context.Context, g gate.State) error {
	return s.cloud.policy.try(ctx, s.cloud.Log, shadow, func(ctx context.Context) error { return s.Client.ReportGate(ctx, g.String()) })
}

// ReportJob is [awsiot.Client.ReportJob].
func (s *Session) ReportJob(ctx context.Context, id string, status device.JobState) error {
	return s.cloud.policy.try(ctx, s.cloud.Log, shadow, func(ctx context.Context) error { return s.Client.ReportJob(ctx, id, status) })
}

// AcknowledgeCheck is [awsiot.Client.AcknowledgeCheck].
func (s *Session) AcknowledgeCheck(ctx context.Context, token string) error {
	return s.cloud.policy.try(ctx, s.cloud.Log, shadow, func(ctx context.Context) error { return s.Client.AcknowledgeCheck(ctx, token) })
}

// ReportMetrics implements [agent.Cloud].
func (s *Session) ReportMetrics(ctx context.Context, r *device.Report) error {
	if !s.cloud.Config.Defender.Enabled {
		return nil
	}
	err := s.Client.ReportMetrics(ctx, awsiot.MetricsOf(r, s.cloud.Gate.State() == gate.Open))
	if errors.Is(err, awsiot.ErrTooSoon) {
		return nil
	}
	return err
}
