package localiot_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

func createJob(t *testing.T, s *localiot.Server, id string, things ...string) {
	t.Helper()
	if err := s.CreateJob(localiot.Job{ID: id, Things: things, Document: json.RawMessage(`{"operation":"keyvet.check","version":"1.0"}`)}); err != nil {
		t.Fatal(err)
	}
}

// job asks one operation of Jobs and returns what came on accepted or rejected.
func (d *device) job(operation, payload string) (accepted, rejected map[string]any) {
	d.t.Helper()
	r := d.request("$aws/things/gw/jobs/"+operation, payload, 1)
	return r["accepted"], r["rejected"]
}

func execution(t *testing.T, answer map[string]any) map[string]any {
	t.Helper()
	e, ok := answer["execution"].(map[string]any)
	if !ok {
		t.Fatalf("no execution in %v", answer)
	}
	return e
}

func TestJobQueue(t *testing.T) {
	s := start(t)
	createJob(t, s, "first", "gw", "gw2")
	createJob(t, s, "second", "gw")
	d := dial(t, s, "gw")
	a, _ := d.job("get", `{"clientToken":"c"}`)
	if queued := a["queuedJobs"].([]any); len(queued) != 2 || queued[0].(map[string]any)["jobId"] != "first" || len(a["inProgressJobs"].([]any)) != 0 || a["clientToken"] != "c" {
		t.Errorf("get: %v", a)
	}
	a, _ = d.job("second/update", `{"status":"IN_PROGRESS","statusDetails":{"step":"1"},"expectedVersion":1,"includeJobExecutionState":true,"includeJobDocument":true}`)
	if state := a["executionState"].(map[string]any); state["status"] != "IN_PROGRESS" || state["versionNumber"] != 2.0 || state["statusDetails"].(map[string]any)["step"] != "1" ||
		a["jobDocument"].(map[string]any)["operation"] != "keyvet.check" {
		t.Errorf("update: %v", a)
	}
	a, _ = d.job("$next/get", `{}`)
	if e := execution(t, a); e["jobId"] != "second" || e["status"] != "IN_PROGRESS" || e["thingName"] != "gw" || e["executionNumber"] != 1.0 || e["startedAt"] == nil {
		t.Errorf("in progress is not first: %v", e)
	}
	a, _ = d.job("start-next", `{"statusDetails":{"step":"2"}}`)
	if e := execution(t, a); e["jobId"] != "second" || e["versionNumber"] != 2.0 || e["statusDetails"].(map[string]any)["step"] != "1" {
		t.Errorf("starting what is in progress changed it: %v", e)
	}
	d.job("second/update", `{"status":"SUCCEEDED"}`)
	a, _ = d.job("start-next", `{"statusDetails":{"step":"3"},"stepTimeoutInMinutes":5}`)
	if e := execution(t, a); e["jobId"] != "first" || e["status"] != "IN_PROGRESS" || e["versionNumber"] != 2.0 || e["approximateSecondsBeforeTimedOut"].(float64) < 290 {
		t.Errorf("start-next: %v", e)
	}
	a, _ = d.job("first/update", `{"status":"IN_PROGRESS","stepTimeoutInMinutes":-1}`)
	if len(a) != 1 {
		t.Errorf("more than was asked for: %v", a)
	}
	a, _ = d.job("first/get", `{"includeJobDocument":false}`)
	if e := execution(t, a); e["approximateSecondsBeforeTimedOut"] != nil || e["jobDocument"] != nil || e["versionNumber"] != 3.0 {
		t.Errorf("get: %v", e)
	}
	d.job("first/update", `{"status":"REJECTED","statusDetails":{"reason":"none"}}`)
	if a, _ = d.job("$next/get", ``); a["execution"] != nil {
		t.Errorf("an execution where nothing is pending: %v", a)
	}
	var got []string
	for _, e := range s.Executions("") {
		got = append(got, fmt.Sprint(e.Job, " ", e.Thing, " ", e.Status, " ", e.Version))
	}
	if want := "first gw REJECTED 4, first gw2 QUEUED 1, second gw SUCCEEDED 3"; strings.Join(got, ", ") != want {
		t.Errorf("executions %q, want %q", got, want)
	}
}

