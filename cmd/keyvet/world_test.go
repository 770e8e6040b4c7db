package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

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
