package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func TestRefusal(t *testing.T) {
	kinds := []error{rotate.ErrJobEnded, rotate.ErrThrottled, rotate.ErrRejected}
	for _, tt := range []struct {
		err, want error
	}{
		{awsiot.ErrJobEnded, rotate.ErrJobEnded},
		{fmt.Errorf("x: %w", awsiot.ErrThrottled), rotate.ErrThrottled},
		{&awsiot.Rejected{Code: "InvalidCertificateOwnershipToken"}, rotate.ErrRejected},
		{fmt.Errorf("%w: %w", awsiot.ErrThrottled, &awsiot.Rejected{}), rotate.ErrThrottled},
		{fmt.Errorf("%w: %w", awsiot.ErrJobEnded, &awsiot.Rejected{}), rotate.ErrJobEnded},
		{mqtt.ErrLost, nil},
		{context.DeadlineExceeded, nil},
	} {
		got := refusal(tt.err)
		if !errors.Is(got, tt.err) {
			t.Errorf("%v: the cause is lost: %v", tt.err, got)
		}
		for _, kind := range kinds {
			if errors.Is(got, kind) != (kind == tt.want) {
				t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
			}
		}
	}
	if refusal(nil) != nil {
		t.Error("no error is one")
	}
}

func TestParameters(t *testing.T) {
	for _, tt := range []struct {
		name       string
		configured map[string]string
		thing      string
		want       map[string]string
	}{
		{"none", nil, "gw", map[string]string{"ThingName": "gw"}},
		{"none, and no name yet", nil, "", map[string]string{}},
		{"given", map[string]string{"Serial": "s-{thing}", "Line": "7"}, "gw", map[string]string{"Serial": "s-gw", "Line": "7"}},
	} {
		if got := parameters(tt.configured, tt.thing); !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// fakeAWS answers for a session.
type fakeAWS struct {
	*fakeJobs
	asked []string
	thing string // that the template makes of the device
	err   error
	job   *awsiot.Job // instead of fakeJobs'
}

func (f *fakeAWS) CreateCertificate(context.Context, []byte) (awsiot.Certificate, error) {
	f.asked = append(f.asked, "create")
	return awsiot.Certificate{ID: "c", PEM: []byte("pem"), OwnershipToken: "token"}, f.err
}

func (f *fakeAWS) RegisterThing(_ context.Context, template, token string, p map[string]string) (string, map[string]string, error) {
	f.asked = append(f.asked, fmt.Sprint("register ", template, " ", token, " ", p["ThingName"]))
	return f.thing, nil, f.err
}

func (f *fakeAWS) RequestCertificate(_ context.Context, job string, _ []byte) (awsiot.Certificate, error) {
	f.asked = append(f.asked, "request "+job)
	return awsiot.Certificate{ID: "c", PEM: []byte("pem")}, f.err
}

func (f *fakeAWS) CommitCertificate(_ context.Context, job, id string) error {
	f.asked = append(f.asked, "commit "+job+" "+id)
	return f.err
}

func (f *fakeAWS) DescribeJob(context.Context, string) (*awsiot.Job, error) { return f.job, f.err }

// Close makes it a connection, too.
func (f *fakeAWS) Close() error {
	f.asked = append(f.asked, "close")
	return nil
}

// enrolmentOn is a session of the thing gw, or by claim.
func enrolmentOn(t *testing.T, f *fakeAWS, byClaim bool, issuer string) *enrolment {
	t.Helper()
	c := config.Default()
	c.StateDir, c.Thing.Name, c.Rotate.Issuer = t.TempDir(), "gw", issuer
	c.Rotate.Template, c.Provision.Template = "rotation", "first"
	credentials, err := credential.Open(*c)
	if err != nil {
		t.Fatal(err)
	}
	credentials.Name(device.Inventory{})
	e := &enrolment{cloud: &Cloud{Config: *c, Credentials: credentials}, conn: f, provisioner: f}
	if !byClaim {
		e.thing = f
	}
	return e
}

func TestIssuer(t *testing.T) {
	order := rotate.Order{Job: device.Job{ID: "j"}, From: rotate.Configured}
	rejected := &awsiot.Rejected{Code: "x"}
	for _, tt := range []struct {
		name    string
		byClaim bool
		issuer  string
		want    string
		token   string
	}{
		{"by claim", true, config.IssuerFleet, "[create]", "token"},
		{"by claim, topics", true, "topics", "[create]", "token"},
		{"fleet", false, config.IssuerFleet, "[create]", "token"},
		{"topics", false, "topics", "[request j]", ""},
	} {
		f := new(fakeAWS)
		e := enrolmentOn(t, f, tt.byClaim, tt.issuer)
		c, err := e.Create(t.Context(), order, nil)
		if err != nil || c.ID != "c" || string(c.PEM) != "pem" || c.Token != tt.token || fmt.Sprint(f.asked) != tt.want {
			t.Errorf("%s: %+v, %v, asked %v", tt.name, c, err, f.asked)
		}
		f.err = rejected
		if _, err := e.Create(t.Context(), order, nil); !errors.Is(err, rotate.ErrRejected) {
			t.Errorf("%s: refused: %v", tt.name, err)
		}
	}
	for _, tt := range []struct {
		name   string
		from   string
		issuer string
		err    error
		want   string
		asked  string
	}{
		{"the first", rotate.Claim, "topics", nil, "", "[]"},
		{"fleet", rotate.Configured, config.IssuerFleet, nil, "", "[]"},
		{"topics", rotate.Configured, "topics", nil, "", "[commit j c]"},
		{"topics, refused", rotate.Configured, "topics", rejected, "rejected", "[commit j c]"},
	} {
		f := &fakeAWS{err: tt.err}
		e := enrolmentOn(t, f, false, tt.issuer)
		err := e.Confirm(t.Context(), rotate.Order{Job: order.Job, From: tt.from}, rotate.Certificate{ID: "c"})
		if errors.Is(err, rotate.ErrRejected) != (tt.want != "") || (err == nil) != (tt.want == "") || fmt.Sprint(f.asked) != tt.asked {
			t.Errorf("%s: %v, asked %v", tt.name, err, f.asked)
		}
	}
	f := new(fakeAWS)
	enrolmentOn(t, f, true, config.IssuerFleet).Close()
	if fmt.Sprint(f.asked) != "[close]" {
		t.Errorf("%v", f.asked)
	}
}

// A template that makes the device another thing is refused.
func TestActivate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		byClaim bool
		token   string
		thing   string
		err     error
		want    string // thing
		refused bool
		asked   string
	}{
		{"usable as it is", false, "", "", nil, "", false, "[]"},
		{"a rotation", false, "t", "gw", nil, "gw", false, "[register rotation t gw]"},
		{"by claim", true, "t", "gw", nil, "gw", false, "[register first t gw]"},
		{"another thing", false, "t", "gw-2", nil, "gw-2", true, "[register rotation t gw]"},
		{"rejected", false, "t", "", &awsiot.Rejected{}, "", true, "[register rotation t gw]"},
		{"lost", false, "t", "", mqtt.ErrLost, "", false, "[register rotation t gw]"},
	} {
		f := &fakeAWS{thing: tt.thing, err: tt.err}
		thing, err := enrolmentOn(t, f, tt.byClaim, config.IssuerFleet).Activate(t.Context(), rotate.Certificate{Token: tt.token})
		if thing != tt.want || errors.Is(err, rotate.ErrRejected) != tt.refused || (err == nil) == (tt.refused || tt.err != nil) || fmt.Sprint(f.asked) != tt.asked {
			t.Errorf("%s: %q, %v, asked %v", tt.name, thing, err, f.asked)
		}
	}
}

