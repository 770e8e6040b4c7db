package awsiot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
)

// Job is one job on this thing.
type Job struct {
	ID        string
	Thing     string
	Status    device.JobState
	Version   int64             // counts the updates
	Execution int64             // tells the runs of one job on one thing apart
	Document  json.RawMessage   // the object, also where AWS IoT sent it in a string; see [ParseOperation]
	Details   map[string]string // statusDetails
	TimesOut  time.Duration     // from when it was read, about; 0 is never
}

// What a caller of the Jobs methods may test for, besides [ErrThrottled].
var (
	// ErrVersionMismatch: somebody else has updated the job, which now holds
	// the status and version of AWS IoT. Whoever still means the update sends
	// it again.
	ErrVersionMismatch = errors.New("the job was updated by somebody else")

	// ErrJobEnded: the job is over: cancelled, timed out, or ended before.
	ErrJobEnded = errors.New("the job has ended")
)

// NextJob stands for the next job in [Client.DescribeJob].
const NextJob = "$next"

// jobs makes a topic of Jobs (AWS IoT Developer Guide, "Jobs device MQTT API operations").
func (c *Client) jobs(operation string) string { return c.prefix + "jobs/" + operation }

// jobRequest is a request on the topic of one job. One pair of filters serves
// the replies of all: a connection has 50 subscriptions.
func (c *Client) jobRequest(ctx context.Context, id, verb string, doc map[string]any) ([]byte, error) {
	if id != NextJob && !validJobID(id) {
		return nil, fmt.Errorf("%.80q is no job id", id)
	}
	for _, kind := range []string{"/accepted", "/rejected"} {
		if err := c.session.Subscribe(ctx, c.jobs("+/"+verb+kind), nil); err != nil {
			return nil, err
		}
	}
	return request(ctx, c.session, c.jobs(id+"/"+verb), withToken(doc))
}

func validJobID(id string) bool { return len(id) <= 64 && validName(id) }

// PendingJobs lists the ids of the jobs that have not ended: those in progress
// first, then the others, each in the order in which they were queued.
func (c *Client) PendingJobs(ctx context.Context) ([]string, error) {
	reply, err := request(ctx, c.session, c.jobs("get"), withToken(nil))
	var ids []string
	if err == nil {
		ids, err = parsePending(reply)
	}
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	return ids, nil
}

