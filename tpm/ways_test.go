package tpm

import (
	"cmp"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/keyvet/keyvet/tpm/tis"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// byEveryWay runs a test by each way there is to a TPM: the socket, and chips
// on a SPI and on an I2C bus before it.
func byEveryWay(t *testing.T, test func(t *testing.T, by *way)) {
	for _, bus := range []string{"", "spi", "i2c"} {
		t.Run(cmp.Or(bus, "socket"), func(t *testing.T) {
			by := &way{bus: bus, started: make(map[tpmtest.Options]int)}
			t.Cleanup(func() { by.check(t) })
			test(t, by)
		})
	}
}

// way is how a test gets at its TPMs.
type way struct {
	bus     string // or ""
	started map[tpmtest.Options]int
	fronts  []*front
}

// to is the address of a TPM that listens at a socket: that of a front before a
// chip on the bus, which is before the socket.
func (w *way) to(t *testing.T, socket string) string {
	t.Helper()
	if w.bus == "" {
		return socket
	}
	f := &front{way: w, socket: socket}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			f.serving.Go(func() { f.serve(client) })
		}
	})
	w.fronts = append(w.fronts, f)
	t.Cleanup(func() {
		listener.Close()
		f.serving.Wait()
	})
	return "unix:" + path
}

// front carries commands from clients over a bus to a model of a chip.
type front struct {
	way     *way
	socket  string // behind the chip
	serving sync.WaitGroup

	mu    sync.Mutex
	chips []*tpmtest.Chip // one for each client
}

func (f *front) serve(client net.Conn) {
	defer client.Close()
	answer, hangUp, err := tpmtest.Dial(f.socket)
	if err != nil {
		return
	}
	defer hangUp()
	model := tpmtest.NewChip(answer, tpmtest.Faults{Prompt: true})
	f.mu.Lock()
	f.chips = append(f.chips, model)
	f.mu.Unlock()
	chip, err := buses[f.way.bus](model, tis.Options{})
	if err != nil {
		return
	}
	defer chip.Close()
	commands := make(chan []byte)
	go func() {
		defer close(commands)
		defer hangUp() // a client that leaves ends the command that is under way
		for {
			command := make([]byte, 10, 4096)
			if _, err := io.ReadFull(client, command); err != nil {
				return
			}
			command = command[:min(int(binary.BigEndian.Uint32(command[2:])), cap(command))]
			if _, err := io.ReadFull(client, command[10:]); err != nil {
				return
			}
			commands <- command
		}
	}()
	for command := range commands {
		response, err := chip.Send(command)
		if err == nil {
			_, err = client.Write(response)
		}
		if err != nil {
			client.Close()
		}
	}
}

// check fails the test unless the chips were used, and as they may be.
func (w *way) check(t *testing.T) {
	used := w.bus == ""
	for _, f := range w.fronts {
		f.mu.Lock()
		for _, c := range f.chips {
			used = true
			if v := c.Violations(); len(v) != 0 {
				t.Errorf("%s: violations: %q", w.bus, v)
			}
		}
		f.mu.Unlock()
	}
	if !used {
		t.Errorf("no chip on a %s bus was used", w.bus)
	}
}

// machine is an swtpm, and the address by which the test gets at it.
type machine struct {
	*tpmtest.SWTPM
	address string
}

func (m machine) Address() string { return m.address }

// run starts a TPM of those options that nothing was done to, another one each
// time; by another way, the same ones.
func (w *way) run(t *testing.T, opts tpmtest.Options) machine {
	t.Helper()
	w.started[opts]++
	copied := opts
	copied.CopyOf = manufactured(t, opts, w.started[opts])
	s := tpmtest.Run(t, copied)
	return machine{s, w.to(t, s.Address())}
}

// proxied is a proxy, and the address by which the test gets at it.
type proxied struct {
	*tpmtest.Proxy
	address string
}

func (p proxied) Address() string { return p.address }

// proxy puts a proxy in front of a TPM, or in the place of one, and the chip
// before the proxy.
func (w *way) proxy(t *testing.T, m machine, rewrite tpmtest.Rewrite) proxied {
	t.Helper()
	socket := ""
	if m.SWTPM != nil {
		socket = m.SWTPM.Address()
	}
	p := tpmtest.RunProxy(t, socket, rewrite)
	return proxied{p, w.to(t, p.Address())}
}

// made are the TPMs that those of byEveryWay are copies of, in a directory
// that TestMain removes.
var made struct {
	sync.Mutex
	dir  string
	byID map[madeID]string
}

type madeID struct {
	opts tpmtest.Options
	n    int
}

func manufactured(t *testing.T, opts tpmtest.Options, n int) string {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	opts.FailureMode = false // which is not of its making
	id := madeID{opts, n}
	if dir, ok := made.byID[id]; ok {
		return dir
	}
	if made.dir == "" {
		dir, err := os.MkdirTemp("", "made")
		if err != nil {
			t.Fatal(err)
		}
		made.dir, made.byID = dir, make(map[madeID]string)
	}
	dir := filepath.Join(made.dir, strconv.Itoa(len(made.byID)))
	opts.Dir = dir
	s, err := tpmtest.Start(t.Context(), opts)
	if err == nil {
		err = s.Stop()
	}
	if err != nil {
		t.Fatal(err)
	}
	made.byID[id] = dir
	return dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		os.RemoveAll(made.dir)
	}
	os.Exit(code)
}
