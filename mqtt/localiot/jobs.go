package localiot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reply sends payload to the request's topic with a suffix: "accepted", "rejected" …
type reply = func(suffix string, payload any)

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

// Execution is the carrying out of a job by one thing.
type Execution struct {
	Job           string            `json:"job"`
	Thing         string            `json:"thing"`
	Status        string            `json:"status"`
	StatusDetails map[string]string `json:"statusDetails,omitempty"`
	QueuedAt      time.Time         `json:"queuedAt"`
	StartedAt     time.Time         `json:"startedAt,omitzero"`
	UpdatedAt     time.Time         `json:"updatedAt"`
	Version       int64             `json:"version"`
	Number        int64             `json:"number"`
	Deadline      time.Time         `json:"deadline,omitzero"`     // of the job's timer
	StepDeadline  time.Time         `json:"stepDeadline,omitzero"` // of the device's
}

// Ended tells whether the status is final.
func (e Execution) Ended() bool { return e.Status != Queued && e.Status != InProgress }

// job is a job with all its executions, the last of each thing last.
type job struct {
	Job
	Executions []*Execution
}

// last is the newest execution for a thing, or nil.
func (j *job) last(thing string) *Execution {
	for _, e := range slices.Backward(j.Executions) {
		if e.Thing == thing {
			return e
		}
	}
	return nil
}

func (r *registry) job(id string) *job {
	for _, j := range r.Jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}

// pending are the executions of a thing that are in progress, and then those
// that are queued, each oldest first.
func (r *registry) pending(thing string) []*Execution {
	var found []*Execution
	for _, j := range r.Jobs {
		if e := j.last(thing); e != nil && !e.Ended() {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b *Execution) int {
		if a.Status != b.Status {
			return cmp.Compare(a.Status, b.Status) // IN_PROGRESS < QUEUED
		}
		if a.Status == InProgress {
			return a.StartedAt.Compare(b.StartedAt)
		}
		return a.QueuedAt.Compare(b.QueuedAt)
	})
	return found
}

// CreateJob queues a job for its things and tells those that listen.
func (s *Server) CreateJob(j Job) error {
	switch {
	case !jobID.MatchString(j.ID):
		return fmt.Errorf("localiot: create job: id %q is not 1 to 64 of a-z, A-Z, 0-9, underscore and hyphen", j.ID)
	case len(j.Things) == 0:
		return errors.New("localiot: create job: no thing is given")
	case len(j.Document) > maxDocument || !json.Valid(j.Document):
		return fmt.Errorf("localiot: create job: the document has to be JSON of at most %d bytes", maxDocument)
	}
	for _, thing := range j.Things {
		if !validName(thing) {
			return fmt.Errorf("localiot: create job: %q is no thing's name", thing)
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
		return fmt.Errorf("localiot: create job: %w", err)
	}
	s.tell(notices)
	return nil
}

func (j *job) queue(thing string, number int64, now time.Time) {
	j.Executions = append(j.Executions, &Execution{Job: j.ID, Thing: thing, Status: Queued, QueuedAt: now, UpdatedAt: now, Version: 1, Number: number})
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
		return fmt.Errorf("localiot: %s job: %w", what, err)
	}
	s.tell(notices)
	return nil
}

// end gives an execution a final status and queues it again where the job says so.
func (j *job) end(e *Execution, status string, now time.Time) {
	e.Status, e.UpdatedAt, e.Deadline, e.StepDeadline = status, now, time.Time{}, time.Time{}
	e.Version++
	if (status == Failed || status == TimedOut) && e.Number <= int64(j.Retries) {
		j.queue(e.Thing, e.Number+1, now)
	}
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
		return fmt.Errorf("localiot: delete job: %w", err)
	}
	s.tell(notices)
	return nil
}