// DescribeJob reads one job, or the next of the queue for [NextJob]. It
// returns nil without an error if there is none.
func (c *Client) DescribeJob(ctx context.Context, id string) (*Job, error) {
	reply, err := c.jobRequest(ctx, id, "get", map[string]any{"includeJobDocument": true})
	var job *Job
	if err == nil {
		job, err = c.parseJob(reply)
	}
	if err == nil && job != nil && id != NextJob && job.ID != id {
		err = fmt.Errorf("the reply is on job %s", job.ID)
	}
	var rejected *Rejected
	if errors.As(err, &rejected) {
		switch rejected.Code {
		case "ResourceNotFound":
			return nil, nil
		case "TerminalStateReached":
			err = fmt.Errorf("%w: %w", ErrJobEnded, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("describe job %.80s: %w", id, err)
	}
	return job, nil
}

// UpdateJob sets the status of a job, and its details unless there are none,
// provided that nobody else did since job was read. On success, and where the
// job turns out to be so already since an earlier reply was lost, it sets
// Status, Version and Details.
func (c *Client) UpdateJob(ctx context.Context, job *Job, status device.JobState, details map[string]string) error {
	if err := c.updateJob(ctx, job, status, cleanDetails(details)); err != nil {
		return fmt.Errorf("update job %.80s to %s: %w", job.ID, status, err)
	}
	return nil
}

func (c *Client) updateJob(ctx context.Context, job *Job, status device.JobState, details map[string]string) error {
	doc := withDetails(map[string]any{
		"status": status, "expectedVersion": job.Version, "includeJobExecutionState": true,
	}, details)
	if job.Execution > 0 {
		doc["executionNumber"] = job.Execution
	}
	reply, err := c.jobRequest(ctx, job.ID, "update", doc)
	var rejected *Rejected
	if err == nil {
		state, err := parseExecutionState(reply)
		if err != nil {
			return err
		}
		job.Status, job.Version = status, job.Version+1
		if state.known() {
			job.Version = state.Version
		}
		if len(details) > 0 {
			job.Details = details
		}
		return nil
	}
	if !errors.As(err, &rejected) {
		return err
	}
	state, _ := parseExecutionState(rejected.Payload) // the rejection counts whether or not it has one
	if state.known() {
		job.Status, job.Version, job.Details = state.Status, state.Version, state.Details
		if state.Status == status && (len(details) == 0 || maps.Equal(state.Details, details)) {
			return nil
		}
	}
	switch {
	case rejected.Code == "TerminalStateReached", rejected.Code == "InvalidStateTransition" && !state.known(), state.Status.Ended():
		return fmt.Errorf("%w: %w", ErrJobEnded, err)
	case rejected.Code == "VersionMismatch":
		return fmt.Errorf("%w: %w", ErrVersionMismatch, err)
	}
	return err
}

// OnJobs calls f whenever there may be another job, with the next one of the
// queue if AWS IoT has sent it along, else nil. Where the next one is another
// agent's and stays, only the notice of the whole list tells of those behind it.
// f must not take long itself.
func (c *Client) OnJobs(ctx context.Context, f func(next *Job)) error {
	err := c.session.Subscribe(ctx, c.jobs("notify-next"), func(_ string, payload []byte) {
		job, err := c.parseJob(payload)
		if err != nil {
			c.logOnce("a notice of a job makes no sense", err)
		}
		f(job)
	})
	if err == nil {
		err = c.session.Subscribe(ctx, c.jobs("notify"), func(string, []byte) { f(nil) })
	}
	if err != nil {
		return fmt.Errorf("await jobs: %w", err)
	}
	return nil
}

// parseJob reads the reply of get; nil is no job.
func (c *Client) parseJob(reply []byte) (*Job, error) {
	var doc struct {
		Execution *struct {
			JobID     string            `json:"jobId"`
			ThingName string            `json:"thingName"`
			Status    device.JobState   `json:"status"`
			Details   map[string]string `json:"statusDetails"`
			TimesOut  *int64            `json:"approximateSecondsBeforeTimedOut"`
			Version   int64             `json:"versionNumber"`
			Execution int64             `json:"executionNumber"`
			Document  json.RawMessage   `json:"jobDocument"`
		} `json:"execution"`
	}
	if err := decode(reply, &doc); err != nil {
		return nil, err
	}
	e := doc.Execution
	if e == nil || e.JobID == "" { // AWS IoT answers {"execution":{}} too
		return nil, nil
	}
	if !validJobID(e.JobID) {
		return nil, fmt.Errorf("reply: %.80q is no job id", e.JobID)
	}
	if e.ThingName != "" && e.ThingName != c.thing {
		return nil, fmt.Errorf("reply: job %s is of another thing, %.128q", e.JobID, e.ThingName)
	}
	job := &Job{
		ID: e.JobID, Thing: c.thing, Status: e.Status, Version: e.Version, Execution: e.Execution,
		Document: e.Document, Details: e.Details,
	}
	if e.TimesOut != nil {
		// 1 s at least, since 0 is never; at most what a timeout can be.
		job.TimesOut = time.Duration(min(max(*e.TimesOut, 1), maxTimeout)) * time.Second
	}
	if text, ok := (member{value: e.Document}).text(); ok {
		job.Document = json.RawMessage(text)
	}
	return job, nil
}

// maxTimeout is the longest timeout of a job, 7 days in seconds (AWS General
// Reference, "AWS IoT Device Management endpoints and quotas").
const maxTimeout = 7 * 24 * 3600

func parsePending(reply []byte) ([]string, error) {
	type summary struct {
		JobID    string          `json:"jobId"`
		QueuedAt json.RawMessage `json:"queuedAt"`
	}
	var doc struct {
		InProgress []summary `json:"inProgressJobs"`
		Queued     []summary `json:"queuedJobs"`
	}
	if err := decode(reply, &doc); err != nil {
		return nil, err
	}
	var ids []string
	for _, list := range [][]summary{doc.InProgress, doc.Queued} {
		sort.SliceStable(list, func(i, j int) bool { return seconds(list[i].QueuedAt) < seconds(list[j].QueuedAt) }) // half the code of slices
		for _, s := range list {
			if !validJobID(s.JobID) {
				return nil, fmt.Errorf("reply: %.80q is no job id", s.JobID)
			}
			ids = append(ids, s.JobID)
		}
	}
	return ids, nil
}

// seconds reads a time that AWS IoT wrote in seconds or in milliseconds since
// 1970; what is neither counts as 0.
func seconds(value json.RawMessage) float64 {
	var t float64
	if json.Unmarshal(value, &t) != nil || t < 0 {
		return 0
	}
	if t >= 1e11 { // the year 5138 in seconds, 1973 in milliseconds
		t /= 1000
	}
	return t
}

// executionState is what an update, or its rejection, says of the job.
type executionState struct {
	Status  device.JobState   `json:"status"`
	Version int64             `json:"versionNumber"`
	Details map[string]string `json:"statusDetails"`
}

func (s executionState) known() bool { return s.Status != "" }

func parseExecutionState(reply []byte) (executionState, error) {
	var doc struct {
		State executionState `json:"executionState"`
	}
	if err := decode(reply, &doc); err != nil {
		return executionState{}, err
	}
	return doc.State, nil
}

// Limits of statusDetails (AWS IoT Jobs data API reference, UpdateJobExecution).
const (
	maxDetails     = 10
	maxDetailName  = 128
	maxDetailValue = 1024
)

// firstDetails are those of keyvet's that must not give way to others.
var firstDetails = []string{"step", "reasonCode", "reportId"}

func withDetails(doc map[string]any, details map[string]string) map[string]any {
	if clean := cleanDetails(details); len(clean) > 0 {
		doc["statusDetails"] = clean
	}
	return doc
}

// cleanDetails makes details fit for AWS IoT, which rejects an update over a
// single bad one: names of [a-zA-Z0-9:_-]{1,128}, values of [^\p{C}]+ and at
// most 1,024 bytes, 10 pairs.
func cleanDetails(details map[string]string) map[string]string {
	names := slices.SortedFunc(maps.Keys(details), func(a, b string) int {
		return cmp.Or(cmp.Compare(detailRank(a), detailRank(b)), cmp.Compare(a, b))
	})
	clean := make(map[string]string)
	for _, name := range names {
		value := cleanValue(details[name])
		name = cleanName(name)
		if name == "" || value == "" || len(clean) == maxDetails {
			continue
		}
		if _, taken := clean[name]; !taken {
			clean[name] = value
		}
	}
	return clean
}

func detailRank(name string) int {
	if i := slices.Index(firstDetails, name); i >= 0 {
		return i
	}
	return len(firstDetails)
}

func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == ':' || strings.ContainsRune(nameCharacters, r) {
			return r
		}
		return '_'
	}, name)
	return name[:min(len(name), maxDetailName)]
}

// cleanValue keeps the characters that are a letter, mark, number, punctuation,
// symbol or space; what separates lines becomes a space.
func cleanValue(value string) string {
	value = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S):
			return r
		}
		return -1
	}, value)
	value = strings.TrimSpace(value)
	if len(value) > maxDetailValue {
		value = strings.ToValidUTF8(value[:maxDetailValue], "")
	}
	return value
}
