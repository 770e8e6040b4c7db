package rotate_test

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

// scenario is a rotation in a world, and how it has to end wherever power is cut.
type scenario struct {
	name   string
	first  string // the credential before
	job    bool
	set    func(*world)
	status device.JobState
	reason device.ReasonCode
	job2   device.JobState // how the job ends, if not as the rotation does
}

var lost = answer{context.DeadlineExceeded, true}      // it was done, but nobody heard
var noAnswer = answer{context.DeadlineExceeded, false} // it was not done

var scenarios = []scenario{
	{"job, first credential in place", identity.First, true, nil, device.JobSucceeded, "", ""},
	{"job, issuer that confirms", "a", true, func(w *world) { w.confirms = true }, device.JobSucceeded, "", ""},
	{"job, first key at a handle", atHandle, true, nil, device.JobSucceeded, "", ""},
	{"commit timed out, first key at a handle", atHandle, true, script("confirm", noAnswer), device.JobFailed, rotate.ReasonCommitTimeout, ""},
	{"operator", "a", false, nil, device.JobSucceeded, "", ""},
	{"claim", rotate.Claim, false, nil, device.JobSucceeded, "", ""},
	{"files of the configuration", rotate.Configured, true, nil, device.JobSucceeded, "", ""},
	{"weak key", "a", true, func(w *world) { w.badKey = device.ReasonDebian }, device.JobFailed, device.ReasonDebian, ""},
	{"create timed out", "a", true, script("create", noAnswer), device.JobFailed, rotate.ReasonCreateTimeout, ""},
	{"create lost once", "a", true, script("create", lost, answer{nil, true}), device.JobSucceeded, "", ""},
	{"activation lost once", "a", true, script("activate", lost, answer{nil, true}), device.JobSucceeded, "", ""},
	{"deactivated at try", identity.First, true, script("activate", answer{nil, false}), device.JobFailed, rotate.ReasonTryRefused, ""},
	{"deactivated at try, claim", rotate.Claim, false, script("activate", answer{nil, false}), device.JobFailed, rotate.ReasonTryRefused, ""},
	{"commit timed out", identity.First, true, script("confirm", noAnswer), device.JobFailed, rotate.ReasonCommitTimeout, ""},
	{"commit timed out, claim", rotate.Claim, false, script("confirm", noAnswer), device.JobFailed, rotate.ReasonCommitTimeout, ""},
	{"commit done but not heard", "a", true, func(w *world) { w.confirms = true; script("confirm", lost)(w) }, device.JobSucceeded, "", ""},
	{"report on the new key is bad", "a", true, script("move", answer{rotate.ErrRejected, false}), device.JobFailed, rotate.ReasonGateRefused, ""},
	{"report on the new key never acknowledged", "a", true, script("move", noAnswer), device.JobFailed, rotate.ReasonNotAcknowledged, ""},
	{"report on the new key never heard", "a", true, script("move", lost), device.JobFailed, rotate.ReasonNotAcknowledged, ""},
	{"success lost once", "a", true, script("tell SUCCEEDED", lost, answer{nil, true}), device.JobSucceeded, "", ""},
	{"job canceled before the certificate", "a", true, func(w *world) { w.cancelAt = "enrol" }, device.JobFailed, rotate.ReasonJobEnded, canceled},
	{"job canceled before the switch", "a", true, func(w *world) { w.cancelAt = "commit" }, device.JobFailed, rotate.ReasonJobEnded, canceled},
}

func script(call string, answers ...answer) func(*world) {
	return func(w *world) { w.script[call] = answers }
}

func (s scenario) start(t *testing.T) (*world, *durabletest.Disk) {
	w, disk := device0(t, s.first)
	if s.set != nil {
		s.set(w)
	}
	if s.job {
		w.jobs["job1"] = device.JobInProgress
	}
	return w, disk
}

func (s scenario) firstID() string {
	if s.first == atHandle {
		return identity.First
	}
	return s.first
}

func (s scenario) request() rotate.Request {
	req := rotate.Request{Trigger: device.TriggerManual}
	if s.first == rotate.Claim || s.first == rotate.Configured {
		req.From = s.first
	}
	if s.job {
		req.Trigger, req.Job = device.TriggerJob, device.Job{ID: "job1", Execution: 1}
	}
	return req
}

