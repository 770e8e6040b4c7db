package tpm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

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
}

// modelledBuses are those with a model of a chip, by their addresses.
var modelledBuses = struct {
	sync.Mutex
	at map[string]*modelledBus
}{at: make(map[string]*modelledBus)}

type modelledBus struct {
	way    *way
	socket string          // behind the chip
	chips  []*tpmtest.Chip // one for each time that it was opened
}

// to is the address of a TPM that listens at a socket.
func (w *way) to(socket string) string {
	if w.bus == "" {
		return socket
	}
	modelledBuses.Lock()
	defer modelledBuses.Unlock()
	format := map[string]string{"spi": "spi:/dev/spidev%d.0", "i2c": "i2c:/dev/i2c-%d"}[w.bus]
	address := fmt.Sprintf(format, 1000+len(modelledBuses.at)) // no machine has so many
	modelledBuses.at[address] = &modelledBus{way: w, socket: socket}
	return address
}

// check tells whether the chips were used, and as they may be.
func (w *way) check(t *testing.T) {
	modelledBuses.Lock()
	defer modelledBuses.Unlock()
	used := w.bus == ""
	for address, b := range modelledBuses.at {
		for _, c := range b.chips {
			used = used || b.way == w
			if v := c.Violations(); b.way == w && len(v) != 0 {
				t.Errorf("%s: violations: %q", address, v)
			}
		}
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
	return machine{s, w.to(s.Address())}
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
	return proxied{p, w.to(p.Address())}
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

// modelled is a chip that is a model before a TPM's socket.
type modelled struct {
	*tis.Chip
	hangUp func() error
}

func (m modelled) Close() error { return errors.Join(m.hangUp(), m.Chip.Close()) }

func init() {
	open := openChip
	openChip = func(address string, timeout time.Duration) (chip, error) {
		modelledBuses.Lock()
		defer modelledBuses.Unlock()
		b, ok := modelledBuses.at[address]
		if !ok {
			return open(address, timeout)
		}
		answer, hangUp, err := tpmtest.Dial(b.socket)
		if err != nil {
			return nil, err
		}
		model := tpmtest.NewChip(answer, tpmtest.Faults{Prompt: true})
		b.chips = append(b.chips, model)
		c, err := buses[b.way.bus](model, tis.Options{Timeout: timeout})
		if err != nil {
			return nil, errors.Join(err, hangUp())
		}
		return modelled{c, hangUp}, nil
	}
}
