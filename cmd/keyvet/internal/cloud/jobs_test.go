package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

const (
	checkDocument  = `{"operation":"keyvet.check","version":"1.0"}`
	rotateDocument = `{"operation":"keyvet.rotate","version":"1.0","key":"ecdsa-p384"}`
	wrongDocument  = `{"operation":"keyvet.check","version":"9.0"}`
	othersDocument = `{"operation":"reboot"}`
)

// fakeJobs is the jobs of a thing, as AWS IoT has them.
type fakeJobs struct {
	ids       []string
	pending   error // of the list
	documents map[string]string
	describe  map[string]error // by id
	update    []error          // of each update in turn; then none
	described []string
	updated   []string
	status    device.JobState // that a mismatch shows
	ended     device.JobState // of a job that is pending no more
	taken     []string        // jobs that others ended
}

func (f *fakeJobs) ReportJob(_ context.Context, id string, status device.JobState) error {
	f.taken = append(f.taken, fmt.Sprint(id, " ", status))
	return nil
}

func (f *fakeJobs) PendingJobs(context.Context) ([]string, error) { return f.ids, f.pending }

// nothing waits for its next try.
func nothing(string) bool { return false }

func (f *fakeJobs) DescribeJob(_ context.Context, id string) (*awsiot.Job, error) {
	f.described = append(f.described, id)
	if err := f.describe[id]; err != nil {
		return nil, err
	}
	document, ok := f.documents[id]
	if !ok {
		return nil, nil
	}
	status := device.JobQueued
	if f.ended != "" {
		status = f.ended
	}
	return &awsiot.Job{ID: id, Status: status, Execution: 3, Document: json.RawMessage(document)}, nil
}

func (f *fakeJobs) UpdateJob(_ context.Context, job *awsiot.Job, status device.JobState, details map[string]string) error {
	f.updated = append(f.updated, fmt.Sprint(job.ID, " ", status, " ", details["reasonCode"]))
	if f.status != "" {
		job.Status = f.status
	}
	if len(f.update) == 0 {
		return nil
	}
	err := f.update[0]
	f.update = f.update[1:]
	return err
}

func queueOf(f *fakeJobs) *queue {
	c := &Cloud{Config: *config.Default(), Log: slog.New(slog.DiscardHandler)}
	c.Config.Rotate.Template = "template"
	return &queue{cloud: c, client: f, alarm: newAlarm()}
}

// A job that comes with its notice is answered without another round trip, and one
// of another agent is left alone without its document being read again, not even by a later
// session.
func TestOfferedJob(t *testing.T) {
	f := &fakeJobs{ids: []string{"a", "b"}, documents: map[string]string{"a": checkDocument, "b": othersDocument}}
	q := queueOf(f)
	q.offer(&awsiot.Job{ID: "a", Status: device.JobQueued, Document: json.RawMessage(checkDocument)})
	work, err := q.next(t.Context(), nothing)
	if err != nil || work == nil || work.ID != "a" || len(f.described) > 0 {
		t.Fatalf("%+v, %v, described %v", work, err, f.described)
	}
	if err := work.Do(t.Context(), &done{end: device.JobSucceeded}); err != nil {
		t.Error(err)
	}
	f.ids = []string{"b"}
	q.offer(&awsiot.Job{ID: "a", Status: device.JobQueued, Document: json.RawMessage(checkDocument)}) // a notice that comes late
	for range 2 {
		if work, err := q.next(t.Context(), nothing); work != nil || err != nil {
			t.Errorf("%+v, %v", work, err)
		}
		q = &queue{cloud: q.cloud, client: f, alarm: newAlarm()} // the next session
		q.offer(&awsiot.Job{ID: "b", Status: device.JobQueued, Document: json.RawMessage(othersDocument)})
	}
	if got := strings.Join(f.described, " "); got != "b" || len(f.taken) > 0 {
		t.Errorf("described %s, taken %v", got, f.taken)
	}
}

