package rotate_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/rotate"
)

func journalOn(content string) rotate.File {
	disk := durabletest.New()
	f := rotate.File{Path: "/rotation.json", Disk: durable.Disk{FS: disk}}
	if err := disk.Create(f.Path, []byte(content), 0o600); err != nil {
		panic(err)
	}
	return f
}

const underWay = `{"schema":"keyvet.rotation/1","rotation":{"trigger":"job","job":{"id":"j","execution":2},"key":"ecdsa-p256","step":"try","started":"2026-01-01T00:00:00Z",
"old":{"id":"first"},"new":{"id":"r1","certificateId":"c1"}}}`

func TestJournal(t *testing.T) {
	f := rotate.File{Path: "/rotation.json", Disk: durable.Disk{FS: durabletest.New()}}
	s, err := f.Load()
	if err != nil || s.Rotation != nil || s.Ended != nil {
		t.Fatalf("before the first rotation: %+v, %v", s, err)
	}
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	s.Rotation = &rotate.Rotation{
		Request: rotate.Request{Trigger: device.TriggerJob, Job: device.Job{ID: "j", Execution: 1 << 40}, Key: "ecdsa-p384"},
		Step:    "enrol", Back: true, Started: at, Attempts: 2, Refused: 1, Token: "t", Activating: true, Thing: "g", RetireAt: &at,
		Old: rotate.Credential{ID: rotate.Claim}, New: rotate.Credential{ID: "r1", CertificateID: "c", Serial: "ff", NotAfter: &at, SPKISHA256: "00"},
		Reason: rotate.ReasonDiskFull, Message: "full",
	}
	s.Ended = []rotate.Outcome{{Job: device.Job{ID: "i"}, Status: device.JobSucceeded, Old: "a", New: "b", Time: at}}
	must(t, f.Save(s))
	if again, err := f.Load(); err != nil || !reflect.DeepEqual(again, s) {
		t.Errorf("read %+v\nof %+v: %v", again, s, err)
	}
	s.Rotation.Step = "dance"
	if f.Save(s) == nil {
		t.Error("what cannot be read again was written")
	}
	s.Rotation.Step, s.Rotation.Token = "try", strings.Repeat("x", 1<<16)
	if f.Save(s) == nil {
		t.Error("what is too long to be read again was written")
	}
}

// TestJournalUnreadable stops everything and changes nothing.
func TestJournalUnreadable(t *testing.T) {
	if _, err := journalOn(underWay).Load(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":             "",
		"cut":               underWay[:len(underWay)/2],
		"zeros":             string(make([]byte, 300)),
		"other version":     strings.Replace(underWay, "rotation/1", "rotation/2", 1),
		"no version":        `{}`,
		"unknown field":     strings.Replace(underWay, `"step"`, `"bonus":1,"step"`, 1),
		"unknown step":      strings.Replace(underWay, `"try"`, `"dance"`, 1),
		"no step":           strings.Replace(underWay, `"try"`, `""`, 1),
		"path as an id":     strings.Replace(underWay, `"r1"`, `"../r1"`, 1),
		"path as the old":   strings.Replace(underWay, `"first"`, `"/etc"`, 1),
		"one credential":    strings.Replace(underWay, `"r1"`, `"first"`, 1),
		"no way at all":     strings.Replace(underWay, `"step"`, `"back":true,"final":true,"step"`, 1),
		"retired too early": strings.Replace(underWay, `"try"`, `"retire"`, 1),
		"retired for none":  strings.Replace(underWay, `"try"`, `"retire","final":true`, 1),
		"two documents":     underWay + underWay,
		"other outcome":     `{"schema":"keyvet.rotation/1","ended":[{"status":"PERHAPS","time":"2026-01-01T00:00:00Z"}]}`,
		"many outcomes":     `{"schema":"keyvet.rotation/1","ended":[` + strings.Repeat(`{"status":"FAILED","time":"2026-01-01T00:00:00Z"},`, 8) + `{"status":"FAILED","time":"2026-01-01T00:00:00Z"}]}`,
		"path that leaves":  `{"schema":"keyvet.rotation/1","leaving":[{"id":"../a","at":"2026-01-01T00:00:00Z"}]}`,
		"many that leave":   `{"schema":"keyvet.rotation/1","leaving":[` + strings.Repeat(`{"id":"b","at":"2026-01-01T00:00:00Z"},`, 8) + `{"id":"b","at":"2026-01-01T00:00:00Z"}]}`,
		"huge":              underWay + strings.Repeat(" ", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			must(t, b.disk.Create(rotate.JournalPath(stateDir), []byte(content), 0o600))
			before := b.disk.String()
			_, err := b.engine.Resume(t.Context())
			b.expect(err, rotate.ReasonJournalUnreadable)
			o, err := b.engine.Run(t.Context(), byJob)
			b.expect(err, rotate.ReasonJournalUnreadable)
			if o.Reason != rotate.ReasonJournalUnreadable || b.jobs["job1"] != device.JobFailed || b.details["job1"]["reasonCode"] != rotate.ReasonJournalUnreadable {
				t.Errorf("%+v, job %s %v", o, b.jobs["job1"], b.details["job1"])
			}
			if b.disk.String() != before {
				t.Errorf("something was changed:\n%s", b.disk)
			}
		})
	}
}

func TestEndedIsBounded(t *testing.T) {
	b := newBench(t)
	for i := range 12 {
		b.script["create"] = []answer{{rotate.ErrRejected, false}}
		_, err := b.engine.Run(t.Context(), rotate.Request{Key: "ecdsa-p256"})
		b.expect(err, rotate.ReasonCreateRejected)
		s, err := b.engine.Journal.Load()
		if err != nil || len(s.Ended) != min(i+1, 8) {
			t.Fatalf("%d outcomes: %v", len(s.Ended), err)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(underWay))
	f.Add([]byte(`{"schema":"keyvet.rotation/1","rotation":{"key":"ecdsa-p256","step":"retire","final":true,"started":"2026-01-01T00:00:00Z","retireAt":"2026-01-01T00:00:00Z",
"old":{"id":"first"},"new":{"id":"a"}},"ended":[{"status":"SUCCEEDED","time":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"schema":"keyvet.rotation/1","ended":[{"status":"FAILED","time":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"schema":"keyvet.rotation/1","leaving":[{"id":"a","at":"2026-01-01T00:00:00Z"},{"id":".claim","at":"2026-01-01T00:00:00Z","tries":3,"why":"no"}],"byJob":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		journal := journalOn(string(content))
		s, err := journal.Load()
		if err != nil {
			return
		}
		if err := journal.Save(s); err != nil && len(content) < 8<<10 {
			t.Fatalf("read but not written: %v", err)
		}
		// Whatever it says, the engine comes back, and an unreadable
		// credential is never in use.
		b := newBench(t)
		must(t, b.disk.Create(rotate.JournalPath(stateDir), content, 0o600))
		for range 3 {
			if _, err := b.engine.Resume(t.Context()); errors.Is(err, rotate.ErrNothing) {
				break
			}
		}
		current, err := b.engine.Store.Current()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := usable(b.world, b.engine.Store, current); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzChain(f *testing.F) {
	w := newWorld()
	key, err := open(pool()[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w.issue(key.Public(), thing).PEM)
	f.Fuzz(func(t *testing.T, chain []byte) {
		if all, _, err := rotate.ParseChain(chain); err == nil && (len(all) == 0 || all[0] == nil) {
			t.Fatal("no certificate and no error")
		}
	})
}
