package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// badDocument is a job that the device may not stumble over.
type badDocument struct {
	name     string
	document string
	status   string // that it comes to
	reason   string // in its details, or why it could not be read
}

func badDocuments() []badDocument {
	text := func(document string) string { b, _ := json.Marshal(document); return string(b) } // as AWS IoT sends what is no JSON
	deep := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	check := func(more string) string { return `{"operation":"keyvet.check","version":"1.0"` + more + `}` }
	return []badDocument{
		{"invalid UTF-8 in the version", "{\"operation\":\"keyvet.check\",\"version\":\"\xff\xfe\"}", localiot.Rejected, "version"},
		{"invalid UTF-8 in a name", check(",\"\xff\":1"), localiot.Rejected, "unknown member"},
		{"invalid UTF-8 in the operation", "{\"operation\":\"keyvet.\xc3\x28\",\"version\":\"1.0\"}", localiot.Rejected, "unknown operation"},
		{"control characters", check(`,"\u001b[2J\n\u0000":1`), localiot.Rejected, "unknown member"},
		{"deep", check(`,"x":` + deep(9000)), localiot.Rejected, "unknown member"},
		{"deep, and another's", `{"operation":` + deep(9000) + `}`, localiot.Queued, ""},
		{"too deep", text(check(`,"x":` + deep(15000))), localiot.Rejected, "malformed JSON"},
		{"too deep for the message to be read", check(`,"x":` + deep(15000)), localiot.Queued, "no reply within"},
		{"1 MB", check(`,"x":"` + strings.Repeat("x", 1<<20) + `"`), localiot.Queued, "no reply within"},
		{"100 KB", check(`,"x":"` + strings.Repeat("x", 100<<10) + `"`), localiot.Rejected, "more than 32768"},
		{"100 KB, and another's", `{"operation":"flash","image":"` + strings.Repeat("x", 100<<10) + `"}`, localiot.Queued, ""},
		{"100,000 members", check(strings.Repeat(`,"":0`, 20000)), localiot.Rejected, "more than 32768"},
		{"a list", `["keyvet.check"]`, localiot.Queued, ""},
		{"a string", `"keyvet.check"`, localiot.Queued, ""},
		{"null", `null`, localiot.Queued, ""},
		{"the operation is a number", `{"operation":1,"version":"1.0"}`, localiot.Queued, ""},
		{"the operation is an object", `{"operation":{"name":"keyvet.check"}}`, localiot.Queued, ""},
		{"the version is a number", `{"operation":"keyvet.check","version":1.0}`, localiot.Rejected, "version is not a string"},
		{"the version is null", `{"operation":"keyvet.check","version":null}`, localiot.Rejected, "version is not a string"},
		{"a huge number", check(`,"n":1` + strings.Repeat("0", 20000)), localiot.Rejected, "unknown member"},
		{"a number beyond all", check(`,"n":1e999999999`), localiot.Rejected, "unknown member"},
		{"the operation twice", `{"operation":"reboot","operation":"keyvet.check","version":"1.0"}`, localiot.Rejected, "twice"},
		{"a key that is none", `{"operation":"keyvet.rotate","version":"1.0","key":["rsa-512"]}`, localiot.Rejected, "key is not a string"},
		{"cut off", text(`{"operation":"keyvet.check","version":`), localiot.Rejected, "malformed JSON"},
	}
}