// A job of keyvet's that another agent ends, before keyvet looks or while it does,
// is told of; one that the operator cancels, or keyvet ended itself, is not.
func TestTakenJob(t *testing.T) {
	for what, tt := range map[string]struct {
		status  device.JobState // by the time that keyvet looks again
		answers error           // of its answer
		want    string
	}{
		"rejected":          {status: device.JobRejected, want: "a REJECTED"},
		"canceled":          {status: device.JobCanceled},
		"upon the answer":   {status: device.JobRejected, answers: awsiot.ErrJobEnded, want: "a REJECTED"},
		"keyvet ended it":   {status: device.JobSucceeded},
		"gone with its job": {want: "a "},
	} {
		f := &fakeJobs{ids: []string{"a"}, documents: map[string]string{"a": checkDocument}}
		q := queueOf(f)
		work, err := q.next(t.Context(), nothing)
		if err != nil || work == nil {
			t.Fatal(work, err)
		}
		if tt.answers != nil || tt.status == device.JobSucceeded {
			f.status = tt.status
			f.update = []error{tt.answers}
			work.Do(t.Context(), &done{end: device.JobSucceeded})
		}
		f.ids = nil
		f.ended = tt.status
		if tt.status == "" {
			f.documents = nil
		}
		for range 2 {
			if work, err := q.next(t.Context(), nothing); work != nil || err != nil {
				t.Errorf("%s: %+v, %v", what, work, err)
			}
		}
		if got := strings.Join(f.taken, ", "); got != tt.want {
			t.Errorf("%s: told of %q, want %q", what, got, tt.want)
		}
	}
}

// A job that another agent ends before keyvet has looked at its notice is told of,
// too, unless it was not keyvet's or keyvet has done it.
func TestMissedJob(t *testing.T) {
	for what, tt := range map[string]struct {
		document string
		ended    bool // by keyvet
		want     string
	}{
		"keyvet's":   {checkDocument, false, "a REJECTED"},
		"done by it": {checkDocument, true, ""},
		"another's":  {`{"operation":"reboot"}`, false, ""},
	} {
		f := &fakeJobs{documents: map[string]string{"a": tt.document}, ended: device.JobRejected}
		q := queueOf(f)
		q.offer(&awsiot.Job{ID: "a", Execution: 1, Document: json.RawMessage(tt.document)})
		q.offer(nil)
		if tt.ended {
			q.cloud.ended = device.Job{ID: "a", Execution: 1}
		}
		for range 2 {
			if work, err := q.next(t.Context(), nothing); work != nil || err != nil {
				t.Errorf("%s: %+v, %v", what, work, err)
			}
		}
		if got := strings.Join(f.taken, ", "); got != tt.want {
			t.Errorf("%s: told of %q, want %q", what, got, tt.want)
		}
	}
}

// The pending jobs are asked for within an hour, whatever notices come.
func TestJobsAreAskedForHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queueOf(&fakeJobs{})
		for range 24 {
			if _, err := q.next(t.Context(), nothing); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-q.alarm.rung
			if took := time.Since(began); took < 50*time.Minute || took > time.Hour {
				t.Errorf("asked again after %v", took)
			}
		}
	})
}

// done is what work had the agent do.
type done struct {
	check  string
	rotate agent.Rotation
	end    device.JobState // that a check is answered with
	err    error           // that its answer gave
}

func (d *done) Check(ctx context.Context, id string, answer agent.Answer) error {
	d.check = id
	d.err = answer(ctx, d.end, nil)
	return d.err
}

func (d *done) Rotate(_ context.Context, r agent.Rotation) error { d.rotate = r; return nil }

