package localiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

// The statuses of a job execution (AWS IoT Developer Guide, "Jobs and job
// execution states"). The first two are pending, the others final.
const (
	Queued     = "QUEUED"
	InProgress = "IN_PROGRESS"
	Succeeded  = "SUCCEEDED"
	Failed     = "FAILED"
	TimedOut   = "TIMED_OUT"
	Rejected   = "REJECTED"
	Canceled   = "CANCELED"
)

// The limits of AWS IoT Jobs (API reference and "AWS IoT Device Management job
// limits").
const (
	maxDocument      = 32768
	maxStatusDetails = 10
	maxDetail        = 1024
	maxStepMinutes   = 10080
	maxSummaries     = 15 // in a notify message
	maxClientToken   = 64
)

var (
	jobID     = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	detailKey = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
	detail    = regexp.MustCompile(`^[^\p{C}]+$`)
)

// Job is what an operator gives to some things to do.
type Job struct {
	ID       string
	Things   []string // made if there are none of the name
	Document json.RawMessage
	// DocumentAsString sends the document as a JSON string that holds it, as
	// AWS IoT does for what was not uploaded as JSON.
	DocumentAsString bool
	// Timeout of an execution in progress; 0 is none. A device's
	// stepTimeoutInMinutes is apart from it: the earlier one ends it.
	Timeout time.Duration
	Retries int // how often a FAILED or TIMED_OUT execution is queued again
}

// job is a job with all its executions, the last of each thing last.
type job struct {
	Job
	Executions []*Execution
}

func (r *registry) job(id string) *job {
	for _, j := range r.Jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}

// CreateJob queues a job for its things and tells those that listen.
func (s *Server) CreateJob(j Job) error {
	switch {
	case !jobID.MatchString(j.ID):
		return fmt.Errorf("create job: id %q is not 1 to 64 of a-z, A-Z, 0-9, underscore and hyphen", j.ID)
	case len(j.Things) == 0:
		return errors.New("create job: no thing is given")
	case len(j.Document) > maxDocument || !json.Valid(j.Document):
		return fmt.Errorf("create job: the document must be JSON of at most %d bytes", maxDocument)
	}
	for _, thing := range j.Things {
		if !validName(thing) {
			return fmt.Errorf("create job: %q is no thing's name", thing)
		}
	}
	notices, err := s.changeJobs(func(now time.Time) error {
		if s.registry.job(j.ID) != nil {
			return fmt.Errorf("there is a job %s already", j.ID)
		}
		kept := &job{Job: j}
		for _, thing := range j.Things {
			s.registry.makeThing(thing)
			kept.queue(thing, 1, now)
		}
		s.registry.Jobs = append(s.registry.Jobs, kept)
		return nil
	})
	if err != nil {
		return fmt.Errorf("create job: %w", err)
	}
	s.tell(notices)
	return nil
}

// CancelJob cancels the executions that are queued and, if force is set, those
// in progress.
func (s *Server) CancelJob(id string, force bool) error {
	return s.endJob("cancel", id, Canceled, func(e *Execution) bool { return e.Status == Queued || force })
}

// TimeOutJob ends the executions that are in progress as their timer would.
func (s *Server) TimeOutJob(id string) error {
	return s.endJob("time out", id, TimedOut, func(e *Execution) bool { return e.Status == InProgress })
}

func (s *Server) endJob(what, id, status string, which func(*Execution) bool) error {
	notices, err := s.changeJobs(func(now time.Time) error {
		j := s.registry.job(id)
		if j == nil {
			return fmt.Errorf("there is no job %q", id)
		}
		for _, e := range slices.Clone(j.Executions) {
			if !e.Ended() && which(e) {
				j.end(e, status, now)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s job: %w", what, err)
	}
	s.tell(notices)
	return nil
}

// DeleteJob forgets a job, pending executions included.
func (s *Server) DeleteJob(id string) error {
	notices, err := s.changeJobs(func(time.Time) error {
		if s.registry.job(id) == nil {
			return fmt.Errorf("there is no job %q", id)
		}
		s.registry.Jobs = slices.DeleteFunc(s.registry.Jobs, func(j *job) bool { return j.ID == id })
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete job: %w", err)
	}
	s.tell(notices)
	return nil
}

// changeJobs changes the jobs under the lock and keeps them. It returns what is
// to be told to every thing whose queue is another one than before.
func (s *Server) changeJobs(change func(now time.Time) error) ([]notice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	before := s.queues()
	s.expire(now)
	err := change(now)
	after := s.queues()
	if failed := s.registry.save(s.dir); err == nil {
		err = failed
	}
	s.wake()
	s.setAlarm(now)
	return s.notices(before, after, now), err
}

func (s *Server) tell(notices []notice) {
	for _, n := range notices {
		s.cloud.send(nil, n.topic, n.payload)
	}
}

// queued names an execution's place in a queue.
type queued struct {
	job    string
	number int64
	status string
}

func (s *Server) queues() map[string][]queued {
	all := make(map[string][]queued)
	for thing := range s.registry.Things {
		for _, e := range s.registry.pending(thing) {
			all[thing] = append(all[thing], queued{e.Job, e.Number, e.Status})
		}
	}
	return all
}

type notice struct {
	topic   string
	payload any
}

// notices are what a change of the queues has to say; mu is held.
func (s *Server) notices(before, after map[string][]queued, now time.Time) []notice {
	var notices []notice
	next := func(queue []queued) (q queued) {
		if len(queue) > 0 {
			q = queued{job: queue[0].job, number: queue[0].number}
		}
		return q
	}
	for _, thing := range slices.Sorted(maps.Keys(s.registry.Things)) {
		prefix := "$aws/things/" + thing + "/jobs/"
		if !slices.Equal(before[thing], after[thing]) {
			byStatus := make(map[string][]any)
			for i, e := range s.registry.pending(thing) {
				if i < maxSummaries {
					byStatus[e.Status] = append(byStatus[e.Status], e.summary())
				}
			}
			notices = append(notices, notice{prefix + "notify", map[string]any{"timestamp": now.Unix(), "jobs": byStatus}})
		}
		if next(before[thing]) != next(after[thing]) {
			payload := map[string]any{"timestamp": now.Unix()}
			if pending := s.registry.pending(thing); len(pending) > 0 {
				payload["execution"] = s.describe(pending[0], true, now)
			}
			notices = append(notices, notice{prefix + "notify-next", payload})
		}
	}
	return notices
}

func (j *job) document() any {
	if j.DocumentAsString {
		return string(j.Document)
	}
	return j.Document
}
