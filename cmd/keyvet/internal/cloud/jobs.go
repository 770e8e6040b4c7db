package cloud

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
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
	cloud  *Cloud
	client jobClient
	alarm  *alarm

	mu      sync.Mutex
	offered *awsiot.Job   // by a notice, to be looked at first
	missed  []*awsiot.Job // offered, and over before the loop looked
}

// maxMissed bounds those, of which the last are told of.
const maxMissed = 16

// jobsEach is how often the pending jobs are asked for, at most, whatever notices
// come: a broker may say that it has kept a session, and have lost its filters.
const jobsEach = time.Hour

// jobClient is [awsiot.Client].
type jobClient interface {
	PendingJobs(context.Context) ([]string, error)
	DescribeJob(ctx context.Context, id string) (*awsiot.Job, error)
	UpdateJob(ctx context.Context, job *awsiot.Job, status device.JobState, details map[string]string) error
	ReportJob(ctx context.Context, id string, status device.JobState) error
}

// offer takes a job that a notice has brought along, and wakes the loop. A notice
// may come after the job was found otherwise, and be read after its end: takeOffered
// leaves that one out.
func (q *queue) offer(next *awsiot.Job) {
	q.mu.Lock()
	if old := q.offered; old != nil && (next == nil || next.ID != old.ID) {
		q.missed = append(q.missed, old)
		q.missed = q.missed[max(0, len(q.missed)-maxMissed):]
	}
	q.offered = next
	q.mu.Unlock()
	q.alarm.ring()
}

func (q *queue) takeOffered() *awsiot.Job {
	q.mu.Lock()
	defer q.mu.Unlock()
	job := q.offered
	for _, m := range q.missed {
		if _, err := awsiot.ParseOperation(m.Document); err == nil && q.cloud.ended != (device.Job{ID: m.ID, Execution: m.Execution}) {
			keep(&q.cloud.ours, m.ID) // forget tells of it, if it is over
		}
	}
	q.offered, q.missed = nil, nil
	if job != nil && q.cloud.ended == (device.Job{ID: job.ID, Execution: job.Execution}) {
		return nil
	}
	return job
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
//
// One that came with its document is answered at once: another agent on the same
// thing may reject what it does not know.
func (q *queue) next(ctx context.Context, waits func(id string) bool) (*agent.Work, error) {
	if job := q.takeOffered(); job != nil && !q.passesOver(job.ID, waits) {
		if work, err := q.read(ctx, job); work != nil || err != nil {
			return work, err
		}
	}
	ids, err := q.client.PendingJobs(ctx)
	if err != nil {
		return nil, err
	}
	q.alarm.set(time.Now().Add(jobsEach - rand.N(jobsEach/6)))
	q.forget(ctx, ids)
	for _, id := range ids {
		if q.passesOver(id, waits) {
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

// passesOver reports whether a job is not to be looked at now.
func (q *queue) passesOver(id string, waits func(id string) bool) bool {
	if at := q.cloud.aside[id]; time.Now().Before(at) {
		q.alarm.set(at)
		return true
	}
	return q.cloud.foreign[id] || waits(id)
}

// forget forgets what was known of jobs that are pending no more. One that is
// keyvet's and that keyvet has not ended is told of.
func (q *queue) forget(ctx context.Context, pending []string) {
	for id := range q.cloud.ours {
		if !slices.Contains(pending, id) {
			job, err := q.client.DescribeJob(ctx, id)
			if err != nil || job == nil {
				job = &awsiot.Job{ID: id}
			}
			q.taken(ctx, job)
		}
	}
	maps.DeleteFunc(q.cloud.foreign, func(id string, _ bool) bool { return !slices.Contains(pending, id) })
	maps.DeleteFunc(q.cloud.aside, func(id string, _ time.Time) bool { return !slices.Contains(pending, id) })
}

// taken tells of a job of keyvet's that ended without it.
func (q *queue) taken(ctx context.Context, job *awsiot.Job) {
	delete(q.cloud.ours, job.ID)
	if job.Status == device.JobCanceled || job.Status == device.JobRemoved || job.Status == device.JobTimedOut {
		q.cloud.Log.Info("a job is over", "job", job.ID, "status", job.Status)
		return
	}
	q.cloud.Log.Warn("a job of keyvet's was ended by somebody else: a thing has one agent for its jobs (docs/operations.md)", "job", job.ID, "status", cmp.Or(job.Status, "unknown"))
	if err := q.client.ReportJob(ctx, job.ID, job.Status); err != nil {
		q.cloud.Log.Warn("the shadow does not show that a job was taken", "job", job.ID, "error", err)
	}
}

// answered keeps which jobs are keyvet's and not over.
func (q *queue) answered(ctx context.Context, job *awsiot.Job, state device.JobState, err error) {
	switch {
	case errors.Is(err, awsiot.ErrJobEnded):
		q.taken(ctx, job)
	case err == nil && state.Ended():
		delete(q.cloud.ours, job.ID)
		q.cloud.ended = device.Job{ID: job.ID, Execution: job.Execution}
	}
}

// read reads a job's document. A job that is not keyvet's, or is answered by
// this, gives no work. An error may be gone the next time.
func (q *queue) read(ctx context.Context, job *awsiot.Job) (*agent.Work, error) {
	work, err := q.work(job)
	var malformed *awsiot.DocumentError
	switch {
	case err == nil:
		keep(&q.cloud.ours, job.ID)
		return work, nil
	case !errors.As(err, &malformed):
		keep(&q.cloud.foreign, job.ID)
		return nil, nil
	}
	q.cloud.Log.Warn("job rejected", "job", job.ID, "reason", malformed.Reason)
	details := map[string]string{"reasonCode": string(badDocument.Code), "reason": malformed.Reason}
	err = answerJob(ctx, q.client, job, device.JobRejected, details)
	switch {
	case err == nil, errors.Is(err, awsiot.ErrJobEnded):
		q.cloud.ended = device.Job{ID: job.ID, Execution: job.Execution}
	case passes(ctx, err):
		return nil, err
	default:
		q.putAside(job.ID, err)
	}
	return nil, nil
}

func keep(set *map[string]bool, id string) {
	if *set == nil {
		*set = make(map[string]bool)
	}
	(*set)[id] = true
}

// work is what the document of a job asks for.
func (q *queue) work(job *awsiot.Job) (*agent.Work, error) {
	operation, err := awsiot.ParseOperation(job.Document)
	if err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, state device.JobState, details map[string]string) error {
		err := answerJob(ctx, q.client, job, state, details)
		q.answered(ctx, job, state, err)
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
