package awsiot_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

const jobs = "$aws/things/" + thing + "/jobs/"

func TestDescribeJob(t *testing.T) {
	var reply answer
	s, c := dialScript(t, func(request) answer { return reply })
	check := `{"operation":"keyvet.check","version":"1.0"}`
	for _, tt := range []struct {
		id    string
		reply answer
		want  *awsiot.Job
		err   string // "" is none
	}{
		{"$next", accept(`{"timestamp":1}`), nil, ""},
		{"$next", accept(`{"execution":{}}`), nil, ""},
		{"$next", accept(`{"execution":null}`), nil, ""},
		{"j1", reject(`{"code":"ResourceNotFound","message":"none"}`), nil, ""},
		{"$next", accept(`{"execution":{"jobId":"j1","thingName":"gateway-0042","status":"IN_PROGRESS","statusDetails":{"step":"make"},"queuedAt":1700000000,
			"approximateSecondsBeforeTimedOut":90,"versionNumber":3,"executionNumber":2,"jobDocument":%s}}`, check),
			&awsiot.Job{ID: "j1", Thing: thing, Status: device.JobInProgress, Version: 3, Execution: 2, Document: json.RawMessage(check),
				Details: map[string]string{"step": "make"}, TimesOut: 90 * time.Second}, ""},
		{"j1", accept(`{"execution":{"jobId":"j1","status":"QUEUED","versionNumber":0,"queuedAt":1700000000123,"jobDocument":%q}}`, check),
			&awsiot.Job{ID: "j1", Thing: thing, Status: device.JobQueued, Document: json.RawMessage(check)}, ""},
		{"j1", accept(`{"execution":{"jobId":"j1","approximateSecondsBeforeTimedOut":-5}}`), &awsiot.Job{ID: "j1", Thing: thing, TimesOut: time.Second}, ""},
		{"j1", accept(`{"execution":{"jobId":"j1","approximateSecondsBeforeTimedOut":9223372036854775807}}`),
			&awsiot.Job{ID: "j1", Thing: thing, TimesOut: 7 * 24 * time.Hour}, ""},
		{"j1", accept(`{"execution":{"jobId":"j1","jobDocument":"no JSON"}}`), &awsiot.Job{ID: "j1", Thing: thing, Document: json.RawMessage("no JSON")}, ""},

		{"j1", accept(`{"execution":{"jobId":"j2"}}`), nil, "the reply is on job j2"},
		{"$next", accept(`{"execution":{"jobId":"../x"}}`), nil, `"../x" is no job id`},
		{"$next", accept(`{"execution":{"jobId":"%s"}}`, strings.Repeat("x", 65)), nil, "is no job id"},
		{"$next", accept(`{"execution":{"jobId":"j1","thingName":"another"}}`), nil, "of another thing"},
		{"$next", accept(`{"execution":{"jobId":7}}`), nil, "malformed JSON"},
		{"$next", accept(`{"execution":{"jobId":"j1","versionNumber":1e400}}`), nil, "malformed JSON"},
		{"$next", accept(`{"execution":{"jobId":"j1","versionNumber":99999999999999999999}}`), nil, "malformed JSON"},
		{"$next", accept(`{"execution":{"jobId":"j1","statusDetails":["x"]}}`), nil, "malformed JSON"},
		{"$next", accept(`{"execution":[]}`), nil, "malformed JSON"},
		{"$next", accept(`{"execution":{"jobDocument":%s}}`, strings.Repeat("[", 11000)+strings.Repeat("]", 11000)), nil, "no reply within"}, // its token cannot be read either
		{"$next", reject(`{"code":"InvalidJson","message":"bad"}`), nil, "rejected: InvalidJson: bad"},
		{"j1", reject(`{"code":"TerminalStateReached","message":"over"}`), nil, "the job has ended"},
		{"a/b", answer{}, nil, `"a/b" is no job id`},
		{"+", answer{}, nil, `"+" is no job id`},
		{"", answer{}, nil, `"" is no job id`},
	} {
		reply = tt.reply
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if strings.HasPrefix(tt.err, "no reply") { // the session's own timeout is longer
			tt.err = "deadline"
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		got, err := c.DescribeJob(ctx, tt.id)
		cancel()
		if tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s, %+v: %v, want %q", tt.id, tt.reply, err, tt.err)
		}
		if !equalJobs(got, tt.want) {
			t.Errorf("%s, %+v: %+v, want %+v", tt.id, tt.reply, got, tt.want)
		}
	}
	if err := func() error {
		reply = reject(`{"code":"TerminalStateReached"}`)
		_, err := c.DescribeJob(t.Context(), "j1")
		return err
	}(); !errors.Is(err, awsiot.ErrJobEnded) {
		t.Error(err)
	}
	// However many jobs there were, the subscriptions are those of one.
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.filters) != 2 {
		t.Errorf("subscribed to %q", s.filters)
	}
}

func equalJobs(a, b *awsiot.Job) bool {
	if a == nil || b == nil {
		return a == b
	}
	return fmt.Sprintf("%+v", *a) == fmt.Sprintf("%+v", *b)
}

