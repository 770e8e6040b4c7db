package main

import (
	"bytes"
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
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/mqtt/localiot"
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
tpm.timeout = "3s"
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
	agent, ended := exec.Command("keyvet", "run", "-config", w.config()), make(chan error, 1)
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

// stopTime bounds what the program may take from SIGTERM to its end.
const stopTime = 5 * time.Second

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
	if w.disk != nil {
		w.disk.close()
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

// disk is a small file system of its own where that may be mounted; else a
// directory, and full means that nothing can be written there.
type disk struct {
	dir     string
	mounted bool
}

func newDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700")
	if err != nil && !errors.Is(err, syscall.EPERM) {
		return nil, err
	}
	return &disk{dir: dir, mounted: err == nil}, nil
}

// fill leaves room for so many blocks.
func (d *disk) fill(blocks int) error {
	if !d.mounted {
		return d.writable(0o500)
	}
	f, err := os.OpenFile(filepath.Join(d.dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		return err
	}
	defer f.Close()
	block := bytes.Repeat([]byte{1}, os.Getpagesize())
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Truncate(max(0, info.Size()-int64(blocks*len(block))))
}

func (d *disk) free() error {
	if !d.mounted {
		return d.writable(0o700)
	}
	err := os.Remove(filepath.Join(d.dir, "ballast"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (d *disk) writable(mode os.FileMode) error {
	return filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, mode)
		}
		return err
	})
}

func (d *disk) close() {
	if d.mounted {
		syscall.Unmount(d.dir, syscall.MNT_DETACH)
	} else {
		d.writable(0o700)
	}
}
