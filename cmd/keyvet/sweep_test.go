package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var (
	sweepStride = flag.Int("sweep.stride", 40, "how many `points` of the power-cut sweep to go on by")
	sweepBeside = flag.Int("sweep.beside", 6, "sweep so many points beside each other")
)

// cutMain is keyvet whose power goes at one of its durable writes: at the
// CUT_AT-th point, CUT_DIR is left torn and the process killed. Without such a
// point, their number goes to file 3 in the end.
func cutMain() {
	dir := os.Getenv("CUT_DIR")
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "cut:", err)
			os.Exit(cli.Usage)
		}
	}
	cutAt, err := strconv.Atoi(os.Getenv("CUT_AT"))
	fail(err)
	shadow, err := durabletest.NewShadow(dir)
	fail(err)
	power := &durabletest.Power{CutAt: cutAt, Kill: func() {
		fail(shadow.Leave(cutAt))
		fail(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}}
	durable.System = power.FS(shadow)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	status := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	_, err = fmt.Fprint(os.NewFile(3, "points"), power.Points())
	fail(err)
	os.Exit(status)
}

// place is where power may go.
type place int

const (
	never    place = iota
	atWrite        // before and after each change of the file system
	atTPM          // before a command goes to the TPM, and before its answer comes back
	atPacket       // before the cloud acts on a packet, and before it sends one
)

var placeNames = []string{"never", "write", "TPM", "packet"}

// sweepCase is a rotation that is swept.
type sweepCase struct {
	name   string
	claim  bool // first provisioning, and no job
	config string
	active int // certificates of the thing that are active after success
}

var sweepCases = []sweepCase{
	{name: "job", active: 2}, // AWS IoT leaves the old one to the job's owner
	{name: "claim", claim: true, active: 1},
	{name: "topics", config: "rotate.issuer = \"topics\"\n", active: 1},
}

const (
	sweepThing = "gw"
	sweepJob   = "rotate-1"
	// sweepPatience is how long a boot that does not come to rest is waited for;
	// the longest pause of a device in between is 30 s.
	sweepPatience = 10 * time.Minute
)

// sweepWorld is a device with its TPM and its cloud.
type sweepWorld struct {
	sweepCase
	dir   string
	tpm   *tpmtest.SWTPM
	cloud *localiot.Server
	boots int
	stir  chan struct{} // something has passed

	mu     sync.Mutex
	cutIn  place
	cutAt  int
	points [4]int      // by place, of this boot
	device *os.Process // nil when it is not powered
}

// point is where power may go; it reports whether the device is without.
func (w *sweepWorld) point(in place) (off bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.points[in]++
	if w.device != nil && in == w.cutIn && w.points[in] == w.cutAt {
		_ = w.device.Kill()
		w.device = nil
	}
	select {
	case w.stir <- struct{}{}:
	default:
	}
	return w.device == nil
}

