package agent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
)

// refuseFails refuses failing reports, as a broker does that finds them too large.
func refuseFails(r *device.Report) error {
	if r.Verdict() == device.Fail {
		return errors.New("refused")
	}
	return nil
}

// A report that is refused holds no job back, and the shadow shows the gate.
func TestRefusedReportHoldsNothingBack(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		stop := running(t, d)
		d.cloud.got = nil
		tries := 0
		refusing := true
		d.cloud.refuse = func(r *device.Report) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if r.Verdict() == device.Fail {
				tries++
			}
			if !refusing {
				return nil
			}
			return refuseFails(r)
		}
		d.change(func() { d.status = device.Fail })
		challenge := &agent.Work{Operation: "challenge", ID: "c"}
		challenge.Do = func(context.Context, agent.Actions) error {
			d.cloud.got = append(d.cloud.got, "challenged")
			d.cloud.end(challenge)
			return nil
		}
		d.cloud.check("check", challenge)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		// How often it is tried, and the gate said, is up to the jitter.
		want := "check IN_PROGRESS check, gate shut, challenged, gate shut, check FAILED reportKEYVET_REPORT_NOT_ACKNOWLEDGED"
		if got := strings.Join(slices.Compact(slices.Clone(d.cloud.got)), ", "); !strings.HasPrefix(got, want) {
			t.Errorf("the cloud got %s\nwant %s", got, want)
		}
		if d.trusted() || d.spooled(t) != 1 {
			t.Errorf("trusted %v, %d in the spool", d.trusted(), d.spooled(t))
		}
		if s, err := agent.LoadState(d.dir); err != nil || s.Acknowledged || s.Gate != "shut" || s.Undelivered != "refused" || s.Reason != "the verdict is FAIL" {
			t.Errorf("kept: %+v, %v", s, err)
		}
		d.change(func() { tries = 0 })
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if tries < 6 || tries > 15 {
			t.Errorf("tried %d times in six hours", tries)
		}
		d.change(func() { refusing = false })
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if d.spooled(t) != 0 || !strings.HasSuffix(strings.Join(d.cloud.got, ", "), d.ids[1]+" FAIL, gate shut") {
			t.Errorf("%d in the spool, the cloud got %v", d.spooled(t), d.cloud.got)
		}
		stop()
	})
}

// A report over which AWS IoT cuts each session, since the policy does not allow
// its topic, holds no job back either.
func TestSessionLostOverReport(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		var sessions atomic.Int64
		challenged := false
		check := &agent.Work{ID: "check"}
		var answers []string
		var current *cloud
		answer := func(_ context.Context, o device.JobState, details map[string]string) error {
			answers = append(answers, fmt.Sprint(o, details["reasonCode"]))
			if o != device.JobInProgress {
				current.work = nil
			}
			return nil
		}
		check.Do = func(ctx context.Context, do agent.Actions) error { return do.Check(ctx, check.ID, answer) }
		d.device.connect = func(context.Context) (agent.Cloud, error) {
			sessions.Add(1)
			c := newCloud()
			current = c
			c.refuse = func(*device.Report) error {
				select {
				case <-c.done:
				default:
					close(c.done)
				}
				return errors.New("connection lost")
			}
			if n := len(answers); n == 0 || !strings.HasPrefix(answers[n-1], "FAILED") {
				c.work = append(c.work, check)
			} else {
				c.work = append(c.work, &agent.Work{Operation: "challenge", ID: "c", Do: func(context.Context, agent.Actions) error {
					challenged = true
					c.work = nil
					return nil
				}})
			}
			return c, nil
		}
		stop := running(t, d)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if got := strings.Join(answers, ", "); got != "IN_PROGRESS, IN_PROGRESS, FAILEDKEYVET_REPORT_NOT_ACKNOWLEDGED" {
			t.Errorf("the job was answered %s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !challenged || d.trusted() {
			t.Errorf("challenged %v, trusted %v", challenged, d.trusted())
		}
		if n := sessions.Load(); n > 20 {
			t.Errorf("%d sessions", n)
		}
		stop()
	})
}

// A gate that cannot be shut ends the agent, once the cloud has heard of it or
// could not be reached; the failing report is not lost.
func TestStuck(t *testing.T) {
	for _, online := range []bool{true, false} {
		t.Run(fmt.Sprint("online ", online), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, dir, gate.Acknowledged)
				d.Every = time.Hour
				ended := make(chan error)
				go func() { ended <- d.Run(t.Context()) }()
				synctest.Wait()
				if !d.trusted() {
					t.Fatal("not open")
				}
				d.cloud.got = nil
				c := d.cloud
				d.change(func() {
					d.disk.ReadOnly = true
					d.status = device.Fail
					if !online {
						d.cloud = nil
						close(c.done)
					}
				})
				start := time.Now()
				err := <-ended
				if !errors.Is(err, agent.ErrStuck) || !errors.Is(err, syscall.EROFS) {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(start); took > 2*time.Hour {
					t.Errorf("it took %v", took)
				}
				got, want, spooled := strings.Join(c.got, ", "), d.ids[1]+" FAIL, gate stuck", 0
				if !online {
					want, spooled = "", 1
				}
				if got != want || d.spooled(t) != spooled {
					t.Errorf("the cloud got %q, want %q; %d in the spool", got, want, d.spooled(t))
				}
				if s, err := agent.LoadState(dir); err != nil || s.Gate != "stuck" || s.Acknowledged != online || s.Trouble == "" {
					t.Errorf("kept: %+v, %v", s, err)
				}
			})
		})
	}
}

