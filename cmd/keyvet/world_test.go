package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// world is one device that runs the real program, with all that it stands on.
type world struct {
	dir, thing string
	options    localiot.Options // but for its Dir
	tpm        *tpmtest.SWTPM   // or nil

	cloud       *localiot.Server // nil while it is down
	claim       bool             // the device begins with a claim alone
	certificate string           // id of the one it begins with, if that is its own
	net         *network
	disk        *disk

	agent *exec.Cmd // nil while it does not run
	ended chan error
}

// build gives the device a certificate on key; more are further lines of its configuration.
func (w *world) build(key crypto.Signer, more string) (err error) {
	if w.disk, err = newDisk(filepath.Join(w.dir, "disk")); err != nil {
		return err
	}
	identity := filepath.Join(w.state(), "identity")
	if !w.claim {
		err = os.MkdirAll(identity, 0o700)
	}
	if err := errors.Join(err, w.startCloud()); err != nil {
		return err
	}
	if w.net, err = newNetwork(w.cloud.Endpoint()); err != nil {
		return err
	}
	var chain []byte
	certificatePath, keyPath := filepath.Join(identity, "certificate.pem"), filepath.Join(identity, "key.pem")
	if w.claim {
		certificatePath, keyPath = filepath.Join(w.dir, "claim.pem"), filepath.Join(w.dir, "claim.key")
		chain, err = w.cloud.IssueClaim(key.Public())
		more += fmt.Sprintf("[provision]\nclaim_certificate = %q\nclaim_key = %q\ntemplate = %q\n", certificatePath, keyPath, localiot.Template)
	} else {
		chain, err = w.cloud.IssueCertificate(w.thing, key.Public())
	}
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(chain); !w.claim {
		w.certificate = localiot.CertificateID(block.Bytes)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	tpm := ""
	if w.tpm != nil {
		tpm = w.tpm.Address()
	}
	return errors.Join(
		os.WriteFile(certificatePath, chain, 0o600),
		os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(w.config(), fmt.Appendf(nil, `state_dir = %q
run_dir = %q
thing.name = %q
tpm.address = %q
tpm.timeout = "10s"
identity.ca = [%q]
mqtt.endpoints = [%q]
mqtt.ca_file = %q
mqtt.keepalive = "30s"
%s`, w.state(), filepath.Join(w.dir, "run"), w.thing, tpm, w.cloud.CAFile(), w.net.endpoint(), w.cloud.CAFile(), more), 0o600),
	)
}

func (w *world) state() string  { return filepath.Join(w.dir, "disk", "state") }
func (w *world) config() string { return filepath.Join(w.dir, "keyvet.toml") }

func (w *world) startCloud() (err error) {
	if w.cloud != nil {
		return nil
	}
	w.options.Dir = filepath.Join(w.dir, "cloud")
	w.cloud, err = localiot.Start(w.options)
	if err == nil && w.net != nil {
		w.net.to(w.cloud.Endpoint())
	}
	return err
}

func (w *world) resumeTPM() error {
	if w.tpm == nil {
		return nil
	}
	return w.tpm.Resume()
}

// flushTPM does what the kernel's resource manager does when a program ends: what
// it had loaded goes.
func (w *world) flushTPM() error {
	if w.tpm == nil {
		return nil
	}
	if err := w.tpm.Resume(); err != nil {
		return err
	}
	answer, hangUp, err := tpmtest.Dial(w.tpm.Address())
	if err != nil {
		return err
	}
	defer hangUp()
	for _, first := range []uint32{uint32(tpm2.TPMHTHMACSession) << 24, uint32(tpm2.TPMHTPolicySession) << 24, uint32(tpm2.TPMHTTransient) << 24} {
		list, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 16}.Execute(rawTPM(answer))
		if err != nil {
			return err
		}
		handles, err := list.CapabilityData.Data.Handles()
		if err != nil {
			return err
		}
		for _, h := range handles.Handle {
			if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(rawTPM(answer)); err != nil {
				return err
			}
		}
	}
	return nil
}

type rawTPM func(command []byte) ([]byte, error)

func (t rawTPM) Send(command []byte) ([]byte, error) { return t(command) }

// start starts the program, as a supervisor would.
func (w *world) start() error {
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := w.flushTPM(); err != nil {
		return err
	}
	agent, ended := exec.Command("keyvet-small", "run", "-config", w.config()), make(chan error, 1)
	agent.Env = append(os.Environ(), "SMALL_DISK="+w.disk.dir)
	agent.Stderr = log
	if err := agent.Start(); err != nil {
		return err
	}
	w.agent, w.ended = agent, ended
	go func() { ended <- agent.Wait() }()
	return nil
}

