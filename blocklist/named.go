package blocklist

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sort"
	"strings"
)

// named is a set of the kind Named. Where it is asked for nothing but whether
// it has a key, its names are not read.
type named struct {
	fingerprints part // of fingerprintBytes each, ascending
	places       part // of each fingerprint, where its name is among the names, in placeBits; placePad bytes after them
	placeBits    uint64
	lengths      part // of the blocks, uint32 each
	blocks       part // the names, blockNames in each but the last, by RFC 1951
}

const (
	// fingerprintBytes is what is kept of a SHA-256. Of a key that nobody
	// published, any of three fingerprints is on a list of 2^17 by a chance of
	// 2^-61.
	fingerprintBytes = 10

	blockNames = 512 // to be unpacked for one of them
	placePad   = 3   // so that a place is read as four bytes

	maxNamedKeys = 1 << 24
	maxNameText  = 255              // bytes of a name, of a class and of a source
	maxBlockText = blockNames * 800 // unpacked: each name with its class and source
)

// Entry is what a set of the kind Named says of one key.
type Entry struct {
	Name   string // "keys/vagrant"
	Class  string // the kind of place where it was found: "ssh-default"
	Source string // where it was found: "github.com/hashicorp/vagrant@35f3160f4"
}

// fingerprint is what a set of the kind Named knows a SHA-256 by.
func fingerprint(sum []byte) []byte { return sum[:fingerprintBytes] }

func (s *set) readNamed(records *reader, sections *part) error {
	s.Title, s.Reason, s.Cite, s.Licence = records.string(), records.string(), records.string(), records.string()
	count, length := records.uint32(), records.uint64()
	if records.short {
		return errors.New("directory ends early")
	}
	if err := s.checkWords(); err != nil {
		return err
	}
	if s.Keys > maxNamedKeys || count > 2*maxNamedKeys || int(count) < s.Keys {
		return fmt.Errorf("%d fingerprints of %d keys", count, s.Keys)
	}
	section, ok := sections.cut(length)
	if !ok {
		return fmt.Errorf("%d bytes where fewer are left", length)
	}
	n := &s.named
	n.placeBits = placeBits(s.Keys)
	for _, cut := range []struct {
		to *part
		n  uint64
	}{
		{&n.fingerprints, uint64(count) * fingerprintBytes}, {&n.places, (uint64(count)*n.placeBits+7)/8 + placePad},
		{&n.lengths, 4 * uint64((s.Keys+blockNames-1)/blockNames)},
	} {
		if *cut.to, ok = section.cut(cut.n); !ok {
			return fmt.Errorf("%d bytes for %d fingerprints of %d keys", length, count, s.Keys)
		}
	}
	n.blocks = section
	s.Fingerprints = n.count()
	s.FalsePositiveRate = float64(n.count()) / (1 << 40) / (1 << 40)
	return nil
}

// placeBits is the length of a number below keys, at least 1.
func placeBits(keys int) uint64 { return uint64(max(bits.Len(uint(keys-1)), 1)) }

func (n *named) count() int { return int(n.fingerprints.n / fingerprintBytes) }

func (n *named) fingerprint(i int) []byte {
	return n.fingerprints.read(uint64(i)*fingerprintBytes, fingerprintBytes)
}

// place is where the key of a fingerprint is among the names.
func (n *named) place(i int) int {
	bit := uint64(i) * n.placeBits
	return int(binary.LittleEndian.Uint32(n.places.read(bit>>3, 4)) >> (bit & 7) & (1<<n.placeBits - 1))
}

// block is the i-th block of names.
func (n *named) block(i int) (packed []byte, err error) {
	defer returnFault(&err)
	lengths := n.lengths.all()
	if i >= len(lengths)/4 {
		return nil, errors.New("there is no such name")
	}
	rest := n.blocks
	for ; ; i-- {
		block, ok := rest.cut(uint64(binary.LittleEndian.Uint32(lengths)))
		if !ok {
			return nil, errors.New("the blocks of its names do not fit")
		}
		if i == 0 {
			return block.all(), nil
		}
		lengths = lengths[4:]
	}
}

// check holds the fingerprints to their order, and the blocks to their place.
func (n *named) check(keys int) error {
	for i := range n.count() {
		if n.place(i) >= keys {
			return fmt.Errorf("a fingerprint of the key %d of %d", n.place(i), keys)
		}
		if i == 0 {
			continue
		}
		if c := bytes.Compare(n.fingerprint(i-1), n.fingerprint(i)); c > 0 || c == 0 && n.place(i-1) >= n.place(i) {
			return errors.New("fingerprints are not in order")
		}
	}
	length := uint64(0)
	for lengths := n.lengths.all(); len(lengths) > 0; lengths = lengths[4:] {
		length += uint64(binary.LittleEndian.Uint32(lengths))
	}
	if length != n.blocks.n {
		return errors.New("the blocks of its names do not fit")
	}
	return nil
}

// find returns the places of the keys that have a fingerprint: mostly none or
// one. Two points of one x are two keys.
func (n *named) find(f []byte) (places []int) {
	i, _ := sort.Find(n.count(), func(i int) int { return bytes.Compare(f, n.fingerprint(i)) })
	for ; i < n.count() && bytes.Equal(n.fingerprint(i), f); i++ {
		places = append(places, n.place(i))
	}
	return places
}

// entry returns what the names say of a key.
func (n *named) entry(place int) (Entry, error) {
	block, err := n.block(place / blockNames)
	if err != nil {
		return Entry{}, err
	}
	at := place / blockNames * blockNames
	for e, err := range blockEntries(block) {
		if err != nil {
			return Entry{}, err
		}
		if at == place {
			return e, nil
		}
		at++
	}
	return Entry{}, errors.New("its block has fewer names")
}

