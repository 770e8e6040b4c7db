package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var (
	chaosSeed   = flag.Uint64("seed", 0, "the first run of TestChaos has this seed, the next ones those after it; 0: any")
	chaosRuns   = flag.Int("chaos", 40, "runs of TestChaos")
	chaosBeside = flag.Int("chaos.beside", 40, "devices of TestChaos beside each other, which mostly wait")
)

// What a run of chaos is held to.
const (
	chaosConverge = 5 * time.Minute       // from the last start, in a healed world, to all being as it should
	chaosLull     = 15 * time.Second      // at most, now and then: longer than the program's own patience
	chaosLook     = 40 * time.Millisecond // between two looks at what must always hold
)

// TestChaos puts the real program through faults of the cloud, the network, the
// disk, the TPM and its own power, at random, while jobs and checks are asked
// for. Whenever it is looked at, and at the end:
//
//   - the gate is open on no report that fails, nor, under policy acknowledged,
//     on one that the cloud has not acknowledged;
//   - of the failing reports that were kept, the first on each fault arrives;
//   - there is one thing that reports under one active certificate, and every job of keyvet's ends as it should;
//   - SIGTERM ends the program in time, nothing else ends it, and once the world
//     is healed it comes to rest.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d runs from -seed %d", *chaosRuns, seed)
	dir := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	struck := make(map[string]int)
	turn := make(chan struct{}, *chaosBeside)
	for i := range *chaosRuns {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			seed := seed + uint64(i)
			c, err := newChaos(filepath.Join(dir, fmt.Sprint(seed)), seed)
			if err == nil {
				err = c.run()
			}
			c.close()
			if err != nil {
				t.Errorf("%v\n%s\nagain: go test ./cmd/keyvet -run TestChaos -chaos 1 -seed %d", err, c.story(), seed)
			}
			c.count()
			mu.Lock()
			defer mu.Unlock()
			for name, n := range c.struck {
				struck[name] += n
			}
		})
	}
	wg.Wait()
	for _, name := range slices.Sorted(maps.Keys(struck)) {
		t.Logf("%6d %s", struck[name], name)
	}
}

// chaos is one run.
type chaos struct {
	*world
	random *rand.Rand
	told   []string       // what happened
	struck map[string]int // what happened, and how often

	weak   bool // the device's own key
	policy gate.Policy

	mu           sync.Mutex
	acknowledged map[string]bool // ids of reports, once AWS IoT's word was on its way
	trap         *trap           // or nil
	sprung       []string        // what traps did, not yet told

	spoiled bool              // a failing key lies among check.files
	failing map[string]bool   // reports that failed and were kept
	first   map[string]bool   // those of them that were the first on their fault
	arrived map[string]string // verdict by report, of those that came to a cloud that is over
	jobs    map[string]string // the status that each has to come to
	token   string            // of the check desired last
	opened  int               // looks at an open gate
	before  int               // reports at this cloud, before it was healed
}

// trap strikes at a packet to come, so that faults also come between two that
// are but a millisecond apart.
type trap struct {
	packets int // until it strikes
	name    string
	strike  func()
}

// weakKeys are keys of a device that must fail.
var weakKeys = sync.OnceValues(func() ([]*rsa.PrivateKey, error) {
	script, err := os.ReadFile("testdata/script/weak.txtar")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(script)
	debian, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	roca := tpmtest.ROCAKey("chaos")
	roca.Precompute()
	return []*rsa.PrivateKey{debian, roca}, err
})

func newChaos(dir string, seed uint64) (*chaos, error) {
	c := &chaos{
		world: &world{dir: dir, thing: fmt.Sprintf("gw-%d", seed)}, random: rand.New(rand.NewPCG(seed, 0)), struck: make(map[string]int),
		acknowledged: make(map[string]bool), failing: make(map[string]bool), first: make(map[string]bool), arrived: make(map[string]string), jobs: make(map[string]string),
	}
	c.options.OnPacket = c.onPacket
	var key crypto.Signer
	var err error
	if c.weak = c.random.IntN(3) == 0; c.weak {
		keys, weakErr := weakKeys()
		if weakErr != nil {
			return c, weakErr
		}
		key = keys[c.random.IntN(len(keys))]
	} else if key, err = ecdsa.GenerateKey(elliptic.P256(), crand.Reader); err != nil {
		return c, err
	}
	c.claim = !c.weak && c.random.IntN(2) == 0 // a third of all
	c.policy = gate.Acknowledged
	if c.random.IntN(4) == 0 {
		c.policy = gate.Local
	}
	if c.random.IntN(20) == 0 {
		if c.tpm, err = tpmtest.Start(context.Background(), tpmtest.Options{}); err != nil {
			return c, err
		}
	}
	if err := errors.Join(os.MkdirAll(c.files(), 0o700), c.putFile("sound")); err != nil {
		return c, err
	}
	return c, c.build(key, fmt.Sprintf("check.files = [%q]\ngate.open = %q\n", filepath.Join(c.files(), "*.pem"), c.policy))
}

