package bootlog

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of a log, far above those of logs that were seen: some hundred events, and
// two or three algorithms.
const (
	maxLog        = 16 << 20 // bytes
	maxEvents     = 16 << 10
	maxAlgorithms = 8
)

// sizes are those of the digests of the TCG Algorithm Registry, section 3.
var sizes = map[uint16]int{
	0x0004: 20, 0x000b: 32, 0x000c: 48, 0x000d: 64, 0x0012: 32, // SHA-1, SHA-256, SHA-384, SHA-512, SM3
	0x0027: 32, 0x0028: 48, 0x0029: 64, // SHA-3
}

// reader takes what a log states from its bytes; short is set once there are too few.
type reader struct {
	left  []byte
	short bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.left)) {
		r.left, r.short = nil, true
		return make([]byte, min(n, 8)) // for a number
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *reader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }

const noAction = 3

// The signatures of the event that a log may start with: of a crypto-agile one (TCG
// PC Client Platform Firmware Profile, section 10.2.1), and of those of SHA-1 alone
// (TCG EFI Platform Specification 1.22, section 7.4; PC Client Implementation
// Specification for Conventional BIOS 1.21, section 11.3.4.1).
const (
	specID     = "Spec ID Event03\x00"
	specIDEFI  = "Spec ID Event02\x00"
	specIDBIOS = "Spec ID Event00\x00"
)

// framed returns a log without what is no measurement: the head of the SHA-1 form,
// which go-eventlog does not know, and the unused rest of the memory that coreboot
// and others hand over as a whole. It is an error unless each length and count is
// within the log and the bounds, and each algorithm is known.
func framed(log []byte) ([]byte, error) {
	r := &reader{left: log}
	r.u32() // PCR
	kind := r.u32()
	r.take(20) // SHA-1
	data := r.take(uint64(r.u32()))
	if r.short {
		return nil, errors.New("it ends within its first event")
	}
	var algorithms map[uint16]int
	if kind == noAction && len(data) >= 16 {
		switch signature := string(data[:16]); {
		case signature == specIDEFI || signature == specIDBIOS:
			log = r.left
			if len(log) == 0 {
				return nil, errors.New("it holds no measurement")
			}
		case len(data) >= 28: // else it is a measurement like others
			var err error
			if algorithms, err = boundedHead(data); err != nil {
				return nil, err
			}
		}
	}
	blank := unused(log)
	for n := 1; len(r.left) > blank; n++ {
		if n > maxEvents {
			return nil, fmt.Errorf("it has more than %d events", maxEvents)
		}
		r.u32() // PCR
		r.u32() // type
		if algorithms == nil {
			r.take(20)
		} else if err := boundedDigests(r, algorithms); err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		if r.take(uint64(r.u32())); r.short {
			return nil, fmt.Errorf("it ends within event %d", n)
		}
	}
	return log[:len(log)-len(r.left)], nil
}

// unused is how many bytes at the end of a log nothing was written to, if its last
// event ends where they begin: no event is of type 0 and without data, nor of PCR
// 0xffffffff.
func unused(log []byte) int {
	last := log[len(log)-1]
	if last != 0 && last != 0xff {
		return 0
	}
	n := 0
	for n < len(log) && log[len(log)-1-n] == last {
		n++
	}
	return n
}

// boundedHead returns the sizes of the digests of a crypto-agile log.
func boundedHead(data []byte) (map[uint16]int, error) {
	r := &reader{left: data}
	if string(r.take(16)) != specID {
		return nil, errors.New("it starts with an event that describes another kind of log")
	}
	r.take(8) // platform class and version
	n := r.u32()
	if n == 0 || n > maxAlgorithms {
		return nil, fmt.Errorf("it states %d algorithms", n)
	}
	algorithms := make(map[uint16]int)
	for range n {
		id, size := r.u16(), int(r.u16())
		if r.short {
			return nil, errors.New("it ends within its algorithms")
		}
		if sizes[id] == 0 || sizes[id] != size || algorithms[id] != 0 {
			return nil, fmt.Errorf("it states the algorithm %#04x with %d bytes", id, size)
		}
		algorithms[id] = size
	}
	return algorithms, nil
}

