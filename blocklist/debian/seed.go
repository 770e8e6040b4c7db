package debian

import "fmt"

// Arch is the kind of machine that ran the generator: its word size and byte
// order are hashed along with the process id.
type Arch uint8

const (
	LE32 Arch = iota // i386, arm and other 32-bit little-endian machines
	LE64             // amd64 and other 64-bit little-endian machines
	BE32             // powerpc, sparc, hppa and other 32-bit big-endian machines
)

// Variant is what OpenSSL did before its first random byte.
type Variant uint8

const (
	Rnd       Variant = iota // a ~/.rnd file was there and was read
	NoReadRnd                // a ~/.rnd file was there and could not be read
	NoRnd                    // there was no ~/.rnd file
	SSH                      // the program was ssh-keygen, which looks for no such file
)

// MaxPID is the highest process id of a Linux kernel of that time, and so
// the highest of a [Seed].
const MaxPID = 1<<pidBits - 1

const (
	pidBits     = 15
	variantBits = 2
)

var (
	archNames    = [...]string{LE32: "le32", LE64: "le64", BE32: "be32"}
	variantNames = [...]string{Rnd: "rnd", NoReadRnd: "noreadrnd", NoRnd: "nornd", SSH: "ssh"}
)

// String is the architecture's usual name: le32, le64 or be32.
func (a Arch) String() string {
	if int(a) >= len(archNames) {
		return fmt.Sprintf("Arch(%d)", uint8(a))
	}
	return archNames[a]
}

// String is the variant's usual name: rnd, noreadrnd, nornd or ssh.
func (v Variant) String() string {
	if int(v) >= len(variantNames) {
		return fmt.Sprintf("Variant(%d)", uint8(v))
	}
	return variantNames[v]
}

// ParseArch is the inverse of [Arch.String].
func ParseArch(name string) (Arch, error) {
	for a, n := range archNames {
		if n == name {
			return Arch(a), nil
		}
	}
	return 0, fmt.Errorf("unknown architecture %q: want le32, le64 or be32", name)
}

// ParseVariant is the inverse of [Variant.String].
func ParseVariant(name string) (Variant, error) {
	for v, n := range variantNames {
		if n == name {
			return Variant(v), nil
		}
	}
	return 0, fmt.Errorf("unknown variant %q: want rnd, noreadrnd, nornd or ssh", name)
}

// Seed is all that the broken generator knew. For one type and size of key
// it decides every bit of it.
type Seed struct {
	Arch    Arch
	Variant Variant
	PID     uint16 // at most [MaxPID]
}

// String is "le32 rnd pid 4096".
func (s Seed) String() string { return fmt.Sprintf("%v %v pid %d", s.Arch, s.Variant, s.PID) }

// check refuses what no machine could have been.
func (s Seed) check() error {
	if int(s.Arch) >= len(archNames) || int(s.Variant) >= len(variantNames) || s.PID > MaxPID {
		return fmt.Errorf("no such seed: %v", s)
	}
	return nil
}

// SeedBits is the length of a packed seed.
const SeedBits = 2 + variantBits + pidBits

// Pack puts a valid seed into [SeedBits] bits, high to low: architecture (2),
// variant (2), process id (15).
func (s Seed) Pack() uint32 {
	return uint32(s.Arch)<<(variantBits+pidBits) | uint32(s.Variant)<<pidBits | uint32(s.PID)
}

// UnpackSeed is the inverse of [Seed.Pack]; a number that no seed packs to is
// an error.
func UnpackSeed(packed uint32) (Seed, error) {
	if packed >= uint32(len(archNames))<<(variantBits+pidBits) {
		return Seed{}, fmt.Errorf("no seed has the number %d", packed)
	}
	return Seed{
		Arch:    Arch(packed >> (variantBits + pidBits)),
		Variant: Variant(packed >> pidBits & (1<<variantBits - 1)),
		PID:     uint16(packed & MaxPID),
	}, nil
}
