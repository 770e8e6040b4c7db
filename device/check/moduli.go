package check

import (
	"context"
	"crypto/sha256"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/keyvet/keyvet/device"
)

// Moduli are the RSA moduli of a run: each is attacked once, however many keys
// have it. The costly attacks are for those that the device relies on, and for
// the first of those in files, as many as [maxCostly] allows. The nil Moduli
// remembers nothing and has all attacks tried.
//
// It is for concurrent use. Which moduli come first is said by [Moduli.Expect].
type Moduli struct {
	mu     sync.Mutex
	known  map[[sha256.Size]byte]*attacked
	spent  int
	spared int
}

const (
	// maxCostly is how many RSA-2048 moduli of files are put to the costly
	// attacks, which takes half a second; the cost grows with the cube of the
	// size.
	maxCostly = 128
	// maxKnown bounds the moduli that are remembered.
	maxKnown = 1 << 16
)

// attacked is a modulus and what came of the attacks on it.
type attacked struct {
	target target
	wholly bool // whether the costly attacks are tried, too

	once   sync.Once
	broken *broken // nil if none worked
	err    error   // why not all were tried
}

// Ahead attacks the modulus of a key, if it has one, before a check asks for it.
func (m *Moduli) Ahead(ctx context.Context, k device.Key) {
	if n, e, isRSA := k.RSA(); isRSA && n.Sign() > 0 && n.Bit(0) == 1 && n.BitLen() <= factorsCeiling {
		m.of(k.Role, target{n, e}).run(ctx)
	}
}

// of returns a modulus in the role of a key that has it.
func (m *Moduli) of(role device.Role, t target) *attacked {
	if m == nil {
		return &attacked{target: t, wholly: true}
	}
	hash := sha256.New()
	for _, number := range [][]byte{t.n.Bytes(), t.e.Bytes()} {
		sum := sha256.Sum256(number)
		hash.Write(sum[:])
	}
	key := [sha256.Size]byte(hash.Sum(nil))
	m.mu.Lock()
	defer m.mu.Unlock()
	relied := inTPM(role) || role == device.RoleDevice || role == device.RoleClaim || role == device.RoleCA
	a := m.known[key]
	if a != nil && (a.wholly || !relied) {
		return a
	}
	a = &attacked{target: t, wholly: relied || m.spent < maxCostly}
	if !relied && a.wholly {
		size := (t.n.BitLen() + 2047) / 2048
		m.spent += size * size * size
	}
	if len(m.known) >= maxKnown {
		return a
	}
	if m.known == nil {
		m.known = make(map[[sha256.Size]byte]*attacked)
	}
	if m.known[key] = a; !a.wholly {
		m.spared++
	}
	return a
}

// Spared returns how many moduli were not put to the costly attacks, of those that
// are remembered.
func (m *Moduli) Spared() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spared
}

// Expect says that keys come next.
func (m *Moduli) Expect(keys []device.Key) { m.expect(keys) }

func (m *Moduli) expect(keys []device.Key) (all []*attacked) {
	for _, k := range keys {
		n, e, ok := k.RSA()
		if ok && n.Bit(0) == 1 && n.Sign() > 0 && n.BitLen() <= factorsCeiling {
			all = append(all, m.of(k.Role, target{n, e}))
		}
	}
	return all
}

// attack attacks the moduli of keys, on all processors.
func (m *Moduli) attack(ctx context.Context, keys []device.Key) {
	if m == nil || len(keys) < 2 {
		return
	}
	all := m.expect(keys)
	Parallel(len(all), func(i int) { all[i].run(ctx) })
}

// Parallel calls do for each number below n, on all processors.
func Parallel(n int, do func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var others sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// run tries the attacks, unless that was done before.
func (a *attacked) run(ctx context.Context) {
	a.once.Do(func() {
		tried := [][]attack{attacks, costly}
		if !a.wholly {
			tried = tried[:1]
		}
		for _, some := range tried {
			for _, try := range some {
				if a.err = ctx.Err(); a.err != nil {
					return
				}
				if a.broken = try(ctx, a.target); a.broken != nil {
					return
				}
			}
		}
		a.err = ctx.Err() // some give up when it ends
	})
}
