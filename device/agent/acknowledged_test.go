package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
)

// deafCloud takes reports and nothing else.
type deafCloud struct {
	*cloud
	metrics int
}

func (c *deafCloud) ReportGate(context.Context, gate.State) error { return errors.New("no shadow") }

func (c *deafCloud) ReportMetrics(context.Context, *device.Report) error {
	c.metrics++
	return errors.New("no metrics")
}

// What the cloud does not take besides the report is logged, and is asked of it
// for an acknowledged report only.
func TestTold(t *testing.T) {
	for _, refused := range []bool{false, true} {
		d := newDesk(t, t.TempDir(), gate.Acknowledged)
		var log bytes.Buffer
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		c := &deafCloud{cloud: d.cloud}
		d.device.connect = func(context.Context) (agent.Cloud, error) { return c, nil }
		if refused {
			d.cloud.refuse = func(*device.Report) error { return errors.New("throttled") }
		}
		if _, o := d.Once(t.Context()); o.Acknowledged == refused {
			t.Errorf("%+v", o)
		}
		if said := strings.Contains(log.String(), "Device Defender has not taken"); said == refused || (c.metrics == 1) == refused {
			t.Errorf("refused %v: %d metrics\n%s", refused, c.metrics, &log)
		}
		if !strings.Contains(log.String(), "the shadow does not show the gate") {
			t.Errorf("refused %v:\n%s", refused, &log)
		}
	}
}

// Nothing is told in a session that was lost over the report.
func TestToldNobody(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	d.cloud.refuse = func(*device.Report) error {
		close(d.cloud.done)
		return errors.New("lost")
	}
	if _, o := d.Once(t.Context()); o.Acknowledged || o.State != gate.Shut || len(d.cloud.got) > 0 {
		t.Errorf("%+v, the cloud got %v", o, d.cloud.got)
	}
}

// Earlier reports that are refused stay in the spool, end the delivery after a
// few, and come last the next time.
func TestRefusedPast(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		cloud := d.cloud
		d.cloud = nil
		for range 5 {
			d.Once(t.Context())
			time.Sleep(time.Second)
		}
		waiting := d.spooled(t)
		if waiting != 5 {
			t.Fatalf("%d in the spool", waiting)
		}
		past := slices.Clone(d.ids)
		d.cloud = cloud
		var tried []string
		cloud.refuse = func(r *device.Report) error {
			if i := slices.Index(past, r.ID); i >= 0 {
				tried = append(tried, r.ID)
				return errors.New("refused")
			}
			return nil
		}
		if _, o := d.Once(t.Context()); o.State != gate.Open {
			t.Errorf("%+v", o)
		}
		if len(tried) != 3 || d.spooled(t) != waiting {
			t.Errorf("tried %v, %d of %d in the spool", tried, d.spooled(t), waiting)
		}
		first := tried
		tried = nil
		d.Once(t.Context())
		if len(tried) != 3 || slices.Contains(first, tried[0]) || d.spooled(t) != waiting {
			t.Errorf("tried %v after %v, %d of %d in the spool", tried, first, d.spooled(t), waiting)
		}
	})
}