// log is what the program has said.
func (w *world) log() string {
	b, err := os.ReadFile(filepath.Join(w.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stopTime is how long a program that hangs is waited for, from SIGTERM on.
const stopTime = time.Minute

// stop ends the program by a signal.
func (w *world) stop(signal syscall.Signal) error {
	if err := w.agent.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case err := <-w.ended:
		w.agent = nil
		// Before it has heard of signals, the signal ends it.
		if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != signal) {
			return fmt.Errorf("%v: %w", signal, err)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("%v after %v it runs on", stopTime, signal)
	}
}

// close takes all of it down, however far it was put up.
func (w *world) close() {
	if w.agent != nil {
		w.agent.Process.Kill()
		<-w.ended
	}
	if w.net != nil {
		w.net.close()
	}
	if w.cloud != nil {
		w.cloud.Close()
	}
	if w.tpm != nil {
		w.tpm.Resume()
		w.tpm.Stop()
	}
}

// readJSON reads a file, or gives the zero value if it is not there.
func readJSON[T any](path string) (v T, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return v, err
}

// network is the way from a device to an endpoint, which may end in all ways
// that a TCP connection does.
type network struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu      sync.Mutex
	backend string
	links   map[*link]bool
	closed  bool
}

// link is one connection of a device, and the one that carries it on.
type link struct{ near, far net.Conn }

func newNetwork(backend string) (*network, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &network{listener: l, backend: backend, links: make(map[*link]bool)}
	n.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() { n.carry(c) })
		}
	})
	return n, nil
}

// endpoint is where the device connects to.
func (n *network) endpoint() string {
	return net.JoinHostPort("localhost", strconv.Itoa(n.listener.Addr().(*net.TCPAddr).Port))
}

// to leads further connections to another endpoint.
func (n *network) to(backend string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.backend = backend
}

// carry passes bytes on until the device hangs up. Once the far end is gone
// without a word, what the device says is swallowed.
func (n *network) carry(near net.Conn) {
	defer near.Close()
	n.mu.Lock()
	backend := n.backend
	n.mu.Unlock()
	far, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer far.Close()
	l := &link{near, far}
	if !n.hold(l) {
		return
	}
	defer n.release(l)
	n.serving.Go(func() {
		io.Copy(near, far)
		if n.release(l) { // else it was cut, or is half open
			near.Close()
		}
	})
	io.Copy(far, near)
	if !n.held(l) {
		io.Copy(io.Discard, near)
	}
}

func (n *network) hold(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.links[l] = true
	}
	return !n.closed
}

func (n *network) held(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[l]
}

func (n *network) release(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := n.links[l]
	delete(n.links, l)
	return held
}

// cut resets every connection.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		delete(n.links, l)
		l.near.(*net.TCPConn).SetLinger(0)
		l.near.Close()
		l.far.Close()
	}
}

// halfOpen takes the far end of every connection away, of which the device
// hears nothing.
func (n *network) halfOpen() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		delete(n.links, l)
		l.far.Close()
	}
}

// close needs the devices to be gone.
func (n *network) close() {
	n.listener.Close()
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cut()
	n.serving.Wait()
}

// diskBytes is how large the disk of a world is.
const diskBytes = 1 << 20

// disk is a directory that the program takes for a disk of diskBytes.
type disk struct{ dir string }

func newDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &disk{dir}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves room for so many blocks.
func (d *disk) fill(blocks int) error {
	if err := d.free(); err != nil {
		return err
	}
	used, err := blocksIn(d.dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(int64(max(0, diskBytes/blockBytes-used-blocks)) * blockBytes) // nothing is written
}

func (d *disk) free() error {
	err := os.Remove(d.ballast())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

const blockBytes = 4 << 10

// blocksIn is how many blocks the files below dir take.
func blocksIn(dir string) (blocks int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				blocks += int(info.Size()+blockBytes-1) / blockBytes
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
	return blocks, err
}

// smallFS is the machine's file system, but for a directory that has room for
// diskBytes. It needs no privilege, as a file system of that size would.
type smallFS struct {
	durable.OS
	dir string
}

func (s smallFS) Create(name string, data []byte, mode fs.FileMode) error {
	if !strings.HasPrefix(name, s.dir+"/") {
		return s.OS.Create(name, data, mode)
	}
	used, err := blocksIn(s.dir)
	if err != nil {
		return err
	}
	room := max(0, diskBytes-used*blockBytes)
	if err := s.OS.Create(name, data[:min(room, len(data))], mode); err != nil {
		return err
	}
	if room < len(data) { // a part is left, as on a disk
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

// smallMain is keyvet whose state is on a small disk, SMALL_DISK.
func smallMain() {
	durable.System = smallFS{dir: os.Getenv("SMALL_DISK")}
	main()
}

// The small disk is full where it should be, whoever runs the test.
func TestSmallDisk(t *testing.T) {
	d, err := newDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	small, block := durable.Disk{FS: smallFS{dir: d.dir}}, make([]byte, blockBytes)
	for _, room := range []int{0, 2} {
		if err := d.fill(room); err != nil {
			t.Fatal(err)
		}
		for i := range room {
			if err := small.WriteFile(filepath.Join(d.dir, fmt.Sprint(room, i)), block, 0o600); err != nil {
				t.Error(err)
			}
		}
		if err := small.WriteFile(filepath.Join(d.dir, "more"), block, 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("after %d blocks: %v, want a full disk", room, err)
		}
	}
	if err := small.WriteFile(filepath.Join(t.TempDir(), "elsewhere"), block, 0o600); err != nil {
		t.Error(err)
	}
	if err := errors.Join(d.free(), small.WriteFile(filepath.Join(d.dir, "more"), block, 0o600)); err != nil {
		t.Error(err)
	}
}