// settle is a device after a boot, with all the time that it needs: it resumes,
// and looks for its job if there is nothing to resume. The outcome is the last
// that was told, if any.
func (s scenario) settle(t *testing.T, e *rotate.Engine, w *world, never bool) {
	for range 20 {
		_, err := e.Resume(t.Context())
		var named *rotate.Error
		switch {
		case err == nil, errors.As(err, &named): // it ended just now
		case errors.Is(err, rotate.ErrWaits):
			w.now = w.now.Add(2 * grace)
		case !errors.Is(err, rotate.ErrNothing):
			t.Fatal(err)
		case s.job && w.jobs["job1"] == device.JobInProgress, never:
			never = false
			if _, err := e.Run(t.Context(), s.request()); errors.Is(err, rotate.ErrWaits) {
				w.now = w.now.Add(2 * grace)
			}
		default:
			state, err := e.Journal.Load()
			must(t, err)
			if len(state.Leaving) == 0 {
				return
			}
			w.now = w.now.Add(2 * grace)
		}
	}
	t.Fatalf("%s: it does not come to rest", s.name)
}

// ends compares what is there in the end with what has to be.
func (s scenario) ends(t *testing.T, w *world, disk *durabletest.Disk, where string) {
	t.Helper()
	fatal := func(format string, args ...any) {
		t.Helper()
		t.Fatalf(s.name+", "+where+": "+format+"\n%s", append(args, disk)...)
	}
	store := &identity.Store{Dir: stateDir, Disk: durable.Disk{FS: disk}}
	state, err := rotate.File{Path: rotate.JournalPath(stateDir), Disk: store.Disk}.Load()
	if err != nil || state.Rotation != nil || len(state.Ended) != 1 {
		fatal("journal: %v, %+v", err, state)
	}
	o := state.Ended[0]
	if o.Status != s.status || o.Reason != s.reason {
		fatal("it ended %+v, want %s %s", o, s.status, s.reason)
	}
	if want := s.job2; s.job {
		if want == "" {
			want = s.status
		}
		if got := w.jobs["job1"]; got != want {
			fatal("the job ended %s, want %s", got, want)
		}
		if want != canceled && w.details["job1"]["reasonCode"] != s.reason {
			fatal("the job says %v", w.details["job1"])
		}
	}
	if s.status == device.JobSucceeded && w.calls["make"] != 1 && !strings.Contains(where, "cut") {
		fatal("%d keys were made", w.calls["make"])
	}
	ids, err := store.List()
	must(t, err)
	current, err := store.Current()
	fresh := s.first == rotate.Claim || s.first == rotate.Configured
	if s.status == device.JobFailed && fresh {
		if !errors.Is(err, identity.ErrNone) || len(ids) != 0 {
			fatal("credentials %v, in use %q, %v", ids, current, err)
		}
	} else {
		if err != nil || len(ids) != 1 || ids[0] != current || (current == s.firstID()) != (s.status == device.JobFailed) {
			fatal("credentials %v, in use %q, %v", ids, current, err)
		}
		certificateID, err := usable(w, store, current)
		if err != nil {
			fatal("the credential in use is not usable: %v", err)
		}
		active := activeOnes(w)
		if s.job2 == "" && (len(active) != 1 || active[0] != certificateID) && s.job {
			fatal("active in the cloud: %v, in use: %s", active, certificateID)
		}
		if w.guards != current {
			fatal("the gate is before %q, in use is %q", w.guards, current)
		}
	}
	ended := map[string]string{rotate.Claim: rotate.Claim, rotate.Configured: rotate.Configured, atHandle: identity.First}[s.first]
	if s.status == device.JobSucceeded && w.ended != ended || s.status == device.JobFailed && w.ended != "" {
		fatal("taken away: %q", w.ended)
	}
	all := disk.String()
	for _, half := range []string{"keyvet-tmp", "removed", "identity.new", "spare", `""`, `\x00`} {
		if strings.Contains(all, half) {
			fatal("%s is left", half)
		}
	}
}

// TestScenarios runs each without a cut.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			w, disk := s.start(t)
			s.settle(t, boot(w, disk, new(durabletest.Power)), w, !s.job)
			s.ends(t, w, disk, "uncut")
		})
	}
}

var sweepStride = flag.Int("sweep.stride", 1, "how many `points` of the power-cut sweep to go on by")