// sweepTemplate is a TPM that has stopped, and a key in it.
func sweepTemplate(t *testing.T) (dir string, blob *tpm.KeyBlob) {
	t.Helper()
	dir = t.TempDir()
	s, err := tpmtest.Start(t.Context(), tpmtest.Options{Dir: dir})
	must(t, err)
	c, err := tpm.Open(s.Address(), tpm.Options{})
	must(t, err)
	blob, err = c.CreateKey("ecdsa-p256")
	must(t, errors.Join(err, c.Close(), s.Stop()))
	return dir, blob
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newSweepWorld has the job queued and the device off.
func newSweepWorld(ctx context.Context, c sweepCase, dir, template string, blob *tpm.KeyBlob) (_ *sweepWorld, err error) {
	w := &sweepWorld{sweepCase: c, dir: dir, stir: make(chan struct{}, 1)}
	if w.tpm, err = tpmtest.Start(ctx, tpmtest.Options{Dir: filepath.Join(dir, "tpm1"), CopyOf: template}); err != nil {
		return w, err
	}
	options := localiot.Options{Dir: filepath.Join(dir, "cloud"), OnPacket: func(localiot.Packet) { w.point(atPacket) }}
	if w.cloud, err = localiot.Start(options); err != nil {
		return w, err
	}
	if c.claim {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return w, err
		}
		der, keyErr := x509.MarshalPKCS8PrivateKey(key)
		chain, err := w.cloud.IssueClaim(key.Public())
		return w, errors.Join(keyErr, err,
			os.WriteFile(filepath.Join(dir, "claim.pem"), chain, 0o600),
			os.WriteFile(filepath.Join(dir, "claim.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
	chain, err := w.cloud.IssueCertificate(sweepThing, blob.Public())
	identity := filepath.Join(w.state(), "identity")
	return w, errors.Join(err, os.MkdirAll(identity, 0o700),
		os.WriteFile(filepath.Join(identity, "certificate.pem"), chain, 0o600),
		os.WriteFile(filepath.Join(identity, "key.pem"), blob.PEM(), 0o600),
		w.cloud.CreateJob(localiot.Job{ID: sweepJob, Things: []string{sweepThing}, Document: json.RawMessage(`{"operation":"keyvet.rotate","version":"1.0"}`)}))
}

func (w *sweepWorld) close() {
	if w.cloud != nil {
		w.cloud.Close()
	}
	if w.tpm != nil {
		w.tpm.Stop()
	}
}

func (w *sweepWorld) state() string { return filepath.Join(w.dir, "state") }

// boot gives the device power until it has come to rest, or until the point at
// which it is cut. The TPM is reset before, and what was in memory is gone.
func (w *sweepWorld) boot(t context.Context, cutIn place, cutAt int) (wasCut bool, err error) {
	if w.boots++; w.boots > 1 {
		if err := errors.Join(w.resetTPM(t), os.RemoveAll(filepath.Join(w.dir, "run"))); err != nil {
			return false, err
		}
	}
	ctx, cancel := context.WithTimeout(t, sweepPatience)
	defer cancel()
	conn, err := net.Dial("unix", strings.TrimPrefix(w.tpm.Address(), "unix:"))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	var one sync.Mutex // no resource manager is between: one command after the other
	proxy, err := tpmtest.NewProxy("", func(command, _ []byte) []byte {
		one.Lock()
		defer one.Unlock()
		if w.point(atTPM) {
			return nil
		}
		response, err := exchange(conn, command)
		if err != nil || w.point(atTPM) {
			return nil
		}
		return response
	})
	if err != nil {
		return false, err
	}
	defer proxy.Close()
	configPath := filepath.Join(w.dir, "keyvet.toml")
	if err := os.WriteFile(configPath, w.configuration(proxy.Address()), 0o600); err != nil {
		return false, err
	}
	started := time.Now()
	ended, err := w.power(configPath, cutIn, cutAt)
	if err != nil {
		return false, err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for why := errors.New("not begun"); ; {
		select {
		case err := <-ended:
			if status := exitSignal(err); status != syscall.SIGKILL {
				return false, fmt.Errorf("keyvet ended by itself: %v", err)
			}
			return true, nil
		case <-w.stir:
		case <-tick.C:
		case <-ctx.Done():
			_, endErr := w.off(ended)
			return false, fmt.Errorf("it does not come to rest: %w", errors.Join(why, endErr))
		}
		if why = w.atRest(started); why == nil {
			return w.off(ended)
		}
	}
}

// exitSignal is the signal that ended a process, 0 for none.
func exitSignal(err error) syscall.Signal {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.Sys().(syscall.WaitStatus).Signal()
	}
	return 0
}

// power starts keyvet; ended gets how it ended.
func (w *sweepWorld) power(configPath string, cutIn place, cutAt int) (ended chan error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	points, err := os.Create(filepath.Join(w.dir, "points"))
	if err != nil {
		return nil, err
	}
	defer points.Close()
	fmt.Fprintf(out, "--- boot %d, cut at %s %d\n", w.boots, placeNames[cutIn], cutAt)
	at := 0
	if cutIn == atWrite {
		at = cutAt
	}
	cmd := &exec.Cmd{
		Path: self, Args: []string{"keyvet-cut", "run", "-config", configPath}, Stdout: out, Stderr: out, ExtraFiles: []*os.File{points},
		Env:         append(os.Environ(), "CUT_DIR="+w.state(), "CUT_AT="+strconv.Itoa(at)),
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := os.MkdirAll(w.state(), 0o700); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutIn, w.cutAt, w.points = cutIn, cutAt, [4]int{}
	ended = make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death signal comes when the thread ends
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	w.device = cmd.Process
	return ended, nil
}

// off has keyvet end in order, and counts its writes. It may be cut in that.
func (w *sweepWorld) off(ended chan error) (wasCut bool, err error) {
	w.mu.Lock()
	if w.device != nil {
		_ = w.device.Signal(syscall.SIGTERM)
	}
	w.mu.Unlock()
	select {
	case err := <-ended:
		if exitSignal(err) == syscall.SIGKILL {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("keyvet ended: %w", err)
		}
	case <-time.After(stopTime):
		w.mu.Lock()
		defer w.mu.Unlock()
		_ = w.device.Kill()
		return false, errors.New("keyvet does not end")
	}
	b, err := os.ReadFile(filepath.Join(w.dir, "points"))
	if err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.device = nil
	w.points[atWrite], err = strconv.Atoi(string(b))
	return false, err
}

// exchange sends a TPM a command (TPM 2.0 Library, Part 1, section 18).
func exchange(conn net.Conn, command []byte) ([]byte, error) {
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, 10)
	if _, err := io.ReadFull(conn, response); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(response[2:])
	if size < 10 || size > 4096 {
		return nil, fmt.Errorf("a response of %d bytes", size)
	}
	response = append(response, make([]byte, size-10)...)
	_, err := io.ReadFull(conn, response[10:])
	return response, err
}

// resetTPM cuts the TPM's power, too.
func (w *sweepWorld) resetTPM(ctx context.Context) error {
	from := filepath.Join(w.dir, "tpm"+strconv.Itoa(w.boots-1))
	if err := w.tpm.Stop(); err != nil {
		return err
	}
	s, err := tpmtest.Start(ctx, tpmtest.Options{Dir: filepath.Join(w.dir, "tpm"+strconv.Itoa(w.boots)), CopyOf: from})
	if err != nil {
		return err
	}
	w.tpm = s
	return os.RemoveAll(from)
}

func (w *sweepWorld) configuration(tpm string) []byte {
	text := fmt.Sprintf(`state_dir = %q
run_dir = %q
thing.name = %q
tpm.address = %q
identity.ca = [%q]
mqtt.endpoints = [%q]
mqtt.ca_file = %q
rotate.template = %q
rotate.grace = "0s"
%s`, w.state(), filepath.Join(w.dir, "run"), sweepThing, tpm, w.cloud.CAFile(), w.cloud.Endpoint(), w.cloud.CAFile(), localiot.Template, w.config)
	if w.claim {
		text += fmt.Sprintf("[provision]\nclaim_certificate = %q\nclaim_key = %q\ntemplate = %q\n",
			filepath.Join(w.dir, "claim.pem"), filepath.Join(w.dir, "claim.key"), localiot.Template)
	}
	return []byte(text)
}

// atRest returns why the device has not come to rest yet: its rotation is over,
// the gate is open on a report by the credential in use, the shadow shows it, and
// other programs have that credential.
func (w *sweepWorld) atRest(since time.Time) error {
	if !w.claim && !slices.ContainsFunc(w.cloud.Executions(sweepJob), localiot.Execution.Ended) {
		return errors.New("the job has not ended")
	}
	journal, err := rotate.File{Path: rotate.JournalPath(w.state())}.Load()
	if err != nil || journal.Rotation != nil || len(journal.Ended) == 0 {
		return fmt.Errorf("the journal is %+v, %v", journal, err)
	}
	reports := w.cloud.Messages("keyvet/" + sweepThing + "/report")
	chain, err := os.ReadFile(filepath.Join(w.state(), "identity", "certificate.pem"))
	block, _ := pem.Decode(chain)
	if err != nil || block == nil {
		return fmt.Errorf("no credential is in use: %v", err)
	}
	last := len(reports) - 1
	if last < 0 || reports[last].Time.Before(since) || reports[last].CertificateID != localiot.CertificateID(block.Bytes) {
		return errors.New("no report by the credential in use")
	}
	if !shadowReports(w.cloud.Shadow(sweepThing, "keyvet"), []string{"gate=open"}) {
		return errors.New("the gate is shut in the shadow")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "run", "trusted")); err != nil {
		return err
	}
	for _, name := range []string{"certificate.pem", "key.pem"} {
		inUse, err := os.ReadFile(filepath.Join(w.state(), "identity", name))
		if err != nil {
			return err
		}
		handedOut, err := os.ReadFile(filepath.Join(w.dir, "run", "identity", name))
		if err != nil || !bytes.Equal(inUse, handedOut) {
			return fmt.Errorf("other programs have another %s: %v", name, err)
		}
	}
	return nil
}

// wrong returns what is not as it has to be when the device has come to rest. A
// cut alone fails no rotation.
func (w *sweepWorld) wrong() error {
	journal, err := rotate.File{Path: rotate.JournalPath(w.state())}.Load()
	if err != nil {
		return err
	}
	if len(journal.Ended) != 1 || journal.Ended[0].Status != device.JobSucceeded {
		return fmt.Errorf("ended: %+v", journal.Ended)
	}
	if e := w.cloud.Executions(sweepJob); !w.claim && (len(e) != 1 || e[0].Status != localiot.Succeeded) {
		return fmt.Errorf("the job is %+v", e)
	}
	return errors.Join(w.wrongFiles(), w.wrongCloud(), w.wrongTPM())
}

// wrongFiles looks for anything half-written, and for a key too many.
func (w *sweepWorld) wrongFiles() error {
	var all, ids []string
	err := filepath.WalkDir(w.dir, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.state(), name)
		if err != nil || strings.HasPrefix(rel, "../") && !strings.HasPrefix(rel, "../run/") {
			return err
		}
		if dir, id := filepath.Split(rel); dir == "credentials/" {
			ids = append(ids, id)
		}
		for _, half := range []string{"keyvet-tmp", "removed", ".new", "spare"} {
			if strings.Contains(rel, half) {
				err = errors.Join(err, fmt.Errorf("%s is left", rel))
			}
		}
		if strings.HasSuffix(rel, ".json") {
			b, readErr := os.ReadFile(name)
			if !json.Valid(b) {
				err = errors.Join(err, readErr, fmt.Errorf("%s is no JSON: %q", rel, b))
			}
		}
		all = append(all, rel)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w, of %q", err, all)
	}
	target, err := os.Readlink(filepath.Join(w.state(), "identity"))
	if err != nil || len(ids) != 1 || target != "credentials/"+ids[0] {
		return fmt.Errorf("in use %q, %v, of %q", target, err, ids)
	}
	for _, name := range []string{"trusted", "identity"} { // it has ended in order
		if _, err := os.Lstat(filepath.Join(w.dir, "run", name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is left though nobody vouches for it: %v", name, err)
		}
	}
	return nil
}

// wrongCloud holds the certificate in use against its key and the cloud.
func (w *sweepWorld) wrongCloud() error {
	chain, err := os.ReadFile(filepath.Join(w.state(), "identity", "certificate.pem"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(w.state(), "identity", "key.pem"))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	blob, err := tpm.ParseKeyBlob(key)
	if err != nil {
		return err
	}
	if !bytes.Equal(blob.SPKI(), leaf.RawSubjectPublicKeyInfo) {
		return errors.New("the key in use is not the certificate's")
	}
	if things := w.cloud.Things(); !slices.Equal(things, []string{sweepThing}) {
		return fmt.Errorf("things %q", things)
	}
	active, used := 0, false
	for _, c := range w.cloud.Certificates(sweepThing) {
		if c.Status == localiot.Active {
			active++
			used = used || bytes.Equal(c.DER, leaf.Raw)
		}
	}
	if !used || active != w.active {
		return fmt.Errorf("of %d active certificates the one in use is one: %t", active, used)
	}
	return nil
}

// wrongTPM wants nothing in the TPM but what was there before.
func (w *sweepWorld) wrongTPM() error {
	conn, err := net.Dial("unix", strings.TrimPrefix(w.tpm.Address(), "unix:"))
	if err != nil {
		return err
	}
	defer conn.Close()
	for first, want := range map[uint32]int{0x02000000: 0, 0x80000000: 0, 0x81000000: 2} { // sessions, keys, endorsement keys
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(overConn{conn})
		if err != nil {
			return err
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		if err != nil || len(handles.Handle) != want {
			return fmt.Errorf("in the TPM are %x, %v", handles, err)
		}
	}
	return nil
}

// overConn is a TPM for go-tpm.
type overConn struct{ net.Conn }

func (c overConn) Send(command []byte) ([]byte, error) { return exchange(c.Conn, command) }

// sweepPoint is one point at which power goes.
type sweepPoint struct {
	sweepCase
	in place
	at int
}

func (p sweepPoint) String() string {
	return fmt.Sprintf("%s, cut at %s %d", p.name, placeNames[p.in], p.at)
}

// through cuts there, if there is such a point still, boots again to the end, and
// tells how many points the last boot had.
func (p sweepPoint) through(ctx context.Context, template string, blob *tpm.KeyBlob) (wasCut bool, points [4]int, err error) {
	dir, err := os.MkdirTemp("", "sweep")
	if err != nil {
		return false, points, err
	}
	defer os.RemoveAll(dir)
	w, err := newSweepWorld(ctx, p.sweepCase, dir, template, blob)
	defer w.close()
	if err == nil {
		wasCut, err = w.boot(ctx, p.in, p.at)
	}
	if wasCut {
		_, err = w.boot(ctx, never, 0)
	}
	if err == nil {
		err = w.wrong()
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		err = fmt.Errorf("%s: %w\n%s", p, err, log)
	}
	return wasCut, w.points, err
}

// TestSweep cuts the power of the real program, on a real TPM and a real broker,
// at every change of its disk, every TPM command and every MQTT packet of a
// rotation in turn, and boots it again.
func TestSweep(t *testing.T) {
	template, blob := sweepTemplate(t)
	var all []sweepPoint
	for _, c := range sweepCases {
		_, points, err := sweepPoint{sweepCase: c}.through(t.Context(), template, blob)
		must(t, err)
		t.Logf("%s: %d points at writes, %d at TPM commands, %d at packets", c.name, points[atWrite], points[atTPM], points[atPacket])
		for _, in := range []place{atWrite, atTPM, atPacket} {
			for at := range points[in] {
				all = append(all, sweepPoint{c, in, at + 1})
			}
		}
	}
	if len(all) < 1500 {
		t.Errorf("only %d points", len(all))
	}
	var next atomic.Int64
	var mu sync.Mutex
	points, cuts := 0, 0
	var beside sync.WaitGroup
	for range *sweepBeside {
		beside.Go(func() {
			for {
				i := int(next.Add(1)) * *sweepStride
				if i -= *sweepStride / 2; i > len(all) || t.Context().Err() != nil {
					return
				}
				wasCut, _, err := all[i-1].through(t.Context(), template, blob)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				if points++; wasCut {
					cuts++
				}
				if points%250 == 0 {
					t.Logf("%d points, %d cuts", points, cuts)
				}
				mu.Unlock()
			}
		})
	}
	beside.Wait()
	if cuts < points*9/10 { // the last packets come as they like
		t.Errorf("only %d cuts", cuts)
	}
	t.Logf("%d of %d points, %d cuts", points, len(all), cuts)
}