func TestJobRejections(t *testing.T) {
	s := start(t)
	createJob(t, s, "j", "gw")
	createJob(t, s, "done", "gw")
	d := dial(t, s, "gw")
	d.job("done/update", `{"status":"SUCCEEDED"}`)
	many := make(map[string]string)
	for i := range 11 {
		many[fmt.Sprint("k", i)] = "v"
	}
	manyJSON, _ := json.Marshal(many)
	for _, tt := range []struct {
		operation, payload, code string
		state                    bool
	}{
		{"j/update", `{"status":"SUCCEEDED","expectedVersion":7}`, "VersionMismatch", true},
		{"done/update", `{"status":"IN_PROGRESS"}`, "InvalidStateTransition", true},
		{"done/get", ``, "TerminalStateReached", false},
		{"none/get", ``, "ResourceNotFound", false},
		{"none/update", `{"status":"FAILED"}`, "ResourceNotFound", false},
		{"j/get", `{"executionNumber":2}`, "ResourceNotFound", false},
		{"j/update", `{}`, "InvalidRequest", false},
		{"j/update", `{"status":"QUEUED"}`, "InvalidRequest", false},
		{"j/update", `{"status":"TIMED_OUT"}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","stepTimeoutInMinutes":0}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","stepTimeoutInMinutes":10081}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":` + string(manyJSON) + `}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":{"a b":"v"}}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":{"a":""}}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":{"a":"two\nlines"}}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":{"a":"` + strings.Repeat("x", 1025) + `"}}`, "InvalidRequest", false},
		{"j/update", `{"status":"FAILED","statusDetails":{"a":1}}`, "InvalidJson", false},
		{"j/update", `{"status":"FAILED","expectedVersion":1e99}`, "InvalidJson", false},
		{"j/update", `{"status":"FAILED"`, "InvalidJson", false},
		{"get", `{"clientToken":"` + strings.Repeat("x", 65) + `"}`, "InvalidRequest", false},
		{"$next/update", `{"status":"FAILED"}`, "InvalidTopic", false},
		{"j/delete", `{}`, "InvalidTopic", false},
	} {
		_, r := d.job(tt.operation, tt.payload)
		if r["code"] != tt.code || r["message"] == "" || r["timestamp"] == nil || (r["executionState"] != nil) != tt.state {
			t.Errorf("%s %.80s: %v, want %s", tt.operation, tt.payload, r, tt.code)
		}
	}
	if e := s.Executions("j")[0]; e.Version != 1 || e.Status != localiot.Queued {
		t.Errorf("a rejected request changed the job: %+v", e)
	}
}

func TestJobNotices(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	prefix := "$aws/things/gw/jobs/"
	d.write(subscribe(prefix+"notify", prefix+"notify-next"))
	d.read()
	// next reads the two messages of one change.
	next := func(n int) map[string]map[string]any {
		t.Helper()
		got := make(map[string]map[string]any)
		for range n {
			m := d.read().(*packets.PublishPacket)
			var doc map[string]any
			json.Unmarshal(m.Payload, &doc)
			got[strings.TrimPrefix(m.TopicName, prefix)] = doc
		}
		return got
	}
	createJob(t, s, "a", "gw")
	m := next(2)
	if len(m["notify"]["jobs"].(map[string]any)["QUEUED"].([]any)) != 1 || execution(t, m["notify-next"])["jobDocument"] == nil {
		t.Errorf("a job: %v", m)
	}
	createJob(t, s, "b", "gw")
	if m := next(1); len(m["notify"]["jobs"].(map[string]any)["QUEUED"].([]any)) != 2 {
		t.Errorf("a second job: %v", m)
	}
	if r := d.request(prefix+"start-next", ``, 2); execution(t, r["accepted"])["jobId"] != "a" {
		t.Errorf("start-next: %v", r)
	}
	if err := s.CancelJob("a", false); err != nil || s.Executions("a")[0].Status != localiot.InProgress {
		t.Errorf("cancelling in progress without force: %v, %+v", err, s.Executions("a"))
	}
	if err := s.CancelJob("a", true); err != nil {
		t.Fatal(err)
	}
	if m := next(2); execution(t, m["notify-next"])["jobId"] != "b" {
		t.Errorf("cancelled: %v", m)
	}
	if err := s.CancelJob("b", false); err != nil {
		t.Fatal(err)
	}
	if m := next(2); m["notify-next"] == nil || m["notify-next"]["execution"] != nil {
		t.Errorf("all cancelled: %v", m)
	}
	createJob(t, s, "c", "gw")
	next(2)
	if err := s.DeleteJob("c"); err != nil {
		t.Fatal(err)
	}
	next(2)
	for _, err := range []error{s.CancelJob("none", false), s.DeleteJob("c"), s.TimeOutJob("c")} {
		if err == nil {
			t.Error("no error for an unknown job")
		}
	}
}

