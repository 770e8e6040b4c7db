package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/gate"
)

// cloud acknowledges every report but those that it is told to refuse.
type cloud struct {
	refuse func(*device.Report) error
	got    []string // "reportId verdict" of every acknowledged report, "gate open|shut"
	done   chan struct{}
	wanted chan struct{}
	work   []*agent.Work
	deaf   int // how often Next fails
}

func newCloud() *cloud {
	return &cloud{done: make(chan struct{}), wanted: make(chan struct{}, 1)}
}

func (c *cloud) Publish(_ context.Context, r *device.Report) error {
	if c.refuse != nil {
		if err := c.refuse(r); err != nil {
			return err
		}
	}
	c.got = append(c.got, r.ID+" "+r.Verdict().String())
	return nil
}

func (c *cloud) PublishEarlier(ctx context.Context, r *device.Report) error {
	if err := c.Publish(ctx, r); err != nil {
		return err
	}
	c.got[len(c.got)-1] += " earlier"
	return nil
}

func (c *cloud) ReportGate(_ context.Context, s gate.State) error {
	c.got = append(c.got, "gate "+s.String())
	return nil
}
func (c *cloud) PublishFindings(context.Context, *device.Report) error { return nil }
func (c *cloud) ReportMetrics(context.Context, *device.Report) error   { return nil }
func (c *cloud) Lost() error                                           { return errors.New("cut") }

// Next gives what is asked until it is answered for good.
func (c *cloud) Next(_ context.Context, waits func(string) bool) (*agent.Work, error) {
	if c.deaf > 0 {
		c.deaf--
		return nil, errors.New("throttled")
	}
	for _, w := range c.work {
		if !waits(w.ID) {
			return w, nil
		}
	}
	return nil, nil
}

// end takes work off the queue.
func (c *cloud) end(w *agent.Work) {
	c.work = slices.DeleteFunc(c.work, func(queued *agent.Work) bool { return queued == w })
}

func (c *cloud) Wanted() <-chan struct{} { return c.wanted }
func (c *cloud) Done() <-chan struct{}   { return c.done }
func (c *cloud) Close()                  {}

// ask queues work, with more behind it, and tells the device.
func (c *cloud) ask(w *agent.Work, more ...*agent.Work) {
	c.work = append(append(c.work, w), more...)
	c.wanted <- struct{}{}
}

// answer keeps what the device says to a piece of work, which is over with the
// last word.
func (c *cloud) answer(w *agent.Work) agent.Answer {
	return func(_ context.Context, o device.JobState, details map[string]string) error {
		c.got = append(c.got, fmt.Sprint(w.ID, " ", o, " ", details["step"], details["reasonCode"]))
		if o != device.JobInProgress {
			c.end(w)
		}
		return nil
	}
}

// check asks for a check, rotate for a rotation.
func (c *cloud) check(id string, more ...*agent.Work) {
	w := &agent.Work{ID: id}
	w.Do = func(ctx context.Context, do agent.Actions) error { return do.Check(ctx, id, c.answer(w)) }
	c.ask(w, more...)
}

func (c *cloud) rotate(id string) {
	c.ask(&agent.Work{ID: id, EndsSession: true, Do: func(ctx context.Context, do agent.Actions) error {
		return do.Rotate(ctx, agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: id}})
	}})
}

// fake is a device by functions; without one, it has nothing to do.
type fake struct {
	vet     func(device.Trigger) gate.Vetted
	connect func(context.Context) (agent.Cloud, error)
	prepare func(context.Context) (bool, error)
	rotate  func(context.Context, agent.Rotation) error
	local   func() *agent.Work
	late    func(context.Context) <-chan struct{}
	settled func(*device.Report, gate.Outcome)
}

func (f *fake) Vet(_ context.Context, trigger device.Trigger, _ string) gate.Vetted {
	return f.vet(trigger)
}
func (f *fake) Connect(ctx context.Context) (agent.Cloud, error)   { return f.connect(ctx) }
func (f *fake) Rotate(ctx context.Context, r agent.Rotation) error { return f.rotate(ctx, r) }
func (f *fake) Prepare(ctx context.Context) (changed bool, err error) {
	if f.prepare == nil {
		return false, nil
	}
	return f.prepare(ctx)
}
func (f *fake) Local() *agent.Work {
	if f.local == nil {
		return nil
	}
	return f.local()
}

func (f *fake) Settled(r *device.Report, o gate.Outcome) {
	if f.settled != nil {
		f.settled(r, o)
	}
}

func (f *fake) Late(ctx context.Context) <-chan struct{} {
	if f.late == nil {
		return nil
	}
	return f.late(ctx)
}

