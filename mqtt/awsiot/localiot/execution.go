package localiot

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

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

// Ended reports whether the status is final.
func (e Execution) Ended() bool { return e.Status != Queued && e.Status != InProgress }

// last is the newest execution for a thing, or nil.
func (j *job) last(thing string) *Execution {
	for _, e := range slices.Backward(j.Executions) {
		if e.Thing == thing {
			return e
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

func (j *job) queue(thing string, number int64, now time.Time) {
	j.Executions = append(j.Executions, &Execution{Job: j.ID, Thing: thing, Status: Queued, QueuedAt: now, UpdatedAt: now, Version: 1, Number: number})
}

// end gives an execution a final status and queues it again where the job says so.
func (j *job) end(e *Execution, status string, now time.Time) {
	e.Status, e.UpdatedAt, e.Deadline, e.StepDeadline = status, now, time.Time{}, time.Time{}
	e.Version++
	if (status == Failed || status == TimedOut) && e.Number <= int64(j.Retries) {
		j.queue(e.Thing, e.Number+1, now)
	}
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
			return last, fmt.Errorf("wait for job %s of %s, now %+v: %w", id, thing, last, context.Cause(ctx))
		}
	}
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

// state is the executionState of an answer.
func (e *Execution) state() map[string]any {
	m := map[string]any{"status": e.Status, "versionNumber": e.Version}
	if len(e.StatusDetails) > 0 {
		m["statusDetails"] = e.StatusDetails
	}
	return m
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
