package check

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What bounds the search for one path.
const (
	maxPath  = 16   // certificates; AWS IoT and browsers take about ten
	maxSteps = 4096 // from certificate to issuer
	maxPaths = 64   // that are judged
)

// path is the best way from a certificate upwards: to a given CA if there is
// one, else to a root, else as far as there are issuers.
type path struct {
	nodes  []*node
	anchor *x509.Certificate // the given CA at its end, or nil
	root   bool              // its last certificate is signed by its own key
	others []*node           // of the name of its last certificate's issuer, which did not sign that
	cas    int               // certificates of CAs that were there to choose from

	problems []device.Finding // why it does not stand
	weight   [3]int           // how many findings fail, are undecided, warn
	cut      bool             // it goes on, beyond what is looked at
	forged   bool             // the signature of its last certificate does not verify
	open     bool             // not all paths were tried
	partial  bool             // and it is not known where all of them lead
}

// certificates are those of the path, leaf first.
func (p *path) certificates() []*x509.Certificate {
	certs := make([]*x509.Certificate, len(p.nodes))
	for i, n := range p.nodes {
		certs[i] = n.Certificate
	}
	return certs
}

// top is the name of what stands at the end.
func (p *path) top() string { return p.nodes[len(p.nodes)-1].Issuer.String() }

// search is one for the path of a key.
type search struct {
	*memory
	ctx   context.Context
	k     device.Key
	env   *Env
	pool  *pool
	ends  map[*node]bool // where a path may end
	far   map[*node]int  // steps from there
	near  map[*node][]*node
	steps int
	tried int

	partial bool // not all of it was explored
	best    *path
}

// pathOf returns the best path of a key that has a certificate, over everything
// that was found with it and the CAs given (RFC 4158). A given CA ends a path
// wherever it fits. Of several paths, that one counts of which the least is to be said.
func pathOf(ctx context.Context, k device.Key, env *Env) *path {
	m := env.remembered()
	key := pathKey{k.ID, k.Leaf()}
	if p := m.paths[key]; p != nil {
		return p
	}
	s := &search{memory: m, ctx: ctx, k: k, env: env, pool: m.poolOf(k, env)}
	leaf := m.node(k.Leaf())
	if given := s.givenAs(leaf); given != nil {
		s.judge([]*node{leaf})
		s.best.anchor = given
	} else {
		s.explore(leaf)
		if s.best == nil {
			s.judge([]*node{leaf})
		}
	}
	s.best.partial = s.partial || s.spent > maxSpent
	s.best.open = s.best.open || s.best.partial
	s.best.cas = s.pool.cas
	if isCA(leaf.Certificate) {
		s.best.cas--
	}
	m.paths[key] = s.best
	return s.best
}

// givenAs returns the given CA of the name and key of n, or nil.
func (s *search) givenAs(n *node) *x509.Certificate {
	for _, c := range s.pool.issuers[n.subject] {
		if s.pool.given[c] && c.is(n) {
			return c.Certificate
		}
	}
	return nil
}

// explore finds where the paths from leaf may end, and tries those: that end at the
// given CAs if any can be reached; else at the roots, and if all of these fail where
// the issuer is missing: an old root that has expired need not be in use any more.
// Else they end where the search is cut off.
func (s *search) explore(leaf *node) {
	below := make(map[*node][]*node)
	seen := map[*node]bool{leaf: true}
	var given, roots, loose, cut []*node
	level := []*node{leaf}
	for depth := 1; len(level) > 0; depth++ {
		var next []*node
		for _, n := range level {
			above := s.above(s.pool, n)
			switch {
			case s.pool.given[n]:
				given = append(given, n)
				continue
			case above.root:
				roots = append(roots, n)
			case len(above.issuers) == 0:
				loose = append(loose, n)
			case depth == maxPath:
				cut = append(cut, n)
				continue
			}
			for _, issuer := range above.issuers {
				if s.steps++; s.steps > maxSteps {
					s.partial = true
					cut = append(cut, n)
					break
				}
				below[issuer] = append(below[issuer], n)
				if !seen[issuer] {
					seen[issuer] = true
					next = append(next, issuer)
				}
			}
		}
		level = next
	}
	for i, ends := range [][]*node{given, roots, loose, cut} {
		s.measure(ends, below)
		if s.far[leaf] == 0 && !s.ends[leaf] {
			continue
		}
		s.walk([]*node{leaf})
		if i == 0 || s.best != nil && s.best.weight[0] == 0 {
			return
		}
	}
}

// measure sets far, by the steps up.
func (s *search) measure(ends []*node, below map[*node][]*node) {
	s.ends, s.far, s.near = make(map[*node]bool), make(map[*node]int), make(map[*node][]*node)
	for _, n := range ends {
		s.ends[n], s.far[n] = true, 0
	}
	for at := ends; len(at) > 0; {
		var next []*node
		for _, n := range at {
			for _, b := range below[n] {
				if _, known := s.far[b]; !known {
					s.far[b] = s.far[n] + 1
					next = append(next, b)
				}
			}
		}
		at = next
	}
}

// walk tries the paths that begin with those nodes, the shortest first, until one
// is without fault.
func (s *search) walk(nodes []*node) {
	last := nodes[len(nodes)-1]
	if s.ends[last] {
		s.judge(nodes)
		return
	}
	for _, issuer := range s.nearest(last) {
		switch {
		case len(nodes)+1+s.far[issuer] > maxPath || slices.ContainsFunc(nodes, issuer.is):
			continue
		case s.best != nil && s.best.sound():
			return
		case s.tried >= maxPaths || s.steps > 2*maxSteps:
			if s.best != nil {
				s.best.open = true
			}
			return
		}
		s.steps++
		s.walk(append(nodes[:len(nodes):len(nodes)], issuer))
	}
}

// nearest returns the issuers of n over which an end can be reached, the nearest
// to one first.
func (s *search) nearest(n *node) []*node {
	issuers, known := s.near[n]
	if !known {
		for _, issuer := range s.above(s.pool, n).issuers {
			if _, reached := s.far[issuer]; reached {
				issuers = append(issuers, issuer)
			}
		}
		slices.SortStableFunc(issuers, func(a, b *node) int { return s.far[a] - s.far[b] })
		s.near[n] = issuers
	}
	return issuers
}

// judge keeps the path over those nodes if it is better than the best so far.
func (s *search) judge(nodes []*node) {
	s.tried++
	last := nodes[len(nodes)-1]
	above := s.above(s.pool, last)
	p := &path{nodes: nodes, root: above.root, others: above.others, cut: len(above.issuers) > 0}
	if s.pool.given[last] {
		p.anchor, p.others, p.cut = last.Certificate, nil, false
	}
	p.problems = s.problems(p)
	revoked, _ := revocation(s.k, p.certificates(), s.env)
	all := slices.Concat(p.problems, revoked, expiryOf(s.k, p.certificates()[1:], s.env))
	if s.k.Role != device.RoleEK {
		for _, n := range p.nodes[1:] {
			all = append(all, s.judgeKey(s.ctx, n, s.k.Role, s.env)...)
		}
	}
	for _, f := range all {
		switch f.Status {
		case device.Fail:
			p.weight[0]++
		case device.Undecided:
			p.weight[1]++
		case device.Warn:
			p.weight[2]++
		}
	}
	if s.best == nil || slices.Compare(p.weight[:], s.best.weight[:]) < 0 {
		s.best = p
	}
}

// sound reports whether there is nothing to be said against the path.
func (p *path) sound() bool { return p.weight == [3]int{} }