func TestJobRetries(t *testing.T) {
	s := start(t)
	if err := s.CreateJob(localiot.Job{ID: "j", Things: []string{"gw"}, Document: json.RawMessage(`{}`), Retries: 1, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	d := dial(t, s, "gw")
	a, _ := d.job("start-next", ``)
	if left := execution(t, a)["approximateSecondsBeforeTimedOut"].(float64); left < 3500 || left > 3600 {
		t.Errorf("%v s left", left)
	}
	if err := s.TimeOutJob("j"); err != nil {
		t.Fatal(err)
	}
	a, _ = d.job("start-next", ``)
	if e := execution(t, a); e["executionNumber"] != 2.0 || e["versionNumber"] != 2.0 {
		t.Errorf("not queued again: %v", e)
	}
	if _, r := d.job("j/update", `{"status":"SUCCEEDED","executionNumber":1}`); r["code"] != "ResourceNotFound" {
		t.Errorf("the first execution: %v", r)
	}
	d.job("j/update", `{"status":"FAILED"}`)
	if a, _ := d.job("start-next", ``); a["execution"] != nil {
		t.Errorf("queued a third time: %v", a)
	}
	if all := s.Executions("j"); len(all) != 2 || all[0].Status != localiot.TimedOut || all[1].Status != localiot.Failed {
		t.Errorf("%+v", all)
	}
}

// An execution that runs out of time ends by itself, after a restart too.
func TestJobTimesOut(t *testing.T) {
	dir := t.TempDir()
	s, err := localiot.Start(localiot.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	job := func(id string) {
		t.Helper()
		if err := s.CreateJob(localiot.Job{ID: id, Things: []string{"gw"}, Document: json.RawMessage(`{}`), Timeout: 100 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(id string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if e, err := s.WaitExecution(ctx, id, "gw", localiot.Execution.Ended); err != nil || e.Status != localiot.TimedOut {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	job("a")
	d := dial(t, s, "gw")
	d.write(subscribe("$aws/things/gw/jobs/notify-next"))
	d.read()
	d.job("start-next", ``)
	wait("a")
	if m, ok := d.read().(*packets.PublishPacket); !ok || strings.Contains(string(m.Payload), "execution") {
		t.Errorf("%v", m)
	}
	job("b")
	d.read()
	d.job("start-next", ``)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = localiot.Start(localiot.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	wait("b")
}

func TestJobDocuments(t *testing.T) {
	s := start(t)
	if err := s.CreateJob(localiot.Job{ID: "text", Things: []string{"gw"}, Document: json.RawMessage(`{"a":1}`), DocumentAsString: true}); err != nil {
		t.Fatal(err)
	}
	a, _ := dial(t, s, "gw").job("$next/get", ``)
	if document := execution(t, a)["jobDocument"]; document != `{"a":1}` {
		t.Errorf("document %v", document)
	}
	good := localiot.Job{ID: "j", Things: []string{"gw"}, Document: json.RawMessage(`{}`)}
	for what, spoil := range map[string]func(*localiot.Job){
		"id taken":     func(j *localiot.Job) { j.ID = "text" },
		"bad id":       func(j *localiot.Job) { j.ID = "a b" },
		"no thing":     func(j *localiot.Job) { j.Things = nil },
		"bad thing":    func(j *localiot.Job) { j.Things = []string{"a/b"} },
		"no document":  func(j *localiot.Job) { j.Document = nil },
		"no JSON":      func(j *localiot.Job) { j.Document = json.RawMessage(`{`) },
		"too large":    func(j *localiot.Job) { j.Document = json.RawMessage(`"` + strings.Repeat("x", 32768) + `"`) },
		"not spoiled ": nil,
	} {
		j := good
		if spoil != nil {
			spoil(&j)
		}
		if err := s.CreateJob(j); (err != nil) != (spoil != nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWaitExecution(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan localiot.Execution, 1)
	go func() {
		e, err := s.WaitExecution(ctx, "j", "gw", localiot.Execution.Ended)
		if err != nil {
			t.Error(err)
		}
		done <- e
	}()
	createJob(t, s, "j", "gw")
	dial(t, s, "gw").job("j/update", `{"status":"SUCCEEDED","statusDetails":{"a":"b"}}`)
	if e := <-done; e.Status != localiot.Succeeded || e.StatusDetails["a"] != "b" || e.Number != 1 {
		t.Errorf("%+v", e)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.WaitExecution(over, "none", "gw", localiot.Execution.Ended); err == nil {
		t.Error("waited for nothing")
	}
}