func TestNextJob(t *testing.T) {
	odd := errors.New("odd")
	for _, tt := range []struct {
		name      string
		documents map[string]string
		describe  map[string]error
		update    []error
		want      string // operation and id of the work
		passes    bool   // an error that may be gone the next time
		updated   string
		aside     string
	}{
		{name: "a check", documents: map[string]string{"a": checkDocument}, want: "keyvet.check a"},
		{name: "a rotation", documents: map[string]string{"a": rotateDocument}, want: "keyvet.rotate a"},
		{name: "others' first", documents: map[string]string{"a": othersDocument, "b": checkDocument}, want: "keyvet.check b"},
		{name: "over meanwhile", documents: map[string]string{"b": checkDocument}, want: "keyvet.check b"},
		{name: "ended", describe: map[string]error{"a": awsiot.ErrJobEnded}, documents: map[string]string{"b": checkDocument}, want: "keyvet.check b"},
		{name: "cannot be read", describe: map[string]error{"a": odd}, documents: map[string]string{"b": checkDocument}, want: "keyvet.check b", aside: "a"},
		{name: "the session is lost", describe: map[string]error{"a": mqtt.ErrLost}, documents: map[string]string{"b": checkDocument}, passes: true},
		{name: "throttled", describe: map[string]error{"a": awsiot.ErrThrottled}, documents: map[string]string{"b": checkDocument}, passes: true},
		{name: "malformed", documents: map[string]string{"a": wrongDocument, "b": checkDocument}, want: "keyvet.check b", updated: "a REJECTED KEYVET_BAD_JOB_DOCUMENT"},
		{name: "malformed and ended", documents: map[string]string{"a": wrongDocument, "b": checkDocument}, update: []error{awsiot.ErrJobEnded}, want: "keyvet.check b", updated: "a REJECTED KEYVET_BAD_JOB_DOCUMENT"},
		{name: "malformed, throttled", documents: map[string]string{"a": wrongDocument}, update: []error{awsiot.ErrThrottled}, passes: true, updated: "a REJECTED KEYVET_BAD_JOB_DOCUMENT"},
		{name: "malformed, not answered", documents: map[string]string{"a": wrongDocument, "b": checkDocument}, update: []error{odd}, want: "keyvet.check b", updated: "a REJECTED KEYVET_BAD_JOB_DOCUMENT", aside: "a"},
		{name: "none"},
	} {
		f := &fakeJobs{ids: []string{"a", "b"}, documents: tt.documents, describe: tt.describe, update: tt.update}
		q := queueOf(f)
		work, err := q.next(t.Context(), nothing)
		got := ""
		if work != nil {
			got = work.Operation + " " + work.ID
		}
		if got != tt.want || (err != nil) != tt.passes || strings.Join(f.updated, ", ") != tt.updated {
			t.Errorf("%s: %q, %v, updated %q", tt.name, got, err, f.updated)
		}
		if at := q.cloud.aside["a"]; at.IsZero() != (tt.aside == "") || len(q.cloud.aside) > 1 {
			t.Errorf("%s: put aside %v", tt.name, q.cloud.aside)
		}
	}
	if _, err := queueOf(&fakeJobs{pending: odd}).next(t.Context(), nothing); !errors.Is(err, odd) {
		t.Errorf("no list of jobs: %v", err)
	}
}

// A job that waits for its next try holds nothing back.
func TestWaitingJob(t *testing.T) {
	q := queueOf(&fakeJobs{ids: []string{"a", "b"}, documents: map[string]string{"a": checkDocument, "b": checkDocument}})
	work, err := q.next(t.Context(), func(id string) bool { return id == "a" })
	if err != nil || work == nil || work.ID != "b" {
		t.Errorf("%+v, %v", work, err)
	}
}

// Those of others are asked about once, as long as they are pending.
func TestForeignJobs(t *testing.T) {
	f := &fakeJobs{ids: []string{"a"}, documents: map[string]string{"a": othersDocument}}
	q := queueOf(f)
	look := func(want int) {
		t.Helper()
		if work, err := q.next(t.Context(), nothing); work != nil || err != nil || len(f.described) != want {
			t.Errorf("%+v, %v; asked about %q", work, err, f.described)
		}
	}
	look(1)
	look(1)
	f.ids = nil
	look(1)
	f.ids = []string{"a"}
	look(2)
}