// A start on a read-only directory with the mark of an earlier one: vetted, told
// and ended.
func TestStuckFromStart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Local)
		if _, o := d.Once(t.Context()); o.State != gate.Open {
			t.Fatal(o)
		}
		d.cloud.got = nil
		d.disk.ReadOnly = true
		if err := d.Run(t.Context()); !errors.Is(err, agent.ErrStuck) {
			t.Errorf("Run: %v", err)
		}
		if got := strings.Join(d.cloud.got, ", "); got != d.ids[1]+" PASS, gate stuck" {
			t.Errorf("the cloud got %s", got)
		}
	})
}

// A full run directory: the report goes out, the gate opens once there is room.
func TestFullRunDir(t *testing.T) {
	for _, policy := range []gate.Policy{gate.Local, gate.Acknowledged} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(t, dir, policy)
			d.Every = 24 * time.Hour
			d.disk.Limit = 1
			stop := running(t, d)
			if got := strings.Join(d.cloud.got, ", "); got != d.ids[0]+" PASS, gate shut" || d.trusted() || d.spooled(t) != 0 {
				t.Errorf("%s: trusted %v, the cloud got %s", policy, d.trusted(), got)
			}
			s, err := agent.LoadState(dir)
			if err != nil || !s.Acknowledged || s.Gate != "shut" || s.Trouble == "" || s.Reason != "" {
				t.Errorf("kept: %+v, %v", s, err)
			}
			d.change(func() { d.disk.Limit = 0 })
			time.Sleep(15 * time.Minute)
			synctest.Wait()
			if !d.trusted() {
				t.Errorf("%s: shut although there is room", policy)
			}
			stop()
		})
	}
}

// A state directory that takes nothing: the report goes out, the gate stands on its
// acknowledgement, and the run directory has the verdict until the first takes it.
func TestNoStateKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory can be there
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		runDir, disk := d.Gate.Dir()
		kept := func() string {
			b, err := disk.ReadFile(filepath.Join(runDir, "last.json"), 1<<20)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			return string(b)
		}
		if _, o := d.Once(t.Context()); o.State != gate.Open || !o.Acknowledged {
			t.Error(o)
		}
		if got := kept(); !strings.Contains(got, d.ids[0]) || !strings.Contains(got, "cannot be kept in state_dir") || !strings.Contains(got, `"gate":"open"`) {
			t.Errorf("run_dir has %s", got)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, o := d.Once(t.Context()); o.State != gate.Open {
			t.Error(o)
		}
		if s, err := agent.LoadState(dir); err != nil || s.Report.ID != d.ids[1] || s.Trouble != "" || kept() != "" {
			t.Errorf("%+v, %v, run_dir has %s", s, err, kept())
		}
	})
}

// LatestState prefers what the run directory has.
func TestLatestState(t *testing.T) {
	stateDir, runDir := t.TempDir(), t.TempDir()
	if _, err := agent.LatestState(stateDir, runDir); !errors.Is(err, agent.ErrNoState) {
		t.Error(err)
	}
	for _, dir := range []string{stateDir, runDir} {
		d := newDesk(t, dir, gate.Local)
		d.Once(t.Context())
		s, err := agent.LatestState(stateDir, runDir)
		if err != nil || s.Report.ID != d.ids[0] {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

// An orderly end leaves the gate shut.
func TestEndShuts(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		stop := running(t, d)
		if !d.trusted() {
			t.Fatal("not open")
		}
		if err := stop(); !errors.Is(err, context.Canceled) || d.trusted() || d.Gate.State() != gate.Shut {
			t.Errorf("%v, trusted %v", err, d.trusted())
		}
	})
}

// The wall clock goes on while the machine sleeps, and timers do not: the gate
// has its deadline, and the schedule its turn, within a beat of waking up.
func TestSuspend(t *testing.T) {
	for _, tt := range []struct {
		name  string
		every time.Duration
		sleep time.Duration
		vets  int
		open  bool
	}{
		{"short", 24 * time.Hour, time.Hour, 1, true},
		{"past the schedule", 24 * time.Hour, 27 * time.Hour, 2, true},
		{"past the certificate", 24 * time.Hour, 91 * 24 * time.Hour, 2, false},
		{"past the certificate, no schedule", 0, 91 * 24 * time.Hour, 2, false},
		{"past nothing, no schedule", 0, 80 * 24 * time.Hour, 1, true},
		{"set back", 24 * time.Hour, -365 * 24 * time.Hour, 1, true},
	} {
		for _, online := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, ", online ", online), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					d := newDesk(t, dir, gate.Local)
					d.Every = tt.every
					if !online {
						d.cloud = nil
					}
					stop := running(t, d)
					d.change(func() { d.slept = tt.sleep })
					time.Sleep(61 * time.Second)
					synctest.Wait()
					if len(d.triggers) != tt.vets || d.trusted() != tt.open {
						t.Errorf("vetted %v, trusted %v", d.triggers, d.trusted())
					}
					time.Sleep(28 * time.Hour) // a clock that was set back makes no period longer
					synctest.Wait()
					if tt.every != 0 && len(d.triggers) < 2 {
						t.Errorf("vetted %v", d.triggers)
					}
					if tt.every == 0 && len(d.triggers) != tt.vets {
						t.Errorf("vetted %v", d.triggers)
					}
					stop()
				})
			})
		}
	}
}