// TestBadInput says to a device that runs what AWS IoT never would. Each is
// answered as it should be, told once, and of no consequence for what follows.
func TestBadInput(t *testing.T) {
	t.Parallel()
	documents := make(map[string]string) // by job id
	w := &world{dir: t.TempDir(), thing: "gw"}
	w.options.Rewrite = func(topic string, payload []byte) []byte { return withDocument(topic, payload, documents) }
	defer w.close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.build(key, ""); err != nil {
		t.Fatal(err)
	}
	bad := badDocuments()
	for i, b := range bad {
		documents[fmt.Sprint("bad-", i)] = b.document
	}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("it said:\n%.20000s", w.log())
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	good := 0
	// works has the device do a check, after what it was told before.
	works := func(after string) {
		t.Helper()
		good++
		id := fmt.Sprint("good-", good)
		if err := w.cloud.CreateJob(localiot.Job{ID: id, Things: []string{"gw"}, Document: json.RawMessage(`{"operation":"keyvet.check","version":"1.0"}`)}); err != nil {
			t.Fatal(err)
		}
		e, err := w.cloud.WaitExecution(ctx, id, "gw", localiot.Execution.Ended)
		if err != nil || e.Status != localiot.Succeeded {
			t.Fatalf("after %s: %+v, %v", after, e, err)
		}
	}
	works("nothing")
	before := highWater(t, w)

	for i, b := range bad {
		id := fmt.Sprint("bad-", i)
		if err := w.cloud.CreateJob(localiot.Job{ID: id, Things: []string{"gw"}, Document: json.RawMessage(`{}`)}); err != nil {
			t.Fatal(err)
		}
		works(b.name)
		e := w.cloud.Executions(id)[0]
		rejected := e.Status == localiot.Rejected
		if e.Status != b.status || rejected && !strings.Contains(e.StatusDetails["reason"], b.reason) || rejected != (e.StatusDetails["reasonCode"] != "") {
			t.Errorf("%s: %s, %v, want %s, %q", b.name, e.Status, e.StatusDetails, b.status, b.reason)
		}
		told, want := linesWith(w.log(), "job="+id+" "), 0
		if b.reason != "" {
			want = 1
		}
		if len(told) != want || want > 0 && !strings.Contains(told[0], b.reason) {
			t.Errorf("%s: told %.300q, want %d of %q", b.name, told, want, b.reason)
		}
	}

	const delta, next, jobGet = "$aws/things/gw/shadow/name/keyvet/update/delta", "$aws/things/gw/jobs/notify-next", "$aws/things/gw/jobs/get/accepted"
	for _, m := range []struct {
		name, topic, payload string
		told                 string // once, though it comes twice
	}{
		{"junk on delta", delta, "\x00\x01\x02 junk", "malformed JSON: invalid character '\\\\x00'"},
		{"invalid UTF-8 on delta", delta, "{\"state\":{\"check\":\"\xff\"},\"version\":1}", `check is \"\\\"\\xff`},
		{"deep JSON on delta", delta, `{"state":` + strings.Repeat(`{"a":`, 11000) + `1` + strings.Repeat(`}`, 11000) + `}`, "'{' exceeded max depth"},
		{"wrong types on delta", delta, `{"state":[1,2]}`, "cannot unmarshal array"},
		{"a token of the wrong type on delta", delta, `{"state":{"check":7}}`, `check is \"7\"`},
		{"a huge token on delta", delta, `{"state":{"check":"` + strings.Repeat("t", 100<<10) + `"}}`, `check is \"\\\"tttt`},
		{"a huge number on delta", delta, `{"state":{"check":"t"},"version":1e999}`, "cannot unmarshal number 1e999"},
		{"a foreign schema on delta", delta, `{"state":{"temperature":{"value":21.5,"unit":"C"},"valves":[true,false]},"metadata":{},"version":3}`, ""},
		{"junk on notify-next", next, "\xff\xfe junk", "a notice of a job makes no sense\" reason=\"malformed JSON: invalid character 'ÿ'"},
		{"deep JSON on notify-next", next, strings.Repeat(`[`, 60000), "a notice of a job makes no sense\" reason=\"malformed JSON: invalid character '['"},
		{"a reply nobody asked for", jobGet, `{"clientToken":"x","inProgressJobs":[{"jobId":"../../etc/passwd"}]}`, ""},
		{"1 MB on delta", delta, `{"state":{"check":"` + strings.Repeat("t", 1<<20) + `"}}`, delta + " bytes=10"},
		{"1 MB on notify-next", next, strings.Repeat("x", 1<<20), next + " bytes=10"},
	} {
		lines := strings.Count(w.log(), "\n")
		for range 2 {
			w.cloud.Say(m.topic, []byte(m.payload))
		}
		works(m.name)
		log := w.log()
		if n := strings.Count(log, m.told); m.told != "" && n != 1 {
			t.Errorf("%s: told %d times", m.name, n)
		}
		if m.told == "" {
			for _, line := range strings.Split(log, "\n")[lines:] {
				if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
					t.Errorf("%s: told, of no need: %.200s", m.name, line)
				}
			}
		}
	}

	// A shadow that is another program's, but for one wish that makes no sense.
	if err := w.cloud.UpdateShadow("gw", "keyvet", []byte(`{"state":{"desired":{"check":{"not":"a token"},"schema":"other/2","list":[1,2,[3]]}}}`)); err != nil {
		t.Fatal(err)
	}
	works("a foreign shadow")
	if err := w.cloud.UpdateShadow("gw", "keyvet", []byte(`{"state":{"desired":{"check":"token-9"}}}`)); err != nil {
		t.Fatal(err)
	}
	if err := w.cloud.WaitShadow(ctx, "gw", "keyvet", func(state []byte) bool { return shadowReports(state, []string{"check=token-9"}) }); err != nil {
		t.Error(err)
	}

	after := highWater(t, w)
	t.Logf("at most %d KiB of memory before, %d KiB after", before, after)
	if after-before > maxGrowth {
		t.Errorf("it has taken %d KiB more, over %d", after-before, maxGrowth)
	}
	if n := strings.Count(w.log(), "msg=vetted"); n > good+3 {
		t.Errorf("%d self-checks for %d jobs", n, good)
	}
	if strings.Contains(w.log(), "connection lost") {
		t.Error("a bad message cost the session")
	}
}

func linesWith(log, words string) []string {
	return slices.DeleteFunc(strings.Split(log, "\n"), func(line string) bool { return !strings.Contains(line, words) })
}

// maxGrowth bounds what bad input may cost of memory, in KiB.
const maxGrowth = 24 << 10

// highWater is the most memory that the program has had, in KiB.
func highWater(t *testing.T, w *world) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(b, []byte("VmHWM:"))
	n, err := strconv.Atoi(string(bytes.Fields(after)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// withDocument puts the document of a job, byte by byte, into the description of it.
func withDocument(topic string, payload []byte, documents map[string]string) []byte {
	for id, document := range documents {
		if strings.HasSuffix(topic, "/jobs/"+id+"/get/accepted") || strings.HasSuffix(topic, "/jobs/notify-next") && bytes.Contains(payload, []byte(`"jobId":"`+id+`"`)) {
			return bytes.Replace(payload, []byte(`"jobDocument":{}`), []byte(`"jobDocument":`+document), 1)
		}
	}
	return payload
}
