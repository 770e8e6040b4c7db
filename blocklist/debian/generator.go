package debian

import (
	"crypto/sha1" // what the generator is made of; nothing here rests on its strength
	"encoding"
	"encoding/binary"
	"hash"
)

const (
	poolSize = 1023
	outSize  = sha1.Size / 2 // half of each hash goes out, the other half back into the pool
)

// generator is the random number generator of Debian's OpenSSL 0.9.8c-1 to
// 0.9.8g-8. What is added to its pool counts by length alone, which leaves the
// process id as the only thing that differs from run to run.
type generator struct {
	arch Arch
	pid  uint16

	pool     [poolSize + 1]byte // the last byte is written at times and never read
	idx, num int
	md       [sha1.Size]byte
	c0, c1   uint64 // C longs, which never come near 32 bits
	polled   bool
	stirred  bool

	hash  hash.Hash
	msg   [sha1.BlockSize]byte // to be hashed; its capacity is more than any message needs
	state [96]byte             // of hash
}

// newGenerator returns the generator as it stands when a key is about to be made.
func newGenerator(s Seed) *generator {
	g := &generator{arch: s.Arch, pid: s.PID, hash: sha1.New()}
	sizeofStat := 88
	if s.Arch == LE64 {
		sizeofStat = 144
	}
	switch s.Variant {
	case Rnd:
		g.add(sizeofStat)
		g.add(1024) // the file's first KB
	case NoReadRnd:
		g.add(sizeofStat)
		g.poll()
	case NoRnd:
		g.poll()
	case SSH:
		g.poll()
		g.bytes(make([]byte, sha1.Size))
	}
	return g
}

// long is the size of a C long, and of a time_t, in bytes.
func (g *generator) long() int {
	if g.arch == LE64 {
		return 8
	}
	return 4
}

// sum is the SHA-1 of a message that begins where g.msg does. Nearly all have room
// for their padding in one block. Such a block is hashed as it is, and the state
// after it is the hash, which takes a fifth less time than [sha1.Sum].
func (g *generator) sum(msg []byte) [sha1.Size]byte {
	n := len(msg)
	if n > sha1.BlockSize-9 {
		return sha1.Sum(msg)
	}
	block := g.msg[:]
	block[n] = 0x80
	clear(block[n+1:])
	binary.BigEndian.PutUint16(block[sha1.BlockSize-2:], uint16(8*n))
	g.hash.Reset()
	g.hash.Write(block)
	state, err := g.hash.(encoding.BinaryAppender).AppendBinary(g.state[:0])
	if err != nil {
		panic("debian: SHA-1: " + err.Error()) // it has no errors
	}
	return [sha1.Size]byte(state[len("sha\x01"):])
}

// appendCounters appends the two counters as they lie in the machine's memory.
func (g *generator) appendCounters(b []byte, c0, c1 uint64) []byte {
	switch g.arch {
	case LE64:
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, c0), c1)
	case BE32:
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(c0)), uint32(c1))
	default:
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, uint32(c0)), uint32(c1))
	}
}

// appendPID appends the process id as it lies in the machine's memory.
func (g *generator) appendPID(b []byte) []byte {
	if g.arch == BE32 {
		return binary.BigEndian.AppendUint32(b, uint32(g.pid))
	}
	return binary.LittleEndian.AppendUint32(b, uint32(g.pid))
}

// appendPool appends n bytes of the pool's first size bytes from st on, round and round.
func (g *generator) appendPool(b []byte, st, n, size int) []byte {
	first := min(n, size-st)
	b = append(b, g.pool[st:st+first]...)
	return append(b, g.pool[:n-first]...)
}

// stir XORs b into the pool's first size bytes from st on and returns where it stopped.
func (g *generator) stir(b []byte, st, size int) int {
	for _, x := range b {
		g.pool[st] ^= x
		if st++; st >= size {
			st = 0
		}
	}
	return st
}

// add is RAND_add of n bytes, whatever they are.
func (g *generator) add(n int) {
	st, c1, local := g.idx, g.c1, g.md
	g.idx += n
	if g.idx >= poolSize {
		g.idx %= poolSize
		g.num = poolSize
	} else {
		g.num = max(g.num, g.idx)
	}
	g.c1 += uint64(n+sha1.Size-1) / sha1.Size
	for ; n > 0; n -= sha1.Size {
		block := min(n, sha1.Size)
		msg := append(g.msg[:0], local[:]...)
		msg = g.appendPool(msg, st, block, poolSize)
		local = g.sum(g.appendCounters(msg, g.c0, c1))
		c1++
		st = g.stir(local[:block], st, poolSize)
	}
	for i := range g.md {
		g.md[i] ^= local[i]
	}
}

// poll is RAND_poll: 32 bytes of the kernel's, then process id, user id and time.
func (g *generator) poll() {
	g.polled = true
	g.add(32)
	for range 3 {
		g.add(g.long())
	}
}

// bytes is RAND_bytes: it fills out.
func (g *generator) bytes(out []byte) {
	if !g.polled {
		g.poll()
	}
	if !g.stirred {
		g.stirred = true
		for range (poolSize + sha1.Size - 1) / sha1.Size {
			g.add(sha1.Size)
		}
	}
	st, num, c0, c1, local := g.idx, g.num, g.c0, g.c1, g.md
	g.idx += (len(out) + outSize - 1) / outSize * outSize
	if g.idx > g.num { // not >=: idx may be left at num, and the next write is then to the byte never read
		g.idx %= g.num
	}
	g.c0++
	first := g.pid != 0
	for len(out) > 0 {
		msg := g.msg[:0]
		if first {
			msg = g.appendPID(msg)
			first = false
		}
		msg = append(msg, local[:]...)
		msg = g.appendCounters(msg, c0, c1)
		local = g.sum(g.appendPool(msg, st, outSize, num))
		st = g.stir(local[:outSize], st, num)
		out = out[copy(out, local[outSize:]):]
	}
	msg := g.appendCounters(g.msg[:0], c0, c1)
	msg = append(msg, local[:]...)
	g.md = g.sum(append(msg, g.md[:]...))
}

// number is BN_rand of n bits, big-endian: it fills out, of (n+7)/8 bytes.
func (g *generator) number(out []byte, n int) {
	g.add(g.long()) // the time of day
	g.bytes(out)
	out[0] &= 0xff >> (-n & 7)
}