// Executions are those of a job, or of all jobs for "", oldest job first.
func (s *Server) Executions(id string) []Execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Execution
	for _, j := range s.registry.Jobs {
		if id == "" || j.ID == id {
			for _, e := range j.Executions {
				found = append(found, e.copy())
			}
		}
	}
	return found
}

func (e *Execution) copy() Execution {
	c := *e
	c.StatusDetails = maps.Clone(e.StatusDetails)
	return c
}

// WaitExecution waits until until says yes of the last execution of a job by
// a thing.
func (s *Server) WaitExecution(ctx context.Context, id, thing string, until func(Execution) bool) (Execution, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		var last Execution
		if j := s.registry.job(id); j != nil {
			if e := j.last(thing); e != nil {
				last = e.copy()
			}
		}
		s.mu.Unlock()
		if last.Job != "" && until(last) {
			return last, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last, fmt.Errorf("localiot: wait for job %s of %s, now %+v: %w", id, thing, last, context.Cause(ctx))
		}
	}
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

// setAlarm sees to it that what runs out of time is ended then; mu is held.
func (s *Server) setAlarm(now time.Time) {
	if s.alarm != nil {
		s.alarm.Stop()
	}
	var first time.Time
	for _, j := range s.registry.Jobs {
		for _, e := range j.Executions {
			if d := e.deadline(); !e.Ended() && !d.IsZero() && (first.IsZero() || d.Before(first)) {
				first = d
			}
		}
	}
	if first.IsZero() || s.wires == nil {
		return
	}
	s.alarm = time.AfterFunc(first.Sub(now), func() {
		notices, err := s.changeJobs(func(time.Time) error { return nil })
		if err != nil {
			s.log.Error("jobs not kept", "error", err)
		}
		s.tell(notices)
	})
}

// deadline is the earlier of the two, or zero.
func (e *Execution) deadline() time.Time {
	if e.Deadline.IsZero() || !e.StepDeadline.IsZero() && e.StepDeadline.Before(e.Deadline) {
		return e.StepDeadline
	}
	return e.Deadline
}

func (s *Server) tell(notices []notice) {
	for _, n := range notices {
		s.cloud.send(nil, n.topic, n.payload)
	}
}