func (c *chaos) files() string { return filepath.Join(c.dir, "files") }

// putFile puts a public key, whole, where the device looks for further ones.
func (c *chaos) putFile(name string) error {
	var public any
	if name == "sound" {
		key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
		if err != nil {
			return err
		}
		public = key.Public()
	} else {
		keys, err := weakKeys()
		if err != nil {
			return err
		}
		public = keys[0].Public()
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	path := filepath.Join(c.files(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Rename(path, path+".pem")
}

// run is the whole of it: chaos, then peace.
func (c *chaos) run() error {
	if err := c.start(); err != nil {
		return err
	}
	for range 6 + c.random.IntN(12) {
		if err := c.act(); err != nil {
			return err
		}
		d := time.Duration(c.random.ExpFloat64() * float64(400*time.Millisecond))
		if c.random.IntN(8) == 0 {
			d += time.Duration(c.random.Int64N(int64(chaosLull)))
		}
		if err := c.pass(d); err != nil {
			return err
		}
	}
	if err := c.stop(syscall.SIGTERM); err != nil {
		return err
	}
	if err := c.heal(); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	c.before = len(c.cloud.Messages(c.topic()))
	c.tell("healed")
	if err := c.start(); err != nil {
		return err
	}
	restless := ""
	for began := time.Now(); time.Since(began) < chaosConverge; {
		if err := c.pass(5 * chaosLook); err != nil {
			return err
		}
		if restless = c.restless(); restless == "" {
			c.tell("at rest")
			return c.stop(syscall.SIGTERM)
		}
	}
	return fmt.Errorf("after %v of peace: %s", chaosConverge, restless)
}

// acts are what may happen, more often the higher the weight. One that cannot
// be now does nothing.
var acts = []struct {
	name   string
	weight int
	do     func(*chaos) error
}{
	{"SIGKILL", 4, func(c *chaos) error { return c.restart(syscall.SIGKILL) }},
	{"SIGKILL twice, in the first moments", 3, func(c *chaos) error {
		if err := c.restart(syscall.SIGKILL); err != nil {
			return err
		}
		if err := c.pass(time.Duration(c.random.IntN(250)) * time.Millisecond); err != nil {
			return err
		}
		return c.restart(syscall.SIGKILL)
	}},
	{"a trap", 12, (*chaos).setTrap},
	{"SIGTERM", 2, func(c *chaos) error { return c.restart(syscall.SIGTERM) }},
	{"a job", 4, func(c *chaos) error { return c.ask(`{"operation":"keyvet.check","version":"1.0"}`, localiot.Succeeded) }},
	{"a malformed job", 1, func(c *chaos) error { return c.ask(`{"operation":"keyvet.check","version":7}`, localiot.Rejected) }},
	{"another agent's job", 1, func(c *chaos) error { return c.ask(`{"operation":"reboot"}`, localiot.Queued) }},
	{"a desired check", 3, (*chaos).desire},
	{"spoil", 3, func(c *chaos) error {
		c.spoiled = true
		return errors.Join(c.putFile("weak"), c.desire())
	}},
	{"unspoil", 2, func(c *chaos) error {
		c.spoiled = false
		err := os.Remove(filepath.Join(c.files(), "weak.pem"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}},
	{"broker killed", 2, (*chaos).stopCloud},
	{"broker started", 4, func(c *chaos) error { return c.startCloud() }},
	{"certificate deactivated", 1, func(c *chaos) error { return c.certificateIs((*localiot.Server).Deactivate) }},
	{"certificate activated", 3, func(c *chaos) error { return c.certificateIs((*localiot.Server).Activate) }},
	{"connections cut", 2, func(c *chaos) error { c.net.cut(); return nil }},
	{"connections half open", 2, func(c *chaos) error { c.net.halfOpen(); return nil }},
	{"disk full", 3, func(c *chaos) error { return c.disk.fill(c.random.IntN(4)) }},
	{"disk freed", 3, func(c *chaos) error { return c.disk.free() }},
	{"TPM pauses", 1, func(c *chaos) error {
		if c.tpm == nil {
			return nil
		}
		return c.tpm.Pause()
	}},
	{"TPM resumes", 1, func(c *chaos) error { return c.resumeTPM() }},
	{"no fault of the cloud's", 6, func(c *chaos) error { return c.fault("") }},
	{"throttle", 1, func(c *chaos) error { return c.fault("throttle") }},
	{"drop-accepted", 2, func(c *chaos) error { return c.fault("drop-accepted") }},
	{"connack-5", 1, func(c *chaos) error { return c.fault("connack-5") }},
	{"connack-7", 1, func(c *chaos) error { return c.fault("connack-7") }},
	{"no-connack", 1, func(c *chaos) error { return c.fault("no-connack") }},
	{"refuse-connects", 1, func(c *chaos) error { return c.fault("refuse-connects") }},
	{"partition", 1, func(c *chaos) error { return c.fault("partition") }},
	{"version-mismatch", 1, func(c *chaos) error { return c.fault("version-mismatch") }},
	{"create-silent", 1, func(c *chaos) error { return c.fault("create-silent") }},
	{"create-rejected", 1, func(c *chaos) error { return c.fault("create-rejected") }},
	{"never-activated", 1, func(c *chaos) error { return c.fault("never-activated") }},
	{"provision-rejected", 1, func(c *chaos) error { return c.fault("provision-rejected") }},
	{"slow", 1, func(c *chaos) error { return c.fault(fmt.Sprintf("slow=%dms", 1+c.random.IntN(300))) }},
}

func (c *chaos) act() error {
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := c.random.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			c.tell(a.name)
			c.struck[a.name]++
			if err := a.do(c); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			return nil
		}
	}
	return nil
}

func (c *chaos) fault(name string) error {
	if c.cloud == nil {
		return nil
	}
	faults := c.cloud.Faults() // they add up
	if name == "" {
		faults = localiot.Faults{}
	} else if err := faults.Set(name); err != nil {
		return err
	}
	c.cloud.SetFaults(faults)
	return nil
}

func (c *chaos) certificateIs(change func(*localiot.Server, string) error) error {
	if c.cloud == nil || c.claim {
		return nil
	}
	return change(c.cloud, c.certificate)
}

// ask gives the device a job that has to come to status.
func (c *chaos) ask(document, status string) error {
	if c.cloud == nil {
		return nil
	}
	id := fmt.Sprintf("job-%d", len(c.jobs))
	c.jobs[id] = status
	return c.cloud.CreateJob(localiot.Job{ID: id, Things: []string{c.thing}, Document: json.RawMessage(document)})
}

// desire asks for a check by the shadow; a cloud that throttles does not take it.
func (c *chaos) desire() error {
	if c.cloud == nil {
		return nil
	}
	token := fmt.Sprintf("token-%d", c.random.Uint32())
	if c.cloud.UpdateShadow(c.thing, "keyvet", fmt.Appendf(nil, `{"state":{"desired":{"check":%q}}}`, token)) == nil {
		c.token = token
	}
	return nil
}

func (c *chaos) stopCloud() error {
	if c.cloud == nil {
		return nil
	}
	err := c.cloud.Close()
	maps.Copy(c.arrived, c.reports())
	c.cloud = nil
	return err
}

// setTrap has something happen at one of the next packets, and mostly sees to it
// that there are some.
func (c *chaos) setTrap() error {
	if c.random.IntN(4) > 0 {
		if err := c.heal(); err != nil {
			return err
		}
	}
	if c.cloud == nil {
		return nil
	}
	cloud := c.cloud
	fault := func(name string) func() {
		return func() {
			faults := cloud.Faults()
			faults.Set(name) // one that it knows
			cloud.SetFaults(faults)
		}
	}
	more := []func() error{
		func() error { return nil }, c.desire,
		func() error { return c.ask(`{"operation":"keyvet.check","version":"1.0"}`, localiot.Succeeded) },
		func() error { return c.restart(syscall.SIGKILL) },
		func() error {
			c.net.cut() // the same program comes back
			return nil
		},
	}
	if err := more[c.random.IntN(len(more))](); err != nil {
		return err
	}
	agent := c.agent
	traps := []trap{
		{name: "SIGKILL", strike: func() { agent.Process.Kill() }}, {name: "SIGKILL", strike: func() { agent.Process.Kill() }},
		{name: "connections cut", strike: c.net.cut}, {name: "connections half open", strike: c.net.halfOpen},
		{name: "disk full", strike: func() { c.disk.fill(0) }},
	}
	for _, name := range []string{"drop-accepted", "throttle", "partition", "version-mismatch", "drop-accepted"} {
		traps = append(traps, trap{name: name, strike: fault(name)})
	}
	t := traps[c.random.IntN(len(traps))]
	t.packets = 1 + c.random.IntN(40)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap = &t
	return nil
}

// onPacket springs the trap, and notes which reports AWS IoT acknowledges,
// before the device can know.
func (c *chaos) onPacket(p localiot.Packet) {
	c.mu.Lock()
	var strike func()
	if t := c.trap; t != nil {
		if t.packets--; t.packets == 0 {
			c.trap, strike = nil, t.strike
			c.sprung = append(c.sprung, "trap: "+t.name)
		}
	}
	c.mu.Unlock()
	if strike != nil {
		strike()
	}
	if p.In || !strings.HasSuffix(p.Topic, "/shadow/name/keyvet/update/accepted") {
		return
	}
	var update struct {
		State struct{ Reported struct{ ReportID string } }
	}
	if json.Unmarshal(p.Payload, &update) == nil && update.State.Reported.ReportID != "" {
		c.mu.Lock()
		c.acknowledged[update.State.Reported.ReportID] = true
		c.mu.Unlock()
	}
}

// reports are those that came, by id, with the verdict.
func (c *chaos) reports() map[string]string {
	all := maps.Clone(c.arrived)
	if c.cloud != nil {
		for _, m := range c.cloud.Messages(c.topic()) {
			var r keptReport
			if json.Unmarshal(m.Payload, &r) == nil {
				all[r.ReportID] = r.Verdict
			}
		}
	}
	return all
}

func (c *chaos) heal() error {
	err := errors.Join(c.startCloud(), c.fault(""), c.disk.free(), c.resumeTPM())
	return errors.Join(err, c.certificateIs((*localiot.Server).Activate))
}

// disarm takes the trap away, and reports whether one has killed the program.
func (c *chaos) disarm() (killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap = nil
	for _, what := range c.sprung {
		c.tell(what)
		c.struck[what]++
		killed = killed || what == "trap: SIGKILL"
	}
	c.sprung = nil
	return killed
}

// stop ends the program, and looks at what it left.
func (c *chaos) stop(signal syscall.Signal) error {
	killed := c.disarm()
	if err := c.world.stop(signal); err != nil && (!killed || c.agent != nil) {
		return err
	}
	return c.look()
}

func (c *chaos) restart(signal syscall.Signal) error {
	if err := c.stop(signal); err != nil {
		return err
	}
	return c.start()
}

// pass lets time pass and looks.
func (c *chaos) pass(d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(chaosLook)
	defer tick.Stop()
	for {
		select {
		case err := <-c.ended:
			c.agent = nil
			if !c.disarm() {
				return fmt.Errorf("it ended by itself: %v", err)
			}
			if err := errors.Join(c.look(), c.start()); err != nil {
				return err
			}
		case <-end.C:
			return c.look()
		case <-tick.C:
			if err := c.look(); err != nil {
				return err
			}
		}
	}
}

// keptReport is what counts of a report.
type keptReport struct {
	ReportID string    `json:"reportId"`
	Time     time.Time `json:"time"`
	Verdict  string    `json:"verdict"`
}

// kept is what counts of last.json.
type kept struct {
	Report       keptReport `json:"report"`
	Acknowledged bool       `json:"acknowledged"`
}

// look holds the device to what must be so at every moment.
func (c *chaos) look() error {
	last, err := readJSON[kept](filepath.Join(c.state(), "last.json"))
	if err != nil {
		return err
	}
	trusted, err := readJSON[keptReport](gate.Path(filepath.Join(c.dir, "run")))
	if err != nil {
		return err
	}
	if last.Report.Verdict == "FAIL" {
		c.failing[last.Report.ReportID] = true
	}
	waiting, err := c.spooled()
	if err != nil {
		return err
	}
	faults := map[string]bool{}
	for _, name := range waiting { // oldest first
		parts := strings.SplitN(strings.TrimSuffix(name, ".json"), "-", 3)
		if fault, _, _ := strings.Cut(parts[1], "x"); fault != "drop" { // without how many it stands for
			c.failing[parts[2]] = true
			if !faults[fault] { // those after it make room for each other
				faults[fault], c.first[parts[2]] = true, true
			}
		}
	}
	if trusted.ReportID == "" {
		return nil
	}
	c.opened++
	c.mu.Lock()
	acknowledged := c.acknowledged[trusted.ReportID]
	c.mu.Unlock()
	switch {
	case c.weak || c.failing[trusted.ReportID]:
		return fmt.Errorf("the gate is open on report %s, which fails", trusted.ReportID)
	case last.Report.Verdict == "FAIL" && trusted.Time.Before(last.Report.Time):
		return fmt.Errorf("the gate is open on report %s, and a later one, %s, fails", trusted.ReportID, last.Report.ReportID)
	case c.policy == gate.Acknowledged && !acknowledged:
		return fmt.Errorf("the gate is open on report %s, which nobody acknowledged", trusted.ReportID)
	}
	return nil
}

func (c *chaos) spooled() ([]string, error) {
	files, err := os.ReadDir(filepath.Join(c.state(), "spool"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".json") {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// restless says what is not yet as it should be; "" if all is.
func (c *chaos) restless() string {
	last, err := readJSON[kept](filepath.Join(c.state(), "last.json"))
	if err != nil {
		return err.Error()
	}
	_, err = os.Stat(gate.Path(filepath.Join(c.dir, "run")))
	open := err == nil
	waiting, err := c.spooled()
	sound := !c.weak && !c.spoiled
	passes := last.Report.Verdict == "PASS" || last.Report.Verdict == "WARN"
	arrived := c.reports()
	switch {
	case err != nil:
		return err.Error()
	case !last.Acknowledged:
		return "the last report is not acknowledged"
	case passes != sound || !passes && last.Report.Verdict != "FAIL":
		return "the verdict is " + last.Report.Verdict
	case open != sound:
		return fmt.Sprintf("the gate is open: %v", open)
	case len(waiting) > 0:
		return fmt.Sprintf("%d reports in the spool", len(waiting))
	case !slices.Equal(c.cloud.Things(), []string{c.thing}):
		return fmt.Sprintf("things: %v", c.cloud.Things())
	}
	if used := c.usedCertificates(); len(used) != 1 || used[0].Status != localiot.Active {
		return fmt.Sprintf("certificates in use: %v", used)
	}
	for id := range c.first {
		if arrived[id] != "FAIL" {
			return fmt.Sprintf("report %s was the first on its fault, and never came", id)
		}
	}
	for _, e := range c.cloud.Executions("") {
		if want := c.jobs[e.Job]; e.Status != want {
			return fmt.Sprintf("job %s is %s, not %s: %v", e.Job, e.Status, want, e.StatusDetails)
		}
	}
	word := map[bool]string{true: "open", false: "shut"}[open]
	pairs := []string{"reportId=" + last.Report.ReportID, "verdict=" + last.Report.Verdict, "gate=" + word}
	if c.token != "" {
		pairs = append(pairs, "check="+c.token)
	}
	if shadow := c.cloud.Shadow(c.thing, "keyvet"); !shadowReports(shadow, pairs) {
		return fmt.Sprintf("the shadow is %s, not %v", shadow, pairs)
	}
	return ""
}

// usedCertificates are those of the thing that reports came under since the
// world was healed. Others may be active that were given up, with their keys.
func (c *chaos) usedCertificates() []localiot.Certificate {
	used := make(map[string]bool)
	for _, m := range c.cloud.Messages(c.topic())[c.before:] {
		used[m.CertificateID] = true
	}
	return slices.DeleteFunc(c.cloud.Certificates(c.thing), func(k localiot.Certificate) bool { return !used[k.ID] })
}

func (c *chaos) topic() string { return "keyvet/" + c.thing + "/report" }

func (c *chaos) tell(what string) {
	c.told = append(c.told, time.Now().Format("15:04:05.000 ")+what)
}

// story is what happened and the last that the program said.
func (c *chaos) story() string {
	lines := strings.Split(strings.TrimSpace(c.log()), "\n")
	return strings.Join(c.told, "\n") + "\n--\n" + strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// count adds what the device has made of it, which shows whether the faults struck.
func (c *chaos) count() {
	log := c.log()
	for _, words := range []string{
		"no space left", "CONNACK 5", "CONNACK 7", "no CONNACK", "closed before the CONNACK", "TLS alert", "connection reset", "hrottle",
		"no reply within", "no PUBACK", "connection lost", "vetted", "earlier report delivered", "not acknowledged", "VersionMismatch",
		"panic", "DATA RACE",
	} {
		c.struck["said: "+words] += strings.Count(log, words)
	}
	c.struck["failing reports kept"] += len(c.failing)
	c.struck["reports that came"] += len(c.reports())
	c.struck["jobs"] += len(c.jobs)
	if c.claim {
		c.struck["runs that begin with a claim"]++
		if c.cloud != nil {
			c.struck["certificates that they asked for"] += len(c.cloud.Certificates(c.thing))
		}
	}
	if c.tpm != nil {
		c.struck["runs with a TPM"]++
	}
	if c.weak {
		c.struck["runs with a weak key"]++
	}
	c.struck["looks at an open gate"] += c.opened
}
