package blocklist

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
)

// A list's sections are cut where the file's offset is a multiple of pageBytes.
// The file has a digest of each of these pages, and one of the digests: what a
// look-up reads is held to them when it is first read, and the rest stays on the
// disk.
const (
	pageBytes       = 4096
	pageDigestBytes = 16 // of the SHA-256: it finds damage, and an attacker who can write a list needs no collision
)

// pages are the sections of a list.
type pages struct {
	file       []byte
	start, end uint64 // of the sections in the file
	digests    []byte
	right      []atomic.Bool // pages that were found to be what their digest says
}

// pageCount is how many pages sections have.
func pageCount(start, end uint64) uint64 { return (end+pageBytes-1)/pageBytes - start/pageBytes }

// bounds are where the i-th page of sections is in the file.
func (p *pages) bounds(i int) (from, to uint64) {
	from = (p.start/pageBytes + uint64(i)) * pageBytes
	return max(from, p.start), min(from+pageBytes, p.end)
}

// digest is that of the i-th page.
func (p *pages) digest(i int) []byte {
	from, to := p.bounds(i)
	sum := sha256.Sum256(p.file[from:to])
	return sum[:pageDigestBytes]
}

// hold panics with errDamaged if bytes in the file are not what their digests say.
func (p *pages) hold(from, to uint64) {
	if from >= to {
		return
	}
	first := p.start / pageBytes
	for i := int(from/pageBytes - first); i <= int((to-1)/pageBytes-first); i++ {
		if p.right[i].Load() {
			continue
		}
		if string(p.digest(i)) != string(p.digests[i*pageDigestBytes:][:pageDigestBytes]) {
			panic(errDamaged)
		}
		p.right[i].Store(true)
	}
}

// errDamaged is what reads of damaged bytes panic with; see asFault.
var errDamaged = errors.New("damaged: its SHA-256 does not match; put a whole one in its place and start again")

// part are some bytes of the sections.
type part struct {
	*pages
	at, n uint64 // in the file
}

// read returns n bytes from the i-th on. It panics with errDamaged if they are
// not those that the list was made with.
func (s part) read(i, n uint64) []byte {
	if i > s.n || n > s.n-i {
		panic(errDamaged)
	}
	s.hold(s.at+i, s.at+i+n)
	return s.file[s.at+i:][:n]
}

// all returns all bytes, as read does.
func (s part) all() []byte { return s.read(0, s.n) }

// cut takes n bytes off the front.
func (s *part) cut(n uint64) (front part, ok bool) {
	if n > s.n {
		return part{}, false
	}
	front = part{s.pages, s.at, n}
	s.at, s.n = s.at+n, s.n-n
	return front, true
}

// Check reads all of a list: each page is as its digest says, and fingerprints
// and names are as look-ups expect them.
func (l *List) Check() (err error) {
	defer l.recoverFault(&err)()
	for i := range l.sets {
		s := &l.sets[i]
		s.section.all()
		if err := s.check(); err != nil {
			return fmt.Errorf("%s: damaged: set %s: %w", l.name, s.Name, err)
		}
	}
	return nil
}

// appendTo appends all bytes, which must be those that the list was made with.
func (s part) appendTo(b []byte) (all []byte, err error) {
	defer returnFault(&err)
	return append(b, s.all()...), nil
}
