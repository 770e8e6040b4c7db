package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// cloud is a proven session, as the agent wants one.
type cloud struct {
	*awsiot.Client
	session *mqtt.Session
	run     *deviceRun
	wanted  chan struct{} // capacity 1

	unheard  []func(context.Context) error // what to listen to that does not yet
	gateOpen bool                          // as it was reported last
	foreign  map[string]bool               // ids of pending jobs that are others'

	timer *time.Timer // wakes the loop
	wakes time.Time   // when

	challenges chan challenge // capacity 1
	challenged bool           // they are heard, or never will be in this session

	mu     sync.Mutex
	tokens []string // of desired checks that are not carried out yet
}

// maxTokens bounds the desired checks that wait; one check answers all.
const maxTokens = 8

func newCloud(run *deviceRun, client *awsiot.Client, session *mqtt.Session) *cloud {
	client.Pace, client.Log = &run.pace, run.log
	c := &cloud{
		Client: client, session: session, run: run, wanted: make(chan struct{}, 1), challenges: make(chan challenge, 1),
		foreign: make(map[string]bool),
	}
	c.unheard = []func(context.Context) error{
		func(ctx context.Context) error { return c.OnJobs(ctx, c.wake) },
		func(ctx context.Context) error { return c.OnDesiredCheck(ctx, c.desire) },
	}
	return c
}

func (c *cloud) Wanted() <-chan struct{} { return c.wanted }
func (c *cloud) Done() <-chan struct{}   { return c.session.Done() }
func (c *cloud) Close()                  { c.session.Close() }

// Publish sends the report, and its findings for the account's topic rule. The
// report alone is what counts.
func (c *cloud) Publish(ctx context.Context, r *device.Report) error {
	c.SetGate(c.run.agent.Gate.State().String())
	if err := c.Client.Publish(ctx, r); err != nil {
		return err
	}
	if err := c.PublishFindings(ctx, r); err != nil {
		c.run.log.Warn("the findings went out with the report alone", "error", err)
	}
	return nil
}

// PublishEarlier is Publish for a report that is not the newest.
func (c *cloud) PublishEarlier(ctx context.Context, r *device.Report) error {
	if err := c.Client.PublishEarlier(ctx, r); err != nil {
		return err
	}
	if err := c.PublishFindings(ctx, r); err != nil {
		c.run.log.Warn("the findings went out with the report alone", "error", err)
	}
	return nil
}

func (c *cloud) ReportGate(ctx context.Context, s gate.State) error {
	c.gateOpen = s == gate.Open
	return c.Client.ReportGate(ctx, s.String())
}

func (c *cloud) ReportMetrics(ctx context.Context, r *device.Report) error {
	if !c.run.cfg.Defender.Enabled {
		return nil
	}
	err := c.Client.ReportMetrics(ctx, awsiot.MetricsOf(r, c.gateOpen))
	if errors.Is(err, awsiot.ErrTooSoon) {
		return nil
	}
	return err
}

// Next is the next thing that the cloud asks for: a challenge first, since
// somebody waits for its answer, then jobs, then a check that the shadow desires.
func (c *cloud) Next(ctx context.Context) (*agent.Work, error) {
	listenErr := c.listen(ctx)
	if work := c.nextChallenge(); work != nil {
		return work, listenErr
	}
	work, err := c.nextJob(ctx)
	if work == nil {
		work = c.nextCheck()
	}
	return work, errors.Join(listenErr, err)
}

// listen subscribes to what may be asked, until that was done once in the session.
func (c *cloud) listen(ctx context.Context) error {
	var errs []error
	c.unheard = slices.DeleteFunc(c.unheard, func(listen func(context.Context) error) bool {
		err := listen(ctx)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(append(errs, c.hearChallenges(ctx))...)
}

func (c *cloud) wake() {
	select {
	case c.wanted <- struct{}{}:
	default: // there already
	}
}

func (c *cloud) desire(token string) {
	c.mu.Lock()
	if !slices.Contains(c.tokens, token) {
		c.tokens = append(c.tokens, token)
	}
	if len(c.tokens) > maxTokens {
		c.tokens = c.tokens[1:]
	}
	c.mu.Unlock()
	c.wake()
}

// nextCheck is a check for the newest token, once shadow.min_interval has passed
// since the last one began.
func (c *cloud) nextCheck() *agent.Work {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return nil
	}
	least := c.run.cfg.Shadow.MinInterval.Duration
	if next := c.run.desired.Add(least); !c.run.desired.IsZero() && time.Now().Before(next) {
		c.wakeAt(next)
		return nil
	}
	token := c.tokens[len(c.tokens)-1]
	answer := func(ctx context.Context, o agent.Outcome, _ map[string]string) error {
		if o == agent.InProgress {
			c.run.desired = time.Now() // in a process, whose clock nobody sets back
			return nil
		}
		c.checked(token)
		if o != agent.Succeeded {
			return nil // it stays desired, and the next session asks for it again
		}
		return c.AcknowledgeCheck(ctx, token)
	}
	return &agent.Work{Operation: awsiot.OperationCheck, ID: token, Do: func(ctx context.Context, do agent.Actions) error { return do.Check(ctx, token, answer) }}
}

// checked drops a token that was carried out, and those before it.
func (c *cloud) checked(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.tokens, token); i >= 0 {
		c.tokens = c.tokens[i+1:]
	}
}

