package keyfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/device"
)

// Lines of OpenSSH, as in known_hosts, are read one after the other, so that a
// file may have many of them.
const (
	maxLineBytes = 64 << 10  // of a line
	maxLinesSize = 256 << 20 // of all lines
	maxLineKeys  = 100_000   // different keys of one file; what is remembered of each is a hash
	batchKeys    = 1000
)

// Batch is what [Batches] gives at a time.
type Batch = iter.Seq2[[]device.Key, []device.Gap]

// Batches is [Read], a thousand keys at a time: only a file of lines of OpenSSH
// has more. Of such a file as many as 100,000 different keys and 256 MiB are
// read; keys that stand in it again are left out and counted in a minor gap.
func Batches(path string) Batch {
	return func(yield func([]device.Key, []device.Gap) bool) {
		r, info, err := openRegular(path)
		if err != nil {
			yield(nil, []device.Gap{{What: path, Why: err.Error()}})
			return
		}
		defer r.Close()
		readInfo(r, path, info)(yield)
	}
}

// ReadNamed is [Read] for a file that a person named: it may also be a pipe, such
// as the shell makes of <(COMMAND), and is read for as long as that is written to.
func ReadNamed(path string) ([]device.Key, []device.Gap) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return Read(path)
	}
	r, err := openPipe(path)
	if err != nil {
		return nil, []device.Gap{{What: path, Why: withoutPath(err).Error()}}
	}
	defer r.Close()
	return ReadFrom(r, path)
}

// openPipe opens a pipe, and no device that may have come in its place. What is
// open already is not opened again, which a socket does not allow.
func openPipe(path string) (*os.File, error) {
	var r *os.File
	var err error
	if number, isOpen := strings.CutPrefix(path, "/dev/fd/"); isOpen {
		fd, convErr := strconv.Atoi(number)
		if convErr != nil {
			return nil, errors.New("no such file")
		}
		copied, dupErr := syscall.Dup(fd)
		if dupErr != nil {
			return nil, dupErr
		}
		r = os.NewFile(uintptr(copied), path)
	} else if r, err = os.Open(path); err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err == nil && info.Mode()&(fs.ModeDevice|fs.ModeDir) != 0 {
		err = errors.New("not a regular file")
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func fromStream(r io.Reader, name string) Batch { return readInfo(r, name, nil) }

// readInfo reads a stream; info is what is known of its file, or nil.
func readInfo(r io.Reader, name string, info fs.FileInfo) Batch {
	return func(yield func([]device.Key, []device.Gap) bool) {
		data, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
		switch {
		case err != nil:
			err = withoutPath(err)
		case len(data) > maxFileBytes && beginsWithLines(data):
			c := &contents{name: name, effort: maxEffort}
			c.readLines(io.MultiReader(bytes.NewReader(data), r), yield)
			return
		case len(data) > maxFileBytes && info != nil:
			err = tooLarge(info)
		case len(data) > maxFileBytes:
			err = fmt.Errorf("too large for a key file: more than %d bytes", maxFileBytes)
		case info != nil:
			yield(newFile(name, data, info).Keys())
			return
		default:
			yield(parse(data, name, 0))
			return
		}
		yield(nil, []device.Gap{{What: name, Why: err.Error()}})
	}
}

func collect(batches Batch) (keys []device.Key, gaps []device.Gap) {
	for k, g := range batches {
		keys, gaps = append(keys, k...), append(gaps, g...)
	}
	return keys, gaps
}

// beginsWithLines reports whether the first line that says something has a key
// of OpenSSH.
func beginsWithLines(data []byte) bool {
	for line := range bytes.Lines(data[:min(len(data), maxLineBytes)]) {
		text := trim(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		probe := sshLines{c: new(contents)}
		return isText(line) && probe.read(text, 1)
	}
	return false
}

// readLines reads lines of OpenSSH. Each line that is none is a gap.
func (c *contents) readLines(r io.Reader, yield func([]device.Key, []device.Gap) bool) {
	c.many = true
	lines := sshLines{c: c}
	more := 0 // lines that are none and no gap any more
	limited := &io.LimitedReader{R: r, N: maxLinesSize}
	b := bufio.NewReaderSize(limited, maxLineBytes)
	for number := 1; ; number++ {
		line, err := b.ReadSlice('\n')
		at := place{line: number}
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n')
		}
		text := trim(string(line))
		switch {
		case tooLong:
			c.lose(at, fmt.Sprintf("a line of more than %d bytes", maxLineBytes))
		case text == "" || text[0] == '#' || lines.read(text, number):
		case len(c.gaps) < maxObjects:
			c.lose(at, "not an OpenSSH public key")
		default:
			more++
		}
		switch {
		case err == nil && len(lines.seen) >= maxLineKeys, err != nil && limited.N <= 0:
			c.gap(fmt.Sprintf("from line %d", number+1), tooMany)
			err = io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			c.gap(fmt.Sprintf("from line %d", number), withoutPath(err).Error())
			err = io.EOF
		}
		if err != nil {
			break
		}
		if len(c.objects) >= batchKeys {
			if !yield(c.keys(0), nil) {
				return
			}
			c.objects = nil
		}
	}
	if more > 0 {
		c.gap("", fmt.Sprintf("%d further lines are not OpenSSH public keys", more))
	}
	lines.end()
	yield(c.keys(0), c.gaps)
}
