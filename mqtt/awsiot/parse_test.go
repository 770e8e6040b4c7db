package awsiot

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func FuzzJob(f *testing.F) {
	for _, reply := range []string{
		`{"execution":{"jobId":"j1","thingName":"gw","status":"QUEUED","statusDetails":{"a":"b"},"versionNumber":1,"executionNumber":2,"approximateSecondsBeforeTimedOut":3,"jobDocument":"{}"}}`,
		`{"inProgressJobs":[{"jobId":"j1","queuedAt":1e400}],"queuedJobs":[{"jobId":"j2","queuedAt":1700000000000}]}`,
		`{"executionState":{"status":"CANCELED","versionNumber":9223372036854775807}}`, `{"execution":null}`, `[`, "\xff",
	} {
		f.Add([]byte(reply))
	}
	c, err := New(nil, "gw", "r")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		job, err := c.parseJob(reply)
		if err == nil && job != nil && (!validJobID(job.ID) || job.Thing != "gw" || job.TimesOut < 0 || job.TimesOut > 7*24*time.Hour || len(job.Document) > len(reply)*3) {
			t.Errorf("%q: %+v", reply, job)
		}
		ids, err2 := parsePending(reply)
		for _, id := range ids {
			if !validJobID(id) {
				t.Errorf("%q: id %q", reply, id)
			}
		}
		_, err3 := parseExecutionState(reply)
		tooLarge(t, reply, err, err2, err3)
	})
}

func tooLarge(t *testing.T, payload []byte, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err == nil && len(payload) > maxPayload {
			t.Errorf("%d bytes were parsed", len(payload))
		}
		if err != nil && len(err.Error()) > 1024 {
			t.Errorf("error of %d bytes: %.100q", len(err.Error()), err)
		}
	}
}

func FuzzCertificate(f *testing.F) {
	der := []byte{0x30, 0x00}
	block, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	for _, reply := range []string{
		`{"certificateId":"a1","certificatePem":` + string(block) + `,"chainPem":"","certificateOwnershipToken":"t"}`,
		`{"certificateId":"../x","certificatePem":"x"}`, `{"thingName":"gw","deviceConfiguration":{"a":1,"b":"c"}}`, `{}`, "\xff",
	} {
		f.Add([]byte(reply))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		created, err := parseCreated(reply)
		issued, err2 := parseIssued(reply)
		for _, c := range []Certificate{created, issued} {
			if c.ID == "" {
				continue
			}
			if !validName(c.ID) || !bytes.HasPrefix(c.PEM, []byte("-----BEGIN CERTIFICATE-----\n")) {
				t.Errorf("%q: %+v", reply, c)
			}
		}
		thing, _, err3 := parseRegistered(reply)
		if err3 == nil && CheckThingName(thing) != nil {
			t.Errorf("%q: thing %q", reply, thing)
		}
		tooLarge(t, reply, err, err2, err3)
	})
}

func FuzzDesiredCheck(f *testing.F) {
	for _, payload := range []string{
		`{"state":{"check":"a"},"version":2}`, `{"state":{"desired":{"check":"b"},"reported":{"check":"a"}},"version":1}`,
		`{"state":{"check":["a"]}}`, `{"state":{"desired":{"check":"\ud800"},"reported":7}}`, "\xff",
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		delta, err := parseDelta(payload)
		shadow, err2 := parseShadow(payload)
		for _, token := range []string{delta.Token, shadow.Token} {
			if len(token) > maxCheckToken || !utf8.ValidString(token) || token != cleanValue(token) {
				t.Errorf("%q: token %q", payload, token)
			}
		}
		tooLarge(t, payload, err, err2)
	})
}

func FuzzCleanDetails(f *testing.F) {
	f.Add("step", "two\nlines")
	f.Add("ü\x00", "\xff\u200b\u2028")
	f.Fuzz(func(t *testing.T, name, value string) {
		for name, value := range cleanDetails(map[string]string{name: value}) {
			if !validName(string(bytes.ReplaceAll([]byte(name), []byte(":"), []byte("_")))) || value == "" || len(value) > maxDetailValue || !utf8.ValidString(value) {
				t.Errorf("%q: %q", name, value)
			}
			for _, r := range value {
				if unicode.Is(unicode.C, r) {
					t.Errorf("%q has a control character", value)
				}
			}
		}
	})
}

// Whatever the largest payload holds, reading it takes bounded memory.
func TestMemory(t *testing.T) {
	c, err := New(nil, "gw", "r")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(head, each, tail string) []byte {
		return []byte(head + strings.Repeat(each, (maxPayload-len(head)-len(tail))/len(each)) + tail)
	}
	for what, payload := range map[string][]byte{
		"list":      fill(`{"queuedJobs":[`, `{},`, `{}]}`),
		"ids":       fill(`{"queuedJobs":[`, `{"jobId":"a"},`, `{"jobId":"a"}]}`),
		"deep":      fill(`{"execution":{"jobId":"j","jobDocument":`, `[`, ``),
		"details":   fill(`{"execution":{"jobId":"j","statusDetails":{`, `"a":"",`, `"a":""}}}`),
		"number":    fill(`{"execution":{"jobId":"j","versionNumber":`, `9`, `}}`),
		"escapes":   fill(`{"execution":{"jobId":"j","jobDocument":"`, `\u0000`, `"}}`),
		"members":   fill(`{"operation":"keyvet.check",`, `"a":0,`, `"a":0}`),
		"config":    fill(`{"thingName":"a","deviceConfiguration":{`, `"a":1,`, `"a":1}}`),
		"PEM":       fill(`{"certificateId":"a","certificatePem":"`, `-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n`, `","certificateOwnershipToken":"t"}`),
		"half PEM":  fill(`{"certificateId":"a","certificatePem":"`, `-----BEGIN CERTIFICATE-----\n`, `","certificateOwnershipToken":"t"}`),
		"shadow":    fill(`{"state":{"desired":{"check":[`, `0,`, `0]}}}`),
		"not UTF-8": fill(`{"state":"`, "\xff", `"}`),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		_, _ = c.parseJob(payload)
		_, _ = parsePending(payload)
		_, _ = parseExecutionState(payload)
		_, _ = parseCreated(payload)
		_, _ = parseIssued(payload)
		_, _, _ = parseRegistered(payload)
		_, _ = parseDelta(payload)
		_, _ = parseShadow(payload)
		_, _ = ParseOperation(payload)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 || len(payload) < maxPayload/2 {
			t.Errorf("%s: %d bytes of payload took %d bytes of memory", what, len(payload), n)
		}
		if took := time.Since(begin); took > time.Minute { // it takes milliseconds
			t.Errorf("%s: took %v", what, took)
		}
	}
}

// One byte more than AWS IoT sends is not looked at, however good it is.
func TestTooLarge(t *testing.T) {
	c, err := New(nil, "gw", "r")
	if err != nil {
		t.Fatal(err)
	}
	good := `{"thingName":"gw"}`
	for n, large := range map[int]bool{maxPayload: false, maxPayload + 1: true} {
		payload := []byte(good + strings.Repeat(" ", n-len(good)))
		_, job := c.parseJob(payload)
		_, pending := parsePending(payload)
		_, state := parseExecutionState(payload)
		_, _, registered := parseRegistered(payload)
		_, delta := parseDelta(payload)
		_, shadow := parseShadow(payload)
		for i, err := range []error{job, pending, state, registered, delta, shadow} {
			if (err != nil) != large {
				t.Errorf("parser %d of %d bytes: %v", i, n, err)
			}
		}
	}
}