func TestTell(t *testing.T) {
	job := func(status device.JobState, execution int64) *awsiot.Job {
		return &awsiot.Job{ID: "j", Status: status, Execution: execution}
	}
	for _, tt := range []struct {
		name string
		job  *awsiot.Job
		err  error
		want error
		told string
	}{
		{"in progress", job(device.JobInProgress, 1), nil, nil, "[j SUCCEEDED ]"},
		{"told before", job(device.JobSucceeded, 1), nil, nil, "[]"},
		{"canceled", job(device.JobCanceled, 1), nil, rotate.ErrJobEnded, "[]"},
		{"another execution", job(device.JobInProgress, 2), nil, rotate.ErrJobEnded, "[]"},
		{"removed", nil, nil, rotate.ErrJobEnded, "[]"},
		{"throttled", nil, awsiot.ErrThrottled, rotate.ErrThrottled, "[]"},
	} {
		f := &fakeAWS{fakeJobs: new(fakeJobs), job: tt.job, err: tt.err}
		err := enrolmentOn(t, f, false, config.IssuerFleet).Tell(t.Context(), device.Job{ID: "j", Execution: 1}, device.JobSucceeded, nil)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil || fmt.Sprint(f.updated) != tt.told {
			t.Errorf("%s: %v, told %v", tt.name, err, f.updated)
		}
	}
	f := &fakeAWS{fakeJobs: new(fakeJobs), job: job(device.JobInProgress, 1)}
	if err := enrolmentOn(t, f, true, config.IssuerFleet).Tell(t.Context(), device.Job{ID: "j"}, device.JobSucceeded, nil); err != nil || f.updated != nil {
		t.Errorf("a claim has no jobs: %v, told %v", err, f.updated)
	}
}

// moves moves the gate to an end.
type moves gate.Outcome

func (m moves) Move(context.Context, agent.Cloud, device.Trigger, string) gate.Outcome {
	return gate.Outcome(m)
}

func TestMoveGate(t *testing.T) {
	lost := errors.New("lost")
	for _, tt := range []struct {
		name string
		o    gate.Outcome
		want error
	}{
		{"moved", gate.Outcome{Moved: true, Acknowledged: true}, nil},
		{"refused", gate.Outcome{Acknowledged: true, Refusal: "the verdict is FAIL"}, rotate.ErrRejected},
		{"not delivered", gate.Outcome{Undelivered: lost}, lost},
	} {
		e := &enrolment{cloud: &Cloud{Mover: moves(tt.o)}}
		if err := e.MoveGate(t.Context(), rotate.Order{}, "r1"); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
