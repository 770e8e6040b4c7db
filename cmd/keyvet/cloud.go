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
	unread   map[string]time.Time          // ids of jobs that are not to be read again before

	challenges chan challenge // capacity 1

	mu     sync.Mutex
	tokens []string // of desired checks that are not carried out yet
}

// maxTokens bounds the desired checks that wait; one check answers all.
const maxTokens = 8

func newCloud(run *deviceRun, client *awsiot.Client, session *mqtt.Session) *cloud {
	client.Pace, client.Log = &run.pace, run.log
	c := &cloud{
		Client: client, session: session, run: run, wanted: make(chan struct{}, 1), challenges: make(chan challenge, 1),
		foreign: make(map[string]bool), unread: make(map[string]time.Time),
	}
	c.unheard = []func(context.Context) error{
		func(ctx context.Context) error { return c.OnJobs(ctx, c.wake) },
		func(ctx context.Context) error { return c.OnDesiredCheck(ctx, c.desire) },
		c.onChallenges,
	}
	return c
}

func (c *cloud) Wanted() <-chan struct{} { return c.wanted }
func (c *cloud) Done() <-chan struct{}   { return c.session.Done() }
func (c *cloud) Close()                  { c.session.Close() }

// Publish sends the report, and its findings for the account's topic rule. The
// report alone is what counts.
func (c *cloud) Publish(ctx context.Context, r *device.Report) error {
	if err := c.Client.Publish(ctx, r); err != nil {
		return err
	}
	if err := c.PublishFindings(ctx, r); err != nil {
		c.run.log.Warn("the findings went out with the report alone", "error", err)
	}
	return nil
}

func (c *cloud) ReportGate(ctx context.Context, open bool) error {
	c.gateOpen = open
	return c.Client.ReportGate(ctx, open)
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
	return errors.Join(errs...)
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

// nextCheck is a check for the newest token.
func (c *cloud) nextCheck() *agent.Work {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return nil
	}
	token := c.tokens[len(c.tokens)-1]
	return &agent.Work{Operation: agent.OperationCheck, ID: token, Answer: func(ctx context.Context, o agent.Outcome, _ map[string]string) error {
		if o == agent.InProgress {
			return nil
		}
		c.mu.Lock()
		for i, t := range c.tokens {
			if t == token {
				c.tokens = c.tokens[i+1:]
				break
			}
		}
		c.mu.Unlock()
		return c.AcknowledgeCheck(ctx, token)
	}}
}

// unreadPause is how long a job stays aside that could not be read.
const unreadPause = 10 * time.Minute

// nextJob is the first pending job that is keyvet's. Those of others are left
// alone; what is keyvet's and malformed is rejected. One that cannot be read
// must not keep back those behind it.
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
	maps.DeleteFunc(c.unread, func(id string, _ time.Time) bool { return !slices.Contains(ids, id) })
	for _, id := range ids {
		if foreign[id] || time.Now().Before(c.unread[id]) {
			continue
		}
		job, err := c.DescribeJob(ctx, id)
		switch {
		case errors.Is(err, mqtt.ErrLost), errors.Is(err, awsiot.ErrThrottled), err != nil && ctx.Err() != nil:
			return nil, err
		case errors.Is(err, awsiot.ErrJobEnded), err == nil && job == nil:
			continue // over meanwhile
		case err != nil:
			c.run.log.Warn("job could not be read", "job", id, "error", err, "again", unreadPause)
			c.unread[id] = time.Now().Add(unreadPause)
			time.AfterFunc(unreadPause, c.wake)
			continue
		}
		operation, err := awsiot.ParseOperation(job.Document)
		var malformed *awsiot.DocumentError
		switch {
		case errors.As(err, &malformed):
			c.run.log.Warn("job rejected", "job", id, "reason", malformed.Reason)
			details := map[string]string{"reasonCode": string(reasonBadDocument), "reason": malformed.Reason}
			if err := c.answerJob(ctx, job, agent.Rejected, details); err != nil {
				return nil, err
			}
		case err != nil:
			foreign[id] = true
		default:
			return &agent.Work{
				Operation: agent.Operation(operation.Name), ID: id, Job: id, Execution: job.Execution, Key: operation.Key,
				Answer: func(ctx context.Context, o agent.Outcome, details map[string]string) error {
					return c.answerJob(ctx, job, o, details)
				},
			}, nil
		}
	}
	return nil, nil
}

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