// Details are made fit for AWS IoT, which takes no control characters.
func TestUpdateCleansDetails(t *testing.T) {
	s, c := dialScript(t, func(request) answer { return accept(`{"executionState":{"status":"IN_PROGRESS","versionNumber":2}}`) })
	job := &awsiot.Job{ID: "j1", Version: 1}
	if err := c.UpdateJob(t.Context(), job, device.JobInProgress, map[string]string{"step": "vet\nting"}); err != nil || job.Version != 2 {
		t.Errorf("%+v, %v", job, err)
	}
	if r := s.requests()[0]; fmt.Sprint(r.doc["statusDetails"]) != "map[step:vet ting]" {
		t.Errorf("%s %s", r.topic, r.raw)
	}
}

func TestPendingJobs(t *testing.T) {
	var reply answer
	_, c := dialScript(t, func(request) answer { return reply })
	for _, tt := range []struct {
		reply answer
		want  string
		err   string
	}{
		{accept(`{"inProgressJobs":[],"queuedJobs":[]}`), "", ""},
		{accept(`{}`), "", ""},
		// Seconds and milliseconds, which mean 1,700,000,001 s and 1,700,000,000 s.
		{accept(`{"inProgressJobs":[{"jobId":"p2","queuedAt":1700000001},{"jobId":"p1","queuedAt":1700000000000}],"queuedJobs":[{"jobId":"q1","queuedAt":1},{"jobId":"q2","queuedAt":2}]}`), "p1 p2 q1 q2", ""},
		{accept(`{"queuedJobs":[{"jobId":"a","queuedAt":"x"},{"jobId":"b"},{"jobId":"c","queuedAt":-1}]}`), "a b c", ""},
		{accept(`{"queuedJobs":[{"jobId":"a b"}]}`), "", "no job id"},
		{accept(`{"queuedJobs":{}}`), "", "malformed JSON"},
		{reject(`{"code":"InternalError"}`), "", "InternalError"},
	} {
		reply = tt.reply
		got, err := c.PendingJobs(t.Context())
		if strings.Join(got, " ") != tt.want || tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %q, %v", tt.reply, got, err)
		}
	}
}

func TestUpdateJob(t *testing.T) {
	var reply answer
	s, c := dialScript(t, func(request) answer { return reply })
	details := map[string]string{"step": "make"}
	for _, tt := range []struct {
		name    string
		reply   answer
		err     error // to be found in it; nil with text "" is success
		text    string
		status  device.JobState
		version int64
	}{
		{"told", accept(`{"executionState":{"status":"SUCCEEDED","versionNumber":5}}`), nil, "", "SUCCEEDED", 5},
		{"not told", accept(`{}`), nil, "", "SUCCEEDED", 4},
		{"updated by another", reject(`{"code":"VersionMismatch","message":"no","executionState":{"status":"IN_PROGRESS","versionNumber":9}}`),
			awsiot.ErrVersionMismatch, "", "IN_PROGRESS", 9},
		{"without a state", reject(`{"code":"VersionMismatch"}`), awsiot.ErrVersionMismatch, "", "IN_PROGRESS", 3},
		{"cancelled", reject(`{"code":"VersionMismatch","executionState":{"status":"CANCELED","versionNumber":4}}`), awsiot.ErrJobEnded, "", "CANCELED", 4},
		{"timed out", reject(`{"code":"InvalidStateTransition","executionState":{"status":"TIMED_OUT","versionNumber":4}}`), awsiot.ErrJobEnded, "", "TIMED_OUT", 4},
		{"over", reject(`{"code":"TerminalStateReached"}`), awsiot.ErrJobEnded, "", "IN_PROGRESS", 3},
		{"over, without a state", reject(`{"code":"InvalidStateTransition"}`), awsiot.ErrJobEnded, "", "IN_PROGRESS", 3},
		{"not to be had", reject(`{"code":"InvalidStateTransition","executionState":{"status":"QUEUED","versionNumber":4}}`), nil, "InvalidStateTransition", "QUEUED", 4},
		{"our own, whose reply was lost", reject(`{"code":"VersionMismatch","executionState":{"status":"SUCCEEDED","statusDetails":{"step":"make"},"versionNumber":4}}`),
			nil, "", "SUCCEEDED", 4},
		{"the same of another", reject(`{"code":"InvalidStateTransition","executionState":{"status":"SUCCEEDED","statusDetails":{"step":"x"},"versionNumber":4}}`),
			awsiot.ErrJobEnded, "", "SUCCEEDED", 4},
		{"other rejection", reject(`{"code":"InvalidRequest","message":"why"}`), nil, "InvalidRequest: why", "IN_PROGRESS", 3},
		{"malformed", accept(`{"executionState":7}`), nil, "malformed JSON", "IN_PROGRESS", 3},
	} {
		reply = tt.reply
		job := &awsiot.Job{ID: "j1", Status: device.JobInProgress, Version: 3, Execution: 2}
		err := c.UpdateJob(t.Context(), job, device.JobSucceeded, details)
		good := err == nil
		if tt.err != nil || tt.text != "" {
			good = err != nil && strings.Contains(err.Error(), tt.text) && (tt.err == nil || errors.Is(err, tt.err)) &&
				(tt.err == awsiot.ErrJobEnded) == errors.Is(err, awsiot.ErrJobEnded)
		}
		if !good {
			t.Errorf("%s: %v", tt.name, err)
		}
		if job.Status != tt.status || job.Version != tt.version {
			t.Errorf("%s: %+v", tt.name, job)
		}
		all := s.requests()
		r := all[len(all)-1]
		if r.topic != jobs+"j1/update" || r.doc["status"] != "SUCCEEDED" || r.doc["expectedVersion"] != 3.0 || r.doc["executionNumber"] != 2.0 ||
			fmt.Sprint(r.doc["statusDetails"]) != "map[step:make]" {
			t.Errorf("%s: %s %s", tt.name, r.topic, r.raw)
		}
	}
	if err := c.UpdateJob(t.Context(), &awsiot.Job{ID: "a/b"}, device.JobFailed, nil); err == nil {
		t.Error("a job id that is none was put in a topic")
	}
}