// boundedDigests takes the digests of an event, at most one of each algorithm.
func boundedDigests(r *reader, algorithms map[uint16]int) error {
	n := r.u32()
	if n > uint32(len(algorithms)) {
		return fmt.Errorf("%d digests of %d algorithms", n, len(algorithms))
	}
	seen := make(map[uint16]bool)
	for range n {
		id := r.u16()
		if r.short {
			return errors.New("it ends within the digests")
		}
		if algorithms[id] == 0 || seen[id] {
			return fmt.Errorf("a digest of the algorithm %#04x, which is unknown or there twice", id)
		}
		seen[id] = true
		r.take(uint64(algorithms[id]))
	}
	return nil
}

// boundedVariable returns an error unless each length in the data of an event on an
// EFI variable is within the data (UEFI_VARIABLE_DATA, section 10.4.2 of the
// profile; EFI_SIGNATURE_LIST, UEFI 2.10, section 32.4.1). An event on what the
// variable says holds lists, one on what was taken from it a signature.
func boundedVariable(data []byte, lists bool) error {
	r := &reader{left: data}
	r.take(16) // GUID
	name, size := binary.LittleEndian.Uint64(r.take(8)), binary.LittleEndian.Uint64(r.take(8))
	if r.short || name > uint64(len(data)) {
		return errors.New("is no variable")
	}
	unicode := r.take(2 * name)
	if size > uint64(len(r.left)) {
		return errors.New("is a variable that is longer than the event")
	}
	if !lists {
		return nil
	}
	switch ascii(unicode) {
	case "PK", "KEK", "db", "dbx":
		return boundedLists(r.left[:size])
	}
	return nil
}

// ascii is the low byte of each character.
func ascii(unicode []byte) string {
	var name []byte
	for i := 0; i+1 < len(unicode); i += 2 {
		name = append(name, unicode[i])
	}
	return string(name)
}

// variableName is that of the EFI variable that an event is on; "" if there is none.
func variableName(data []byte) string {
	r := &reader{left: data}
	r.take(16) // GUID
	name := binary.LittleEndian.Uint64(r.take(8))
	r.take(8) // size
	if r.short || name > maxText {
		return ""
	}
	return printable(r.take(2 * name))
}

// pathOf is the file in the device path of a program that was loaded
// (UEFI_IMAGE_LOAD_EVENT, section 10.2.3 of the profile; device paths, UEFI 2.10,
// section 10.3.5.4); "" if it names none.
func pathOf(data []byte) string {
	r := &reader{left: data}
	r.take(24) // where in memory
	r = &reader{left: r.take(binary.LittleEndian.Uint64(r.take(8)))}
	var path string
	for len(r.left) > 0 && len(path) < maxText {
		kind, size := r.u16(), r.u16()
		if r.short || size < 4 {
			break
		}
		const filePath = 0x0404 // a path of media, a file
		if name := r.take(uint64(size) - 4); kind == filePath && !r.short {
			path += printable(name)
		}
	}
	return path
}

// boundedLists returns an error unless lists of signatures fill the data.
func boundedLists(data []byte) error {
	const head = 28
	for r := (&reader{left: data}); len(r.left) > 0; {
		r.take(16) // type
		all, header, each := r.u32(), r.u32(), r.u32()
		if r.short || header != 0 || each < 17 || all < head || (all-head)%each != 0 || uint64(all-head) > uint64(len(r.left)) {
			return errors.New("holds a list of signatures that is malformed")
		}
		r.take(uint64(all - head))
	}
	return nil
}

// Unpack returns what one gzip holds, with nothing after it.
func Unpack(packed []byte) ([]byte, error) {
	in := bytes.NewReader(packed)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	log, err := io.ReadAll(io.LimitReader(z, maxLog+1))
	switch {
	case err != nil:
		return nil, err
	case len(log) > maxLog:
		return nil, fmt.Errorf("more than %d bytes", maxLog)
	case in.Len() > 0:
		return nil, errors.New("something follows it")
	}
	return log, nil
}
