// Package durabletest is for tests of what a power cut leaves: [Disk] is a file
// system that loses what was not synced, and [Power] goes at a point of choice.
package durabletest

import (
	"io/fs"
	"sync"

	"github.com/keyvet/keyvet/device/durable"
)

// Power counts the points at which power may go, and cuts it at one of them.
// Points may be met in several goroutines, if Kill is set.
type Power struct {
	CutAt int // the point, from 1 on; 0 is never

	// Kill ends the program at the cut and does not return; nil makes [Power.Run]
	// return instead. A test of a real program kills its own process there,
	// perhaps after [Shadow.Leave].
	Kill func()

	mu     sync.Mutex
	points int
	off    bool
}

type cut struct{}

// Point is called before and after whatever has an effect. It does not return
// once power is off.
func (p *Power) Point() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.off {
		p.points++
		p.off = p.points == p.CutAt
	}
	if !p.off {
		return
	}
	if p.Kill != nil {
		p.Kill()
	}
	panic(cut{})
}

// Points is how many there were so far.
func (p *Power) Points() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.points
}

// Run runs f and reports whether power was cut in it.
func (p *Power) Run(f func()) (wasCut bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
			wasCut = true
		}
	}()
	f()
	return false
}

// FS has a point before and after every change of the file system.
func (p *Power) FS(disk durable.FS) durable.FS { return powered{disk, p} }

type powered struct {
	durable.FS
	power *Power
}

func (p powered) around(change func() error) error {
	p.power.Point()
	err := change()
	p.power.Point()
	return err
}

func (p powered) Create(name string, data []byte, mode fs.FileMode) error {
	return p.around(func() error { return p.FS.Create(name, data, mode) })
}

func (p powered) Symlink(target, name string) error {
	return p.around(func() error { return p.FS.Symlink(target, name) })
}

func (p powered) Mkdir(name string, mode fs.FileMode) error {
	return p.around(func() error { return p.FS.Mkdir(name, mode) })
}

func (p powered) Rename(from, to string) error {
	return p.around(func() error { return p.FS.Rename(from, to) })
}

func (p powered) Remove(name string) error {
	return p.around(func() error { return p.FS.Remove(name) })
}

func (p powered) Sync(name string) error {
	return p.around(func() error { return p.FS.Sync(name) })
}
