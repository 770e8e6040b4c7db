package tpmtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Rewrite gives the answer to a command. response is the TPM's own, a whole
// frame, or nil if there is no TPM behind the proxy; both are valid during the
// call. What is returned goes to the client as it is, whole frame or not; nil
// leaves the client without an answer.
type Rewrite func(command, response []byte) []byte

// Proxy stands in front of a TPM, or in its place.
type Proxy struct {
	dir      string
	backend  string
	refuse   Refuse
	rewrite  Rewrite
	listener net.Listener

	mu      sync.Mutex
	clients map[net.Conn]bool // nil when closed
	serving sync.WaitGroup
}

// NewProxy listens at a unix socket in a temporary directory and hands each
// command to the TPM at backend, a unix: address, or to none if it is empty.
func NewProxy(backend string, rewrite Rewrite) (*Proxy, error) {
	return NewInterposer(backend, nil, rewrite)
}

// NewInterposer is NewProxy for one that keeps commands from the TPM, too; refuse
// may be nil.
func NewInterposer(backend string, refuse Refuse, rewrite Rewrite) (*Proxy, error) {
	dir, err := os.MkdirTemp("", "tpmproxy")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "tpm.sock"))
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	p := &Proxy{dir: dir, backend: backend, refuse: refuse, rewrite: rewrite, listener: listener, clients: make(map[net.Conn]bool)}
	p.serving.Go(p.accept)
	return p, nil
}

// RunProxy runs a proxy for the length of a test.
func RunProxy(t TB, backend string, rewrite Rewrite) *Proxy {
	t.Helper()
	return RunInterposer(t, backend, nil, rewrite)
}

// RunInterposer runs an interposer for the length of a test.
func RunInterposer(t TB, backend string, refuse Refuse, rewrite Rewrite) *Proxy {
	t.Helper()
	p, err := NewInterposer(backend, refuse, rewrite)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return p
}

// Address is where the proxy is to be reached: "unix:" and a path.
func (p *Proxy) Address() string { return "unix:" + p.listener.Addr().String() }

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.clients {
		c.Close()
	}
	p.clients = nil
	p.mu.Unlock()
	p.serving.Wait()
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.serving.Go(func() { p.serve(client) })
	}
}

// track notes an open connection, to be closed with the proxy; it reports
// whether the proxy is still open.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients == nil {
		return false
	}
	p.clients[c] = true
	return true
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.track(client) {
		return
	}
	var tpm net.Conn
	if p.backend != "" {
		var err error
		if tpm, err = dial(p.backend); err != nil {
			return
		}
		defer tpm.Close()
		if !p.track(tpm) {
			return
		}
	}
	for {
		command, err := readFrame(client)
		if err != nil {
			return
		}
		if p.refuse != nil {
			if response := p.refuse(command); response != nil {
				if _, err := client.Write(response); err != nil {
					return
				}
				continue
			}
		}
		var response []byte
		if tpm != nil {
			if _, err := tpm.Write(command); err != nil {
				return
			}
			if response, err = readFrame(tpm); err != nil {
				return
			}
		}
		if _, err := client.Write(p.rewrite(command, response)); err != nil {
			return
		}
	}
}

func dial(address string) (net.Conn, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return nil, fmt.Errorf("%s is not a unix: address", address)
	}
	conn, err := net.Dial("unix", path)
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EAGAIN) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // swtpm's queue is full: it takes two connections
		conn, err = net.Dial("unix", path)
	}
	return conn, err
}

// readFrame reads a command or response by the length in its header (TPM 2.0
// Library, Part 1, section 18).
func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 10)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(frame[2:])
	if size < 10 || size > 4096 {
		return nil, fmt.Errorf("frame of %d bytes", size)
	}
	frame = append(frame, make([]byte, size-10)...)
	_, err := io.ReadFull(r, frame[10:])
	return frame, err
}

// Pretend has a TPM claim another make in TPM2_GetCapability (TPM 2.0 Library,
// Part 2, section 6.13); its Rewrite is for [NewProxy].
type Pretend struct {
	Manufacturer    string // up to 4 characters: "IFX"
	VendorString    string // up to 16 characters: "SLB9670"
	FirmwareVersion uint64 // TPM_PT_FIRMWARE_VERSION_1 and _2: 0x0007003d000ae100 is 7.61.2785.0 of an IFX
}

// Rewrite is a [Rewrite].
func (p Pretend) Rewrite(command, response []byte) []byte {
	const (
		getCapability = 0x17a // TPM_CC_GetCapability
		tpmProperties = 6     // TPM_CAP_TPM_PROPERTIES
		list          = 10 + 1 + 4
	)
	if len(command) < 14 || binary.BigEndian.Uint32(command[6:]) != getCapability || binary.BigEndian.Uint32(command[10:]) != tpmProperties ||
		len(response) < list+4 || binary.BigEndian.Uint32(response[6:]) != 0 {
		return response
	}
	for at := list + 4; at+8 <= len(response); at += 8 {
		property, value := binary.BigEndian.Uint32(response[at:]), response[at+4:at+8]
		switch {
		case property == 0x105:
			setText(value, p.Manufacturer, 0)
		case property >= 0x106 && property <= 0x109:
			setText(value, p.VendorString, 4*int(property-0x106))
		case property == 0x10b:
			binary.BigEndian.PutUint32(value, uint32(p.FirmwareVersion>>32))
		case property == 0x10c:
			binary.BigEndian.PutUint32(value, uint32(p.FirmwareVersion))
		}
	}
	return response
}

// setText puts the characters of text from there on into value, and zeros after them.
func setText(value []byte, text string, from int) {
	clear(value)
	if from < len(text) {
		copy(value, text[from:])
	}
}