// A report in the spool that cannot be read is neither sent nor dropped; one
// that is no report is dropped and not sent.
func TestUnreadablePast(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	c := d.cloud
	d.cloud, d.status = nil, device.Fail
	d.Once(t.Context())
	files, err := filepath.Glob(filepath.Join(d.dir, "spool", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	d.cloud, d.status = c, device.Pass
	if err := os.Truncate(files[0], 2<<20); err != nil {
		t.Fatal(err)
	}
	d.Once(t.Context())
	if got := strings.Join(c.got, ", "); d.spooled(t) != 1 || strings.Contains(got, "earlier") {
		t.Errorf("%d in the spool, the cloud got %s", d.spooled(t), got)
	}
	if err := os.WriteFile(files[0], []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Once(t.Context())
	if got := strings.Join(c.got, ", "); d.spooled(t) != 0 || strings.Contains(got, "earlier") {
		t.Errorf("%d in the spool, the cloud got %s", d.spooled(t), got)
	}
}

// A spool that cannot be read is logged, and keeps no report from the cloud.
func TestNoSpool(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := os.WriteFile(filepath.Join(d.dir, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, o := d.Once(t.Context()); o.State != gate.Open || !o.Acknowledged {
		t.Errorf("%+v", o)
	}
	for _, want := range []string{"report cannot be kept", "an acknowledged report stays in the spool", "spool cannot be read"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &log)
		}
	}
}

// The state that is kept is of the report on which the gate stands: another one
// only once the gate has moved.
func TestMoveKeeps(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	if _, o := d.Once(t.Context()); o.State != gate.Open {
		t.Fatal(o)
	}
	kept := func() string {
		s, err := agent.LoadState(d.dir)
		if err != nil {
			t.Fatal(err)
		}
		return s.Report.ID
	}
	d.cloud.refuse = func(*device.Report) error { return errors.New("refused") }
	if o := d.Move(t.Context(), d.cloud, device.TriggerJob, "new"); o.Moved || kept() != d.ids[0] {
		t.Errorf("%+v, kept %s of %v", o, kept(), d.ids)
	}
	d.cloud.refuse = nil
	if o := d.Move(t.Context(), d.cloud, device.TriggerJob, "new"); !o.Moved || kept() != d.ids[2] {
		t.Errorf("%+v, kept %s of %v", o, kept(), d.ids)
	}
}

// A rotation that goes on before the device connects, and moves the gate, is
// what comes of it: the device is not vetted again.
func TestMovedWhilePreparing(t *testing.T) {
	d := newDesk(t, t.TempDir(), gate.Acknowledged)
	d.device.prepare = func(ctx context.Context) (bool, error) {
		return true, map[bool]error{false: errors.New("not moved")}[d.Move(ctx, d.cloud, device.TriggerJob, "new").Moved]
	}
	r, o := d.Once(t.Context())
	if len(d.ids) != 2 || r.ID != d.ids[1] || !o.Moved || o.State != gate.Open {
		t.Errorf("vetted %v, %s: %+v", d.triggers, r.ID, o)
	}
}

// An agent that is ended and cannot shut its gate says so.
func TestEndIsStuck(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		var log bytes.Buffer
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		stop := running(t, d)
		d.change(func() { d.disk.ReadOnly = true })
		if err := stop(); !errors.Is(err, agent.ErrStuck) {
			t.Errorf("%v", err)
		}
	})
}

// The certificate's end is a deadline of a shut gate as well: the device has
// something new to say then.
func TestDeadlineOfShutGate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.gaps = []device.Gap{{What: "a file", Why: "it cannot be read"}}
		stop := running(t, d)
		if d.trusted() {
			t.Fatal("open")
		}
		time.Sleep(time.Until(d.certificate.NotAfter) + beatAndMore)
		synctest.Wait()
		if len(d.triggers) != 2 {
			t.Errorf("vetted %v", d.triggers)
		}
		stop()
	})
}

// A gate that gets stuck upon an acknowledged report: the cloud is told, and does
// not get the report twice. The log has the reason.
func TestStuckUponAcknowledged(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.Every = time.Hour
		var log bytes.Buffer
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		d.cloud.refuse = func(r *device.Report) error {
			d.change(func() { d.disk.ReadOnly = len(d.ids) > 1 }) // the second report passes as well
			return nil
		}
		if err := d.Run(t.Context()); !errors.Is(err, agent.ErrStuck) {
			t.Errorf("Run: %v", err)
		}
		if got := strings.Join(d.cloud.got, ", "); strings.Count(got, d.ids[1]+" PASS") != 1 || !strings.HasSuffix(got, "gate stuck") {
			t.Errorf("the cloud got %s", got)
		}
		if !strings.Contains(log.String(), "state=stuck trouble=") {
			t.Errorf("the log has no reason:\n%s", &log)
		}
	})
}
