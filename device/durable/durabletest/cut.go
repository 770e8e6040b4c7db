package durabletest

import (
	"crypto/sha256"
	"fmt"
	"maps"
)

// Cut gives every disk that a power cut now may leave, each once; the first
// has all that the program saw (the program was killed, the power stayed).
func (d *Disk) Cut() []*Disk {
	if len(d.pending) > maxPending {
		panic(fmt.Sprintf("durabletest: %d changes of directories wait to be synced", len(d.pending)))
	}
	var all []*Disk
	seen := map[string]bool{}
	for subset := 1<<len(d.pending) - 1; subset >= 0; subset-- {
		for _, tear := range torn {
			root, tore := d.survivor(subset, tear)
			left := &Disk{Limit: d.Limit, ReadOnly: d.ReadOnly, root: root}
			if len(d.pending) > 0 || tore { // else there is but one
				key := left.digest()
				if seen[key] {
					continue
				}
				seen[key] = true
			}
			all = append(all, left)
			if !tore {
				break
			}
		}
	}
	return all
}

// digest is equal for equal disks.
func (d *Disk) digest() string {
	h := sha256.New()
	d.each(func(name string, n *node) {
		fmt.Fprintf(h, "%d %d %d %s ", n.mode, len(name), len(n.data), name)
		h.Write(n.data)
	})
	return string(h.Sum(nil))
}

// survivor copies the tree with those pending changes whose bit is in subset,
// and reports whether there was anything to tear.
func (d *Disk) survivor(subset int, tear func([]byte) []byte) (root *node, tore bool) {
	entries := map[*node]map[string]*node{}
	of := func(n *node) map[string]*node {
		if entries[n] == nil {
			entries[n] = maps.Clone(n.durable)
		}
		return entries[n]
	}
	for i, c := range d.pending {
		if subset&(1<<i) != 0 {
			c.apply(of)
		}
	}
	var copied func(*node) *node
	copied = func(n *node) *node {
		c := &node{mode: n.mode, data: n.data, synced: true}
		if !n.synced && n.mode.IsRegular() {
			c.data, tore = tear(n.data), true
		}
		if n.mode.IsDir() {
			c.entries, c.durable = map[string]*node{}, map[string]*node{}
			for name, e := range of(n) {
				c.entries[name] = copied(e)
			}
			maps.Copy(c.durable, c.entries)
		}
		return c
	}
	root = copied(d.root)
	return root, tore
}