// expire ends what has run out of time; mu is held.
func (s *Server) expire(now time.Time) {
	for _, j := range s.registry.Jobs {
		for _, e := range slices.Clone(j.Executions) {
			if d := e.deadline(); !e.Ended() && !d.IsZero() && !now.Before(d) {
				j.end(e, TimedOut, now)
			}
		}
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

func (e *Execution) summary() map[string]any {
	m := map[string]any{
		"jobId": e.Job, "queuedAt": e.QueuedAt.Unix(), "lastUpdatedAt": e.UpdatedAt.Unix(),
		"versionNumber": e.Version, "executionNumber": e.Number,
	}
	if !e.StartedAt.IsZero() {
		m["startedAt"] = e.StartedAt.Unix()
	}
	return m
}

// describe is the execution as a device sees it; mu is held.
func (s *Server) describe(e *Execution, document bool, now time.Time) map[string]any {
	m := e.summary()
	m["thingName"], m["status"] = e.Thing, e.Status
	if len(e.StatusDetails) > 0 {
		m["statusDetails"] = e.StatusDetails
	}
	if d := e.deadline(); !e.Ended() && !d.IsZero() {
		m["approximateSecondsBeforeTimedOut"] = int64(d.Sub(now) / time.Second)
	}
	if document {
		m["jobDocument"] = s.registry.job(e.Job).document()
	}
	return m
}

func (j *job) document() any {
	if j.DocumentAsString {
		return string(j.Document)
	}
	return j.Document
}

// state is the executionState of an answer.
func (e *Execution) state() map[string]any {
	m := map[string]any{"status": e.Status, "versionNumber": e.Version}
	if len(e.StatusDetails) > 0 {
		m["statusDetails"] = e.StatusDetails
	}
	return m
}

// jobsRequest has the members of every request to AWS IoT Jobs.
type jobsRequest struct {
	ClientToken              string            `json:"clientToken"`
	Status                   string            `json:"status"`
	StatusDetails            map[string]string `json:"statusDetails"`
	ExpectedVersion          *int64            `json:"expectedVersion"`
	ExecutionNumber          *int64            `json:"executionNumber"`
	IncludeJobDocument       *bool             `json:"includeJobDocument"`
	IncludeJobExecutionState bool              `json:"includeJobExecutionState"`
	StepTimeoutInMinutes     *int64            `json:"stepTimeoutInMinutes"`
}

// jobsError is an answer on a rejected topic.
type jobsError struct {
	code, message string
	execution     *Execution // whose executionState goes with it, or nil
}

func (e *jobsError) Error() string { return e.code + ": " + e.message }

func (r *jobsRequest) check() error {
	switch {
	case len(r.ClientToken) > maxClientToken:
		return errors.New("the clientToken is too long")
	case len(r.StatusDetails) > maxStatusDetails:
		return fmt.Errorf("more than %d statusDetails", maxStatusDetails)
	case r.StepTimeoutInMinutes != nil && *r.StepTimeoutInMinutes != -1 && (*r.StepTimeoutInMinutes < 1 || *r.StepTimeoutInMinutes > maxStepMinutes):
		return fmt.Errorf("stepTimeoutInMinutes is not 1 to %d, nor -1", maxStepMinutes)
	}
	for k, v := range r.StatusDetails {
		if !detailKey.MatchString(k) || len(v) > maxDetail || !detail.MatchString(v) {
			return errors.New("statusDetails do not fit [a-zA-Z0-9:_-]{1,128} and [^\\p{C}]{1,1024}")
		}
	}
	return nil
}

// answerJobs answers a request on $aws/things/{thing}/jobs/{operation} (AWS IoT
// Developer Guide, "Jobs device MQTT API operations").
func (s *Server) answerJobs(thing, operation string, payload []byte, send reply) {
	var request jobsRequest
	var answer map[string]any
	var notices []notice
	err := func() error {
		if len(payload) > 0 {
			if err := decode(payload, &request); err != nil {
				return &jobsError{code: "InvalidJson", message: "the request cannot be read"}
			}
		}
		if err := request.check(); err != nil {
			return &jobsError{code: "InvalidRequest", message: err.Error()}
		}
		if s.strikes(func(f Faults) bool { return f.Throttle }) {
			return &jobsError{code: "RequestThrottled", message: "too many requests"}
		}
		return nil
	}()
	if err == nil {
		notices, err = s.changeJobs(func(now time.Time) (err error) {
			answer, err = s.carryOutJobs(thing, operation, &request, now)
			return err
		})
	}
	suffix := "accepted"
	if err != nil {
		suffix = "rejected"
		rejected := &jobsError{code: "InternalError", message: "internal failure"}
		if !errors.As(err, &rejected) {
			s.log.Error("jobs not kept", "thing", thing, "error", err)
		}
		answer = map[string]any{"code": rejected.code, "message": rejected.message}
		if rejected.execution != nil {
			answer["executionState"] = rejected.execution.state()
		}
	}
	answer["timestamp"] = time.Now().Unix()
	if request.ClientToken != "" && len(request.ClientToken) <= maxClientToken {
		answer["clientToken"] = request.ClientToken
	}
	send(suffix, answer)
	s.tell(notices)
}

// carryOutJobs needs mu.
func (s *Server) carryOutJobs(thing, operation string, request *jobsRequest, now time.Time) (map[string]any, error) {
	pending := s.registry.pending(thing)
	id, verb, _ := strings.Cut(operation, "/")
	switch {
	case operation == "get":
		lists := map[string][]any{InProgress: {}, Queued: {}}
		for _, e := range pending {
			lists[e.Status] = append(lists[e.Status], e.summary())
		}
		return map[string]any{"inProgressJobs": lists[InProgress], "queuedJobs": lists[Queued]}, nil
	case operation == "start-next":
		if len(pending) == 0 {
			return map[string]any{}, nil
		}
		e := pending[0]
		if e.Status == Queued { // of one in progress, nothing changes
			s.start(e, now)
			s.apply(e, request, now)
			e.Version++
		}
		return map[string]any{"execution": s.describe(e, true, now)}, nil
	case operation == "$next/get":
		if len(pending) == 0 {
			return map[string]any{}, nil
		}
		return map[string]any{"execution": s.describe(pending[0], wants(request.IncludeJobDocument, true), now)}, nil
	case jobID.MatchString(id) && (verb == "get" || verb == "update"):
		e := s.execution(id, thing, request.ExecutionNumber)
		if e == nil {
			return nil, &jobsError{code: "ResourceNotFound", message: "the thing has no such execution of job " + id}
		}
		if verb == "update" {
			return s.updateExecution(e, request, now)
		}
		if e.Ended() {
			return nil, &jobsError{code: "TerminalStateReached", message: "job " + id + " is " + e.Status}
		}
		return map[string]any{"execution": s.describe(e, wants(request.IncludeJobDocument, true), now)}, nil
	}
	return nil, &jobsError{code: "InvalidTopic", message: "no operation of AWS IoT Jobs has this topic"}
}

func wants(said *bool, otherwise bool) bool {
	if said == nil {
		return otherwise
	}
	return *said
}

func (s *Server) execution(id, thing string, number *int64) *Execution {
	j := s.registry.job(id)
	if j == nil {
		return nil
	}
	e := j.last(thing)
	if e != nil && number != nil && *number != e.Number {
		return nil
	}
	return e
}

func (s *Server) start(e *Execution, now time.Time) {
	e.Status, e.StartedAt = InProgress, now
	if j := s.registry.job(e.Job); j.Timeout > 0 {
		e.Deadline = now.Add(j.Timeout)
	}
}

// apply sets what a request says besides the status.
func (s *Server) apply(e *Execution, request *jobsRequest, now time.Time) {
	if request.StatusDetails != nil {
		e.StatusDetails = request.StatusDetails
	}
	if m := request.StepTimeoutInMinutes; m != nil {
		e.StepDeadline = time.Time{}
		if *m > 0 {
			e.StepDeadline = now.Add(time.Duration(*m) * time.Minute)
		}
	}
	e.UpdatedAt = now
}

func (s *Server) updateExecution(e *Execution, request *jobsRequest, now time.Time) (map[string]any, error) {
	if !e.Ended() && request.ExpectedVersion != nil && s.strikesLocked(func(f Faults) bool { return f.VersionMismatch }) {
		e.Version++
		e.UpdatedAt = now
	}
	switch request.Status {
	case InProgress, Failed, Succeeded, Rejected:
	default:
		return nil, &jobsError{code: "InvalidRequest", message: "status has to be IN_PROGRESS, FAILED, SUCCEEDED or REJECTED, not " + strconv.Quote(request.Status)}
	}
	switch {
	case e.Ended():
		return nil, &jobsError{"InvalidStateTransition", "the execution is " + e.Status, e}
	case request.ExpectedVersion != nil && *request.ExpectedVersion != e.Version:
		return nil, &jobsError{"VersionMismatch", fmt.Sprintf("the execution has version %d", e.Version), e}
	}
	j := s.registry.job(e.Job)
	if e.StartedAt.IsZero() {
		s.start(e, now)
	}
	s.apply(e, request, now)
	if request.Status == InProgress {
		e.Version++
	} else {
		j.end(e, request.Status, now)
	}
	answer := map[string]any{}
	if request.IncludeJobExecutionState {
		answer["executionState"] = e.state()
	}
	if wants(request.IncludeJobDocument, false) {
		answer["jobDocument"] = j.document()
	}
	return answer, nil
}