// The gate shuts when its certificate expires, without any suspend.
func TestDeadline(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		stop := running(t, d)
		time.Sleep(time.Until(d.certificate.NotAfter))
		synctest.Wait()
		if !d.trusted() {
			t.Error("shut before its time")
		}
		time.Sleep(beatAndMore)
		synctest.Wait()
		if d.trusted() || len(d.triggers) != 2 {
			t.Errorf("trusted %v, vetted %v", d.trusted(), d.triggers)
		}
		if got := d.cloud.got; got[len(got)-1] != "gate shut" || got[len(got)-2] != d.ids[1]+" FAIL" {
			t.Errorf("the cloud got %v", got)
		}
		stop()
	})
}

const beatAndMore = 31 * time.Second

// The log names what could not be checked, and gives each reason its own place.
func TestLog(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	d.gaps = []device.Gap{{What: "junk.pem", Why: "no key in it"}, {What: "some curve", Why: "not in this TPM", Minor: true}}
	d.cloud.refuse = func(*device.Report) error { return errors.New("throttled") }
	if _, o := d.Once(t.Context()); o.State != gate.Shut {
		t.Errorf("%+v", o)
	}
	for _, want := range []string{`what=junk.pem why="no key in it"`, `state=shut acknowledged=false reason="the verdict is UNDECIDED" undelivered=throttled`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "some curve") {
		t.Errorf("the log names what is minor:\n%s", log.String())
	}
}

// The log names the certificate of a bundle that a finding is about.
func TestLogOfPlaces(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	d.keys = []device.Key{
		{ID: "b.pem#1", Source: "file:b.pem", Line: 1},
		{ID: "b.pem#2", Source: "file:b.pem", Line: 20, Chain: []*x509.Certificate{{Subject: pkix.Name{CommonName: "second"}}}},
		{ID: "a.pem", Source: "file:a.pem", Line: 1},
	}
	d.found = []device.Finding{
		{Check: "size", Key: "b.pem#2", Status: device.Fail, ReasonCode: "F", Message: "short"},
		{Check: "size", Key: "a.pem", Status: device.Warn, ReasonCode: "W", Message: "long"},
	}
	d.Once(t.Context())
	if got := log.String(); !strings.Contains(got, `key=b.pem#2 check=size reason=F why=short place="line 20, CN=second"`) || !strings.Contains(got, "key=a.pem check=size") {
		t.Errorf("%s", got)
	}
}

// The log has a line for each finding that did not pass, up to a bound.
func TestLogOfFindings(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	d.found = []device.Finding{
		{Check: "size", Key: "a", Status: device.Warn, ReasonCode: "W", Message: "a warning"},
		{Check: "debian", Key: "device", Status: device.Fail, ReasonCode: "F", Message: "it is weak"},
		{Check: "roca", Key: "device", Status: device.Pass, Message: "no structure"},
		{Check: "firmware", Key: "tpm", Status: device.Fail, ReasonCode: "A", Message: "an old one", Accepted: true},
	}
	for range 200 {
		d.found = append(d.found, d.found[0])
	}
	d.Once(t.Context())
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "msg=finding") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 100 || !strings.Contains(lines[0], `level=ERROR msg=finding status=FAIL key=device check=debian reason=F why="it is weak"`) ||
		!strings.Contains(lines[1], "level=WARN msg=finding status=WARN key=a ") || !strings.Contains(lines[2], "level=WARN msg=finding status=FAIL key=tpm ") {
		t.Errorf("%d lines: %s", len(lines), log.String())
	}
	if !strings.Contains(log.String(), "more=103") || strings.Contains(log.String(), "no structure") {
		t.Errorf("%s", log.String())
	}
}