// asidePause is how long a job stays aside that could not be read or answered.
const asidePause = 10 * time.Minute

// putAside lets a job wait, so that it does not keep back those behind it.
func (d *deviceRun) putAside(job string, pause time.Duration) {
	if d.aside == nil {
		d.aside = make(map[string]time.Time)
	}
	if job != "" {
		d.aside[job] = time.Now().Add(pause)
	}
}

// passes reports whether an error may be gone the next time, as it is with the
// connection or with AWS IoT's limits.
func passes(ctx context.Context, err error) bool {
	return errors.Is(err, mqtt.ErrLost) || errors.Is(err, awsiot.ErrThrottled) || ctx.Err() != nil
}

func (c *cloud) putAside(job string, err error) {
	c.run.log.Warn("a job is put aside", "job", job, "for", asidePause, "error", err)
	c.run.putAside(job, asidePause)
	c.wakeAt(c.run.aside[job])
}

// wakeAt has the loop look again at a time, or before.
func (c *cloud) wakeAt(at time.Time) {
	if c.timer == nil || at.Before(c.wakes) || time.Now().After(c.wakes) {
		c.wakes = at
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timer = time.AfterFunc(time.Until(at), c.wake)
	}
}

// nextJob is the first pending job that is keyvet's. Those of others are left
// alone; what is keyvet's and malformed is rejected. One that cannot be read, or
// not be answered, must not keep back those behind it.
func (c *cloud) nextJob(ctx context.Context) (*agent.Work, error) {
	ids, err := c.PendingJobs(ctx)
	if err != nil {
		return nil, err
	}
	foreign := make(map[string]bool)
	for _, id := range ids {
		if c.foreign[id] {
			foreign[id] = true
		}
	}
	c.foreign = foreign // those that are over are forgotten
	maps.DeleteFunc(c.run.aside, func(id string, _ time.Time) bool { return !slices.Contains(ids, id) })
	for _, id := range ids {
		if at := c.run.aside[id]; time.Now().Before(at) {
			c.wakeAt(at)
			continue
		}
		if foreign[id] {
			continue
		}
		job, err := c.DescribeJob(ctx, id)
		switch {
		case err != nil && passes(ctx, err):
			return nil, err
		case errors.Is(err, awsiot.ErrJobEnded), err == nil && job == nil:
			continue // over meanwhile
		case err != nil:
			c.putAside(id, err)
			continue
		}
		operation, err := awsiot.ParseOperation(job.Document)
		var malformed *awsiot.DocumentError
		switch {
		case errors.As(err, &malformed):
			c.run.log.Warn("job rejected", "job", id, "reason", malformed.Reason)
			details := map[string]string{"reasonCode": string(reasonBadDocument), "reason": malformed.Reason}
			err := c.answerJob(ctx, job, agent.Rejected, details)
			switch {
			case err == nil, errors.Is(err, awsiot.ErrJobEnded):
			case passes(ctx, err):
				return nil, err
			default:
				c.putAside(id, err)
			}
		case err != nil:
			foreign[id] = true
		default:
			return c.workOf(job, operation), nil
		}
	}
	return nil, nil
}

// workOf is the work that a job of keyvet's asks for.
func (c *cloud) workOf(job *awsiot.Job, operation awsiot.Operation) *agent.Work {
	answer := func(ctx context.Context, o agent.Outcome, details map[string]string) error {
		err := c.answerJob(ctx, job, o, details)
		if err != nil && !passes(ctx, err) && !errors.Is(err, awsiot.ErrJobEnded) {
			c.putAside(job.ID, err)
		}
		return err
	}
	w := &agent.Work{Operation: operation.Name, ID: job.ID}
	switch {
	case operation.Name == awsiot.OperationCheck:
		w.Do = func(ctx context.Context, do agent.Actions) error { return do.Check(ctx, job.ID, answer) }
	case operation.Name == awsiot.OperationRotate && c.run.cfg.ReadyToRotate() == nil:
		w.EndsSession = true
		w.Do = func(ctx context.Context, do agent.Actions) error {
			return do.Rotate(ctx, agent.Rotation{Trigger: device.TriggerJob, Job: job.ID, Execution: job.Execution, Key: operation.Key})
		}
	default:
		w.Do = func(ctx context.Context, _ agent.Actions) error {
			return answer(ctx, agent.Rejected, map[string]string{"reasonCode": string(reasonNotSupported)})
		}
	}
	return w
}

// reasonNotSupported answers a rotation where the device has no way to one.
const reasonNotSupported device.ReasonCode = device.ReasonKeyvetPrefix + "NOT_SUPPORTED"

// reasonBadDocument answers a job document of keyvet's that is malformed.
const reasonBadDocument device.ReasonCode = device.ReasonKeyvetPrefix + "BAD_JOB_DOCUMENT"

// answerJob updates the job, once more if somebody else just did.
func (c *cloud) answerJob(ctx context.Context, job *awsiot.Job, o agent.Outcome, details map[string]string) error {
	err := c.UpdateJob(ctx, job, awsiot.JobStatus(o), details)
	if errors.Is(err, awsiot.ErrVersionMismatch) && !job.Status.Ended() {
		err = c.UpdateJob(ctx, job, awsiot.JobStatus(o), details)
	}
	return err
}