// desk is an agent on a directory of its own, with verdicts and a cloud to choose.
type desk struct {
	*agent.Agent
	device      *fake
	dir         string
	disk        *durabletest.Disk // of the gate
	credential  gate.Credential
	certificate *x509.Certificate
	mu          sync.Mutex // for TestRun, which changes the world under a running agent
	status      device.Status
	gaps        []device.Gap
	keys        []device.Key     // besides the device's
	found       []device.Finding // besides the one on the device's key
	cloud       *cloud           // nil: offline
	triggers    []device.Trigger
	ids         []string
	slept       time.Duration // what timers have not seen
	step        time.Duration // by which the clock was set
}

const runDir = "/run/keyvet"

func newDesk(t *testing.T, dir string, policy gate.Policy) *desk {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	disk := durabletest.New()
	g, err := gate.New(runDir, durable.Disk{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy = policy
	d := &desk{
		dir: dir, disk: disk, certificate: leaf, status: device.Pass, cloud: newCloud(),
		credential: gate.Credential{Proven: true, SPKI: spki, Leaf: der, Certificate: []byte("chain")},
	}
	d.device = &fake{
		vet: func(trigger device.Trigger) gate.Vetted {
			d.mu.Lock()
			defer d.mu.Unlock()
			inv := device.Inventory{ReadAt: time.Now().Add(d.slept), Gaps: d.gaps, Keys: append(d.keys, device.Key{ID: "device", Role: device.RoleDevice, SPKI: spki, Chain: []*x509.Certificate{leaf}})}
			status := d.status
			if time.Now().Add(d.slept).After(leaf.NotAfter) {
				status = device.Fail
			}
			r := device.NewReport(inv, append(d.found, device.Finding{Check: "roca", Key: "device", Status: status}))
			r.Trigger = trigger
			d.triggers, d.ids = append(d.triggers, trigger), append(d.ids, r.ID)
			return gate.Vetted{Report: r, Credential: d.credential}
		},
		connect: func(context.Context) (agent.Cloud, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.cloud == nil {
				return nil, fmt.Errorf("no route: %w", agent.ErrNotReady)
			}
			return d.cloud, nil
		},
	}
	d.Agent = &agent.Agent{
		Device: d.device, Gate: g, Spool: &durable.Spool{Dir: filepath.Join(dir, "spool")}, StateDir: dir,
		Log: slog.New(slog.DiscardHandler),
	}
	d.Now = func() time.Time {
		d.mu.Lock()
		defer d.mu.Unlock()
		return time.Now().Add(d.slept + d.step)
	}
	g.Now = d.Now
	start := time.Now()
	d.Elapsed = func() time.Duration { // which goes on in suspend
		d.mu.Lock()
		defer d.mu.Unlock()
		return time.Since(start) + d.slept
	}
	return d
}

func (d *desk) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// trusted reports whether other programs find the gate open.
func (d *desk) trusted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	state, _, err := gate.Look(runDir, durable.Disk{FS: d.disk}, "")
	return err == nil && state == gate.Open
}

func (d *desk) spooled(t *testing.T) int {
	t.Helper()
	entries, err := d.Spool.List()
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		policy  gate.Policy
		status  device.Status
		offline bool
		state   gate.State
		refusal string
		spooled int
	}{
		{"healthy", gate.Acknowledged, device.Pass, false, gate.Open, "", 0},
		{"weak key", gate.Acknowledged, device.Fail, false, gate.Shut, "the verdict is FAIL", 0},
		{"undecided", gate.Acknowledged, device.Undecided, false, gate.Shut, "the verdict is UNDECIDED", 0},
		{"healthy, offline", gate.Acknowledged, device.Pass, true, gate.Shut, "", 1},
		{"weak key, offline", gate.Acknowledged, device.Fail, true, gate.Shut, "the verdict is FAIL", 1},
		{"healthy, offline, local", gate.Local, device.Pass, true, gate.Open, "", 1},
		{"weak key, offline, local", gate.Local, device.Fail, true, gate.Shut, "the verdict is FAIL", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, t.TempDir(), tt.policy)
			d.status = tt.status
			if tt.offline {
				d.cloud = nil
			}
			r, o := d.Once(t.Context())
			if o.State != tt.state || o.Refusal != tt.refusal || o.Acknowledged != !tt.offline || (o.Undelivered != nil) != tt.offline || o.Trouble != nil {
				t.Errorf("Once: %+v", o)
			}
			if tt.offline && !errors.Is(o.Undelivered, agent.ErrNotReady) {
				t.Errorf("undelivered: %v", o.Undelivered)
			}
			if d.trusted() != (tt.state == gate.Open) {
				t.Errorf("trusted: %v", d.trusted())
			}
			if n := d.spooled(t); n != tt.spooled {
				t.Errorf("%d reports in the spool, want %d", n, tt.spooled)
			}
			s, err := agent.LoadState(d.dir)
			if err != nil {
				t.Fatal(err)
			}
			if s.Report.ID != r.ID || s.Acknowledged == tt.offline || s.Gate != tt.state.String() || s.Reason != tt.refusal || (s.Undelivered != "") != tt.offline || s.Trouble != "" {
				t.Errorf("kept: %+v", s)
			}
		})
	}
}

