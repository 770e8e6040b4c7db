package cloud

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// Why keyvet does not carry out a job.
var (
	badDocument = device.Reason{
		Code:  "KEYVET_BAD_JOB_DOCUMENT",
		Means: "The document is keyvet's, but is not one that keyvet accepts. The job is REJECTED; `reason` in its status details says why.",
		Do:    "Create a job with a corrected document (docs/operations.md).",
	}
	notSupported = device.Reason{
		Code:  "KEYVET_NOT_SUPPORTED",
		Means: "The configuration of the device does not allow rotations. The job is REJECTED.",
		Do:    "Set `rotate.template`, or `rotate.issuer = \"topics\"`, in the configuration.",
	}
)

// queue is the thing's pending jobs.
type queue struct {
	cloud   *Cloud
	client  jobClient
	alarm   *alarm
	foreign map[string]bool // ids of pending jobs that are others'
}

// jobClient is [awsiot.Client].
type jobClient interface {
	PendingJobs(context.Context) ([]string, error)
	DescribeJob(ctx context.Context, id string) (*awsiot.Job, error)
	UpdateJob(ctx context.Context, job *awsiot.Job, status device.JobState, details map[string]string) error
}

// asidePause is how long a job stays aside that could not be read or answered.
const asidePause = 10 * time.Minute

// PutAside lets a job wait, so that it does not keep back those behind it.
func (c *Cloud) PutAside(job string, pause time.Duration) {
	if c.aside == nil {
		c.aside = make(map[string]time.Time)
	}
	if job != "" {
		c.aside[job] = time.Now().Add(pause)
	}
}

func (q *queue) putAside(job string, err error) {
	q.cloud.Log.Warn("a job is put aside", "job", job, "for", asidePause, "error", err)
	q.cloud.PutAside(job, asidePause)
	q.alarm.set(q.cloud.aside[job])
}

// passes reports whether an error may be gone the next time, as it is with the
// connection or with AWS IoT's limits.
func passes(ctx context.Context, err error) bool {
	return errors.Is(err, mqtt.ErrLost) || errors.Is(err, awsiot.ErrThrottled) || ctx.Err() != nil
}

// next is the first pending job that is keyvet's. Those of others are left
// alone; what is keyvet's and malformed is rejected. One that cannot be read, or
// not be answered, must not keep back those behind it, nor must one that waits
// for its next try.
func (q *queue) next(ctx context.Context, waits func(id string) bool) (*agent.Work, error) {
	ids, err := q.client.PendingJobs(ctx)
	if err != nil {
		return nil, err
	}
	q.forget(ids)
	for _, id := range ids {
		if at := q.cloud.aside[id]; time.Now().Before(at) {
			q.alarm.set(at)
			continue
		}
		if q.foreign[id] || waits(id) {
			continue
		}
		job, err := q.client.DescribeJob(ctx, id)
		switch {
		case err != nil && passes(ctx, err):
			return nil, err
		case errors.Is(err, awsiot.ErrJobEnded), err == nil && job == nil:
			continue // over meanwhile
		case err != nil:
			q.putAside(id, err)
			continue
		}
		work, err := q.read(ctx, job)
		if work != nil || err != nil {
			return work, err
		}
	}
	return nil, nil
}

// forget forgets what was known of jobs that are pending no more.
func (q *queue) forget(pending []string) {
	foreign := make(map[string]bool)
	for _, id := range pending {
		if q.foreign[id] {
			foreign[id] = true
		}
	}
	q.foreign = foreign
	maps.DeleteFunc(q.cloud.aside, func(id string, _ time.Time) bool { return !slices.Contains(pending, id) })
}

// read reads a job's document. A job that is not keyvet's, or is answered by
// this, gives no work. An error may be gone the next time.
func (q *queue) read(ctx context.Context, job *awsiot.Job) (*agent.Work, error) {
	work, err := q.work(job)
	var malformed *awsiot.DocumentError
	switch {
	case err == nil:
		return work, nil
	case !errors.As(err, &malformed):
		q.foreign[job.ID] = true
		return nil, nil
	}
	q.cloud.Log.Warn("job rejected", "job", job.ID, "reason", malformed.Reason)
	details := map[string]string{"reasonCode": string(badDocument.Code), "reason": malformed.Reason}
	err = answerJob(ctx, q.client, job, device.JobRejected, details)
	switch {
	case err == nil, errors.Is(err, awsiot.ErrJobEnded):
	case passes(ctx, err):
		return nil, err
	default:
		q.putAside(job.ID, err)
	}
	return nil, nil
}

// work is what the document of a job asks for.
func (q *queue) work(job *awsiot.Job) (*agent.Work, error) {
	operation, err := awsiot.ParseOperation(job.Document)
	if err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, state device.JobState, details map[string]string) error {
		err := answerJob(ctx, q.client, job, state, details)
		if err != nil && !passes(ctx, err) && !errors.Is(err, awsiot.ErrJobEnded) {
			q.putAside(job.ID, err)
		}
		return err
	}
	w := &agent.Work{Operation: operation.Name, ID: job.ID}
	switch {
	case operation.Name == awsiot.OperationCheck:
		w.Do = func(ctx context.Context, do agent.Actions) error { return do.Check(ctx, job.ID, answer) }
	case operation.Name == awsiot.OperationRotate && q.cloud.Config.ReadyToRotate() == nil:
		w.EndsSession = true
		w.Do = func(ctx context.Context, do agent.Actions) error {
			return do.Rotate(ctx, agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: job.ID, Execution: job.Execution}, Key: operation.Key})
		}
	default:
		w.Do = func(ctx context.Context, _ agent.Actions) error {
			return answer(ctx, device.JobRejected, map[string]string{"reasonCode": string(notSupported.Code)})
		}
	}
	return w, nil
}

// answerJob updates the job, once more if somebody else just did.
func answerJob(ctx context.Context, c jobClient, job *awsiot.Job, state device.JobState, details map[string]string) error {
	err := c.UpdateJob(ctx, job, state, details)
	if errors.Is(err, awsiot.ErrVersionMismatch) && !job.Status.Ended() {
		err = c.UpdateJob(ctx, job, state, details)
	}
	return err
}