// TestSweep cuts power at every point of every scenario, looks at every disk
// that this may leave, cuts again on the way to the end, and wants each to end
// as it does without a cut.
func TestSweep(t *testing.T) {
	var points, runs atomic.Int64
	stride, least := *sweepStride, 4000/int64(*sweepStride)
	t.Run("scenarios", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				for cutAt := 1; ; cutAt += stride {
					w, disk := s.start(t)
					power := &durabletest.Power{CutAt: cutAt}
					if !power.Run(func() { s.settle(t, boot(w, disk, power), w, !s.job) }) {
						break
					}
					points.Add(1)
					for _, left := range disk.Cut() {
						for _, second := range []int{0, 1 + cutAt*7%97} {
							runs.Add(1)
							s.again(t, w.clone(), left.Cut()[0], second)
						}
					}
				}
			})
		}
	})
	if points.Load() < least {
		t.Errorf("only %d points", points.Load())
	}
	t.Logf("%d scenarios, %d points of a cut, %d runs to the end", len(scenarios), points.Load(), runs.Load())
}

// again boots after a cut, is cut at the point given (0 is never), boots and
// runs to the end.
func (s scenario) again(t *testing.T, w *world, disk *durabletest.Disk, second int) {
	for _, cutAt := range []int{second, 0} {
		store := &identity.Store{Dir: stateDir, Disk: durable.Disk{FS: disk}}
		must(t, store.Recover())
		current, err := store.Current()
		if err != nil && !errors.Is(err, identity.ErrNone) {
			t.Fatal(err)
		}
		if err == nil {
			if _, err := usable(w, store, current); err != nil && s.status == device.JobSucceeded {
				t.Fatalf("%s: after a cut, the credential in use is not usable: %v", s.name, err)
			}
		} else if s.first != rotate.Claim && s.first != rotate.Configured {
			t.Fatalf("%s: after a cut, no credential is in use", s.name)
		}
		w.guards = current
		state, err := rotate.File{Path: rotate.JournalPath(stateDir), Disk: store.Disk}.Load()
		must(t, err)
		if ids, err := store.List(); err == nil && state.Rotation != nil && slices.Contains(ids, state.Rotation.New.ID) {
			if _, err := store.Key(state.Rotation.New.ID); err == nil { // one key is enough
				w.script["make"] = []answer{{errors.New("a second key"), false}}
			}
		}
		never := !s.job && state.Rotation == nil && len(state.Ended) == 0
		power := &durabletest.Power{CutAt: cutAt}
		if !power.Run(func() { s.settle(t, boot(w, disk, power), w, never) }) {
			break
		}
		all := disk.Cut()
		disk = all[second%len(all)]
	}
	s.ends(t, w, disk, "after a cut")
}

// TestOnDisk cuts power at some of the points on the machine's own file system.
func TestOnDisk(t *testing.T) {
	engine := func(w *world, dir string, disk durable.FS, power *durabletest.Power) *rotate.Engine {
		e := boot(w, disk, power)
		e.Store.Dir = dir
		e.Journal = rotate.File{Path: rotate.JournalPath(dir), Disk: e.Store.Disk}
		e.Cloud = cloud{w, &identity.Store{Dir: dir}, power}
		return e
	}
	s := scenarios[0]
	for cutAt := 4; ; cutAt += 23 {
		dir := t.TempDir()
		w, memory := s.start(t)
		must(t, durable.Dir(dir+"/identity", 0o700))
		for _, name := range []string{"/identity/certificate.pem", "/identity/key.pem"} {
			b, err := memory.ReadFile(stateDir+name, 1<<20)
			must(t, err)
			must(t, durable.WriteFile(dir+name, b, 0o600))
		}
		shadow, err := durabletest.NewShadow(dir)
		must(t, err)
		power := &durabletest.Power{CutAt: cutAt}
		wasCut := power.Run(func() { s.settle(t, engine(w, dir, shadow, power), w, false) })
		must(t, shadow.Leave(cutAt))
		e := engine(w, dir, durable.OS{}, new(durabletest.Power))
		s.settle(t, e, w, false)
		ids, err := e.Store.List()
		current, currentErr := e.Store.Current()
		must(t, errors.Join(err, currentErr))
		if w.jobs["job1"] != device.JobSucceeded || len(ids) != 1 || current != ids[0] || current == identity.First {
			t.Errorf("cut at %d: job %s, credentials %v, in use %q", cutAt, w.jobs["job1"], ids, current)
		}
		if _, err := usable(w, &identity.Store{Dir: dir}, current); err != nil {
			t.Errorf("cut at %d: %v", cutAt, err)
		}
		if !wasCut {
			return
		}
	}
}