func TestCleanDetails(t *testing.T) {
	s, c := dialScript(t, func(request) answer { return accept("{}") })
	many := map[string]string{"step": "s", "reasonCode": "r", "reportId": "i"}
	for i := range 20 {
		many[fmt.Sprintf("a%02d", i)] = "x"
	}
	for _, tt := range []struct{ in, want map[string]string }{
		{nil, nil},
		{map[string]string{"a": ""}, nil},
		{map[string]string{"a": "\n\x00\u200b\ue000"}, nil},
		{map[string]string{"a": "two\r\nlines\ttab \u2028 \u200bwide\x7f\xff"}, map[string]string{"a": "two  lines tab   wide\ufffd"}},
		{map[string]string{"a": "grüße 日本 €1 ©"}, map[string]string{"a": "grüße 日本 €1 ©"}},
		{map[string]string{"a b/c:d": "x", "": "y"}, map[string]string{"a_b_c:d": "x"}},
		{map[string]string{strings.Repeat("n", 200): strings.Repeat("é", 600)}, map[string]string{strings.Repeat("n", 128): strings.Repeat("é", 512)}},
		{many, map[string]string{"step": "s", "reasonCode": "r", "reportId": "i", "a00": "x", "a01": "x", "a02": "x", "a03": "x", "a04": "x", "a05": "x", "a06": "x"}},
	} {
		job := &awsiot.Job{ID: "j1"}
		if err := c.UpdateJob(t.Context(), job, device.JobInProgress, tt.in); err != nil {
			t.Error(err)
		}
		all := s.requests()
		got := make(map[string]string)
		sent, _ := all[len(all)-1].doc["statusDetails"].(map[string]any)
		for name, value := range sent {
			got[name] = value.(string)
		}
		if !maps.Equal(got, tt.want) || !maps.Equal(job.Details, tt.want) {
			t.Errorf("%.80q: sent %.80q, job has %.80q", tt.in, got, job.Details)
		}
	}
}

func TestOnJobs(t *testing.T) {
	s, c := dialScript(t, nil)
	looks := make(chan bool, 10)
	if err := c.OnJobs(t.Context(), func(*awsiot.Job) { looks <- true }); err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{`{"execution":{"jobId":"j1"}}`, `{"timestamp":1}`, "", "\xff"} {
		for _, notice := range []string{"notify-next", "notify"} {
			s.send(jobs+notice, payload)
			<-looks
		}
	}
}

// A throttled request is sent again, and no longer than its deadline allows.
func TestThrottled(t *testing.T) {
	left := 1
	s, c := dialScript(t, func(r request) answer {
		if left--; left >= 0 {
			return reject(`{"code":"RequestThrottled","message":"slow down"}`)
		}
		return accept(`{}`)
	})
	if job, err := c.DescribeJob(t.Context(), awsiot.NextJob); job != nil || err != nil || len(s.requests()) != 2 {
		t.Errorf("%+v, %v after %d requests", job, err, len(s.requests()))
	}
	left = 100
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var rejected *awsiot.Rejected
	// The deadline may also pass while a request is on its way, whose answer nobody knows then.
	err := c.UpdateJob(ctx, &awsiot.Job{ID: "j1"}, device.JobFailed, nil)
	if told := errors.Is(err, awsiot.ErrThrottled) && errors.As(err, &rejected); !told && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if left <= 0 {
		t.Error("the deadline did not end it")
	}
}

func TestEnded(t *testing.T) {
	var ended []device.JobState
	for _, s := range []device.JobState{"", "QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED", "NEW"} {
		if s.Ended() {
			ended = append(ended, s)
		}
	}
	if !slices.Equal(ended, []device.JobState{"SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED"}) {
		t.Errorf("ended: %s", ended)
	}
}