// One that was put aside wakes the loop when its time is over; one that is
// pending no more is forgotten.
func TestPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeJobs{ids: []string{"a"}, documents: map[string]string{"a": checkDocument}, describe: map[string]error{"a": errors.New("odd")}}
		q := queueOf(f)
		q.cloud.PutAside("", time.Hour) // of work that is no job
		if work, err := q.next(t.Context(), nothing); work != nil || err != nil || len(q.cloud.aside) != 1 {
			t.Errorf("%v, %v, aside %v", work, err, q.cloud.aside)
		}
		f.describe = nil
		if work, _ := q.next(t.Context(), nothing); work != nil {
			t.Error("it was looked at again at once")
		}
		began := time.Now()
		<-q.alarm.rung
		if d := time.Since(began); d != asidePause {
			t.Errorf("the loop wakes after %s", d)
		}
		time.Sleep(time.Millisecond)
		if work, _ := q.next(t.Context(), nothing); work == nil {
			t.Error("it stays aside")
		}
		q.cloud.PutAside("a", time.Hour)
		f.ids = nil
		if _, err := q.next(t.Context(), nothing); err != nil || len(q.cloud.aside) != 0 {
			t.Errorf("%v, aside %v", err, q.cloud.aside)
		}
	})
}

func TestJobWork(t *testing.T) {
	f := &fakeJobs{ids: []string{"a"}, documents: map[string]string{"a": rotateDocument}}
	q := queueOf(f)
	work, err := q.next(t.Context(), nothing)
	if err != nil || !work.EndsSession {
		t.Fatalf("%+v, %v", work, err)
	}
	var d done
	if err := work.Do(t.Context(), &d); err != nil || d.rotate != (agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: "a", Execution: 3}, Key: "ecdsa-p384"}) {
		t.Errorf("%+v, %v", d, err)
	}

	q.cloud.Config.Rotate.Template = "" // it has no way to a certificate
	work, err = q.next(t.Context(), nothing)
	if err != nil || work.EndsSession {
		t.Fatalf("%+v, %v", work, err)
	}
	if err := work.Do(t.Context(), &d); err != nil || strings.Join(f.updated, ", ") != "a REJECTED KEYVET_NOT_SUPPORTED" {
		t.Errorf("%q, %v", f.updated, err)
	}

	for _, tt := range []struct {
		name   string
		update []error
		want   error
		times  int
		aside  int
	}{
		{"taken", nil, nil, 1, 0},
		{"somebody else was first", []error{awsiot.ErrVersionMismatch}, nil, 2, 0},
		{"and again", []error{awsiot.ErrVersionMismatch, awsiot.ErrVersionMismatch}, awsiot.ErrVersionMismatch, 2, 1},
		{"canceled", []error{awsiot.ErrJobEnded}, awsiot.ErrJobEnded, 1, 0},
		{"lost", []error{mqtt.ErrLost}, mqtt.ErrLost, 1, 0},
		{"odd", []error{errors.ErrUnsupported}, errors.ErrUnsupported, 1, 1},
	} {
		f := &fakeJobs{ids: []string{"a"}, documents: map[string]string{"a": checkDocument}, update: tt.update}
		q := queueOf(f)
		work, err := q.next(t.Context(), nothing)
		if err != nil {
			t.Fatal(err)
		}
		d := done{end: device.JobSucceeded}
		if err := work.Do(t.Context(), &d); !errors.Is(err, tt.want) || d.check != "a" || len(f.updated) != tt.times || len(q.cloud.aside) != tt.aside {
			t.Errorf("%s: %v, %q, aside %v", tt.name, err, f.updated, q.cloud.aside)
		}
	}
	ended := &fakeJobs{update: []error{awsiot.ErrVersionMismatch}, status: device.JobCanceled}
	if err := answerJob(t.Context(), ended, new(awsiot.Job), device.JobSucceeded, nil); !errors.Is(err, awsiot.ErrVersionMismatch) || len(ended.updated) != 1 {
		t.Errorf("a job that somebody else ended: %v, %q", err, ended.updated)
	}
}
