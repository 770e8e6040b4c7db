package awsiot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// lines are what a client logs.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// features does what a device does with its policies, until something fails.
func features(t *testing.T, rotates string, device1, claim [][]byte) error {
	t.Helper()
	cloud, err := localiot.Start(localiot.Options{Dir: t.TempDir(), DevicePolicies: device1, ClaimPolicies: claim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	for _, name := range []string{"keyvet-first", "keyvet-rotate"} {
		if err := cloud.AddTemplate(name, readDoc(t, "provisioning-template.json")); err != nil {
			t.Fatal(err)
		}
	}
	cfg, cert := credentialOn(t, cloud, claim != nil)
	cfg.Timeout = 5 * time.Second
	var said lines
	var c *awsiot.Client
	probe := func(ctx context.Context, s *mqtt.Session) (err error) {
		if c, err = awsiot.New(s, thing, "keyvet/{thing}/report"); err == nil && claim == nil {
			err = c.Probe(ctx)
		}
		return err
	}
	ctx := t.Context()
	dialer, err := awsiot.NewDialer(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dialer.Dial(ctx, probe)
	if err != nil {
		return err
	}
	t.Cleanup(func() { s.Close() })
	c.Log = slog.New(slog.NewTextHandler(&said, nil))
	provision := func(template string) error {
		made, err := c.CreateCertificate(ctx, []byte(requestFor(t, false, thing)))
		if err == nil {
			_, _, err = c.RegisterThing(ctx, template, made.OwnershipToken, map[string]string{"ThingName": thing})
		}
		return err
	}
	if claim != nil {
		return provision("keyvet-first")
	}
	r := report(cert, device.Finding{Check: "size", Key: "device", Status: device.Warn, ReasonCode: "KEYVET_X"})
	checks := make(chan string, 1)
	jobs := make(chan bool, 99)
	steps := []func() error{
		func() error { return c.Publish(ctx, r) },
		func() error { return c.PublishFindings(ctx, r) },
		func() error { return c.ReportMetrics(ctx, awsiot.Metrics{}) },
		func() error { return c.OnJobs(ctx, func(*awsiot.Job) { jobs <- true }) },
		func() error {
			err := cloud.CreateJob(localiot.Job{ID: "j1", Things: []string{thing}, Document: json.RawMessage(`{"operation":"keyvet.check","version":"1.0"}`)})
			if err != nil {
				t.Fatal(err)
			}
			job, err := c.DescribeJob(ctx, "j1")
			if err == nil {
				err = c.UpdateJob(ctx, job, device.JobSucceeded, map[string]string{"step": "vet"})
			}
			return err
		},
		func() error { return c.OnDesiredCheck(ctx, func(token string) { checks <- token }) },
		func() error { return c.AcknowledgeCheck(ctx, "x") },
		func() error {
			if err := c.OnChallenge(ctx, nil); err != nil {
				return err
			}
			cloud.Say("keyvet/"+thing+"/challenge", []byte("{}"))
			waiting, cancel := context.WithTimeout(ctx, cfg.Timeout)
			defer cancel()
			if _, err := cloud.WaitMessage(waiting, "keyvet/"+thing+"/challenge/answer"); err != nil {
				return errors.New("the challenge is not answered")
			}
			return nil
		},
		func() error {
			if rotates == "topics" {
				made, err := c.RequestCertificate(ctx, "j", []byte(requestFor(t, false, thing)))
				if err != nil {
					return err
				}
				err = c.CommitCertificate(ctx, "j", made.ID)
				var rejected *awsiot.Rejected
				if errors.As(err, &rejected) { // it is not under the new certificate
					err = nil
				}
				return err
			}
			return provision("keyvet-rotate")
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("%w %s", err, said.String())
		}
	}
	return nil
}

// Each policy is enough as it stands, and the error for one line less names that line.
func TestOnlyPolicies(t *testing.T) {
	read := func(name string) policy { return parsePolicy(t, readDoc(t, name+"-policy.json")) }
	written := func(policies ...policy) (all [][]byte) {
		for _, p := range policies {
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		return all
	}
	try := func(t *testing.T, policies []policy, rotates string) error {
		if rotates == "claim" {
			return features(t, rotates, nil, written(policies...))
		}
		return features(t, rotates, written(policies...), nil)
	}
	for rotates, policies := range map[string][]policy{
		"provisioning": {read("device"), read("challenge"), read("rotate-by-provisioning")},
		"topics":       {read("device"), read("challenge"), read("rotate-by-topics")},
		"claim":        {read("claim")},
	} {
		t.Run(rotates, func(t *testing.T) {
			t.Parallel()
			if err := try(t, policies, rotates); err != nil {
				t.Fatal(err)
			}
		})
		for i, p := range policies {
			if rotates == "topics" && i < 2 {
				continue // as by provisioning
			}
			for j, s := range p.Statement {
				for k, resource := range s.Resource {
					if s.Action == "iot:Receive" && strings.HasSuffix(resource, "/challenge") {
						continue // what does not come is not missed
					}
					name := strings.TrimPrefix(s.Action, "iot:") + " " + strings.SplitN(resource, ":", 6)[5]
					t.Run(rotates+" without "+name, func(t *testing.T) {
						t.Parallel()
						less := slices.Clone(policies)
						less[i].Statement = slices.Clone(p.Statement)
						left := slices.Delete(slices.Clone(s.Resource), k, k+1)
						if less[i].Statement[j].Resource = left; len(left) == 0 {
							less[i].Statement = slices.Delete(less[i].Statement, j, j+1)
						}
						_, topic, _ := strings.Cut(strings.ReplaceAll(name, "${iot:Connection.Thing.ThingName}", thing), "/")
						topic = strings.TrimSuffix(topic, "*")
						if err := try(t, less, rotates); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(topic, "/")) {
							t.Errorf("the error is %v", err)
						}
					})
				}
			}
		}
	}
}