func TestSpoolIsDrainedInOrder(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		online := d.cloud
		d.cloud = nil
		d.status = device.Fail
		d.Once(t.Context())
		time.Sleep(time.Hour)
		d.status = device.Pass
		d.Once(t.Context())
		time.Sleep(time.Hour)
		d.cloud = online
		start := time.Now()
		if _, o := d.Once(t.Context()); !o.Acknowledged {
			t.Fatal(o)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("two reports out of the spool took %v, which is not one a second", took)
		}
		want := d.ids[2] + " PASS, gate open, " + d.ids[0] + " FAIL earlier, " + d.ids[1] + " PASS earlier"
		if got := strings.Join(online.got, ", "); got != want {
			t.Errorf("the cloud got %s\nwant %s", got, want)
		}
		if n := d.spooled(t); n != 0 {
			t.Errorf("%d reports left in the spool", n)
		}
		if d.triggers[0] != device.TriggerFirstBoot || d.triggers[1] != device.TriggerBoot {
			t.Errorf("triggers %v", d.triggers)
		}
	})
}

func TestRefusedReportStays(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	d.cloud.refuse = func(*device.Report) error { return errors.New("throttled") }
	if _, o := d.Once(t.Context()); o.Acknowledged || o.Undelivered == nil || o.State != gate.Shut {
		t.Errorf("Once: %+v", o)
	}
	if d.trusted() || d.spooled(t) != 1 {
		t.Errorf("trusted %v, %d in the spool", d.trusted(), d.spooled(t))
	}
}

func TestDamagedSpool(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	if err := d.Spool.Put("torn", "weak", []byte(`{"schema":`)); err != nil {
		t.Fatal(err)
	}
	if _, o := d.Once(t.Context()); !o.Acknowledged {
		t.Fatal(o)
	}
	if n := d.spooled(t); n != 0 {
		t.Errorf("%d left", n)
	}
}

// TestRun lets a day and a half pass: two self-checks, a cloud that comes late
// and is lost once.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.Every = 24 * time.Hour
		online := d.cloud
		d.cloud = nil
		ctx, cancel := context.WithTimeout(t.Context(), 36*time.Hour)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()

		time.Sleep(10 * time.Minute) // of the bubble's clock
		synctest.Wait()
		if d.trusted() || d.spooled(t) != 1 {
			t.Errorf("offline: trusted %v, %d in the spool", d.trusted(), d.spooled(t))
		}
		d.change(func() { d.cloud = online })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !d.trusted() || len(online.got) != 2 {
			t.Errorf("online: trusted %v, cloud got %v", d.trusted(), online.got)
		}
		d.change(func() { d.cloud = newCloud() })
		close(online.done) // lost; the report is not sent again
		time.Sleep(time.Minute)
		synctest.Wait()
		if !d.trusted() || len(d.cloud.got) != 0 {
			t.Errorf("reconnected: trusted %v, cloud got %v", d.trusted(), d.cloud.got)
		}
		d.change(func() { d.status = device.Fail })
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
		if len(d.triggers) != 2 || d.triggers[1] != device.TriggerSchedule {
			t.Errorf("self-checks: %v", d.triggers)
		}
		if d.trusted() || len(d.cloud.got) != 2 {
			t.Errorf("after a failing self-check: trusted %v, cloud got %v", d.trusted(), d.cloud.got)
		}
	})
}

// What could not be checked is checked again soon.
func TestUndecidedAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.Every, d.status = 24*time.Hour, device.Undecided
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		synctest.Wait()
		d.change(func() { d.status = device.Pass })
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if !d.trusted() || len(d.triggers) != 2 || d.triggers[1] != device.TriggerSchedule {
			t.Errorf("trusted %v, vetted %v", d.trusted(), d.triggers)
		}
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		if len(d.triggers) != 2 {
			t.Errorf("vetted %v although decided", d.triggers)
		}
		cancel()
		<-ended
	})
}

func TestLoadState(t *testing.T) {
	dir := t.TempDir()
	if _, err := agent.LoadState(dir); !errors.Is(err, agent.ErrNoState) {
		t.Errorf("nothing there: %v", err)
	}
	for _, bad := range []string{"", "{", "{}", `{"report":{"schema":"x"}}`} {
		os.WriteFile(filepath.Join(dir, "last.json"), []byte(bad), 0o600)
		if _, err := agent.LoadState(dir); err == nil || errors.Is(err, agent.ErrNoState) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