// all yields the entries in their order.
func (n *named) all() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i := range n.lengths.n / 4 {
			block, err := n.block(int(i))
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for e, err := range blockEntries(block) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// blockEntries unpacks a block. Its text is a line for each name; one of a tab,
// a class, a tab and a source is before the names of them.
func blockEntries(block []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		text, err := inflate(block, maxBlockText)
		if err != nil {
			yield(Entry{}, fmt.Errorf("the names cannot be unpacked: %w", err))
			return
		}
		var e Entry
		for len(text) > 0 {
			line, rest, _ := bytes.Cut(text, []byte("\n"))
			text = rest
			if len(line) > 0 && line[0] == '\t' {
				class, source, _ := bytes.Cut(line[1:], []byte("\t"))
				e.Class, e.Source = string(class), string(source)
				continue
			}
			e.Name = string(line)
			if err := e.check(); err != nil {
				yield(Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// check holds an entry to what is safe to print.
func (e *Entry) check() error {
	for _, text := range []string{e.Name, e.Class, e.Source} {
		if text == "" || len(text) > maxNameText {
			return fmt.Errorf("a name, class or source of %d bytes, want 1 to %d", len(text), maxNameText)
		}
		if err := checkText("name, class or source", text); err != nil {
			return err
		}
	}
	return nil
}

// Entries yields what a set of the kind Named says of its keys. After the first
// error it yields nothing more.
func (l *List) Entries(name string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		i := slices.IndexFunc(l.sets, func(s set) bool { return s.Name == name && s.Kind == Named })
		if i < 0 {
			yield(Entry{}, fmt.Errorf("no set of named keys is called %s", name))
			return
		}
		count := 0
		for e, err := range l.sets[i].named.all() {
			if err != nil {
				yield(Entry{}, fmt.Errorf("set %s: %w", name, err))
				return
			}
			if !yield(e, nil) {
				return
			}
			count++
		}
		if count != l.sets[i].Keys {
			yield(Entry{}, fmt.Errorf("set %s: %d names of %d keys", name, count, l.sets[i].Keys))
		}
	}
}

// NamedKey is a key of a new list: what its set says of it, and the SHA-256 sums
// that it is found by.
type NamedKey struct {
	Entry
	SHA256 [][]byte // of its SubjectPublicKeyInfo, of its number; see [List.Compromised]
}

func (s *Source) appendNamed(directory, sections []byte) ([]byte, []byte, error) {
	if len(s.Named) == 0 || len(s.Named) > maxNamedKeys || s.Deflate == nil {
		return nil, nil, fmt.Errorf("%d keys, and what packs them is nil: %v", len(s.Named), s.Deflate == nil)
	}
	keys := slices.SortedStableFunc(slices.Values(s.Named), compareNamed)
	type finding struct {
		fingerprint []byte
		place       int
	}
	var all []finding
	for place, key := range keys {
		if err := key.check(); err != nil {
			return nil, nil, err
		}
		if len(key.SHA256) == 0 {
			return nil, nil, fmt.Errorf("no SHA-256 of %q", key.Name)
		}
		for _, sum := range key.SHA256 {
			if len(sum) != digestBytes {
				return nil, nil, fmt.Errorf("a SHA-256 of %d bytes", len(sum))
			}
			all = append(all, finding{fingerprint(sum), place})
		}
	}
	slices.SortFunc(all, func(a, b finding) int {
		if c := bytes.Compare(a.fingerprint, b.fingerprint); c != 0 {
			return c
		}
		return a.place - b.place
	})
	all = slices.CompactFunc(all, func(a, b finding) bool { return a.place == b.place && bytes.Equal(a.fingerprint, b.fingerprint) })
	before := len(sections)
	for _, f := range all {
		sections = append(sections, f.fingerprint...)
	}
	width := placeBits(len(keys))
	places := make([]byte, (uint64(len(all))*width+7)/8+placePad)
	for i, f := range all {
		bit := uint64(i) * width
		at := places[bit>>3:]
		binary.LittleEndian.PutUint32(at, binary.LittleEndian.Uint32(at)|uint32(f.place)<<(bit&7))
	}
	sections = append(sections, places...)
	var blocks []byte
	for some := range slices.Chunk(keys, blockNames) {
		block, err := s.Deflate(blockText(some))
		if err != nil {
			return nil, nil, err
		}
		sections = binary.LittleEndian.AppendUint32(sections, uint32(len(block)))
		blocks = append(blocks, block...)
	}
	sections = append(sections, blocks...)

	directory = binary.LittleEndian.AppendUint32(directory, uint32(len(keys)))
	for _, text := range []string{s.Title, s.Reason, s.Cite, s.Licence} {
		directory = append(directory, byte(len(text)))
		directory = append(directory, text...)
	}
	directory = binary.LittleEndian.AppendUint32(directory, uint32(len(all)))
	directory = binary.LittleEndian.AppendUint64(directory, uint64(len(sections)-before))
	return directory, sections, nil
}

// compareNamed orders keys so that like names are neighbours, which packs them
// best, and so that the order of the input does not matter.
func compareNamed(a, b NamedKey) int {
	for _, c := range []int{
		strings.Compare(a.Class, b.Class), strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name),
		slices.CompareFunc(a.SHA256, b.SHA256, bytes.Compare),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

// blockText is the inverse of [blockEntries], before it is packed.
func blockText(keys []NamedKey) (text []byte) {
	var last Entry
	for _, key := range keys {
		if key.Class != last.Class || key.Source != last.Source {
			text = fmt.Appendf(text, "\t%s\t%s\n", key.Class, key.Source)
		}
		text = append(append(text, key.Name...), '\n')
		last = key.Entry
	}
	return text
}
