package localiot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// reply sends payload to the request's topic with a suffix: "accepted", "rejected" …
type reply = func(suffix string, payload any)

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

func (s *Server) updateExecution(e *Execution, request *jobsRequest, now time.Time) (map[string]any, error) {
	if !e.Ended() && request.ExpectedVersion != nil && s.strikesLocked(func(f Faults) bool { return f.VersionMismatch }) {
		e.Version++
		e.UpdatedAt = now
	}
	switch request.Status {
	case InProgress, Failed, Succeeded, Rejected:
	default:
		return nil, &jobsError{code: "InvalidRequest", message: "status must be IN_PROGRESS, FAILED, SUCCEEDED or REJECTED, not " + strconv.Quote(request.Status)}
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
