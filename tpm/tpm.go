// Package tpm reads one TPM 2.0: what it says of itself, its keys and their
// certificates, and a quote over a report. It changes nothing in the TPM: what
// it loads it flushes, on errors too, and it makes nothing persistent but what
// [TPM.PersistentAK] is asked for. Of a TPM 1.2 it reads what there is to be read
// without a password, see [tpm12].
//
// A TPM is reached through the kernel's character devices, over a socket that
// carries plain TPM commands and responses, as swtpm's data channel does, or on
// a bare SPI or I2C bus (package link). Not spoken: the Microsoft simulator's
// protocol.
//
// "Part 1" to "Part 4" are those of the TCG's Trusted Platform Module Library
// Specification, Family "2.0", revision 1.59; "EK Profile" is the TCG EK
// Credential Profile for TPM Family 2.0, version 2.5.
package tpm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/attempts"
	"github.com/keyvet/keyvet/tpm/link"
)

var (
	// ErrAbsent: there is no such device, or nothing listens at the address.
	ErrAbsent = link.ErrAbsent
	// ErrTimeout: the TPM did not answer in time. Nothing more can be asked
	// of it over the same TPM value.
	ErrTimeout = link.ErrTimeout
)

// DefaultTimeout is how long a command may take if [Options] does not say.
const DefaultTimeout = 30 * time.Second

// rsaCreation is the least time that the creation of an RSA key may take:
// chips search for primes for up to two minutes.
const rsaCreation = 120 * time.Second

// Options for [Open].
type Options struct {
	// Timeout bounds the connection and each command; zero means
	// DefaultTimeout. The creation of an RSA key has at least 120 s.
	Timeout time.Duration
	// AKOptional says that the operator accepts a TPM that cannot make an
	// attestation key, be it of P-256 or RSA-2048: what it states is then not held against
	// what it signs. Likewise a TPM 1.2 whose owner keeps others from reading its
	// endorsement key.
	AKOptional bool
	// OwnerAuthFile and EndorsementAuthFile are files with the passwords of these
	// hierarchies; "" where a hierarchy has none. They are read when they are
	// needed.
	OwnerAuthFile, EndorsementAuthFile string
	// Attempts is what is known of keys with passwords; nil for a memory that all
	// of the process shares and that ends with it.
	Attempts *attempts.Memory
}

// TPM is one connection to one TPM. Its methods may be called from several
// goroutines; commands go one at a time.
type TPM struct {
	// Found, if not nil, is called by [TPM.Inventory] with each key as soon as it is
	// read. The caller can test it while the TPM is busy with others.
	Found func(device.Key)

	address string
	link    *link.Link
	opts    Options

	is12        atomic.Bool   // a TPM 1.2, as the kernel says or as it answered
	ak          *AK           // nil: the primary key attestationKey
	nvBufferMax atomic.Uint32 // TPM_PT_NV_BUFFER_MAX; zero if it was not read
	read        reading
	held        held
}

// reading is what was read over this connection, and is not asked for again.
type reading struct {
	properties   atomic.Pointer[map[tpm2.TPMPT]uint32]
	stated       atomic.Pointer[stated]
	certificates atomic.Pointer[endorsements]
	pcrs         atomic.Pointer[pcrValues]
	kept, shown  *Kept // see [TPM.UseKept] and [TPM.Shown]
}

// Open connects to the TPM at address: a device path (/dev/tpmrm0, /dev/tpm0),
// unix:PATH, tcp:HOST:PORT, or spi: or i2c: as tis.Open has them. It sends no
// command yet, unless an earlier connection of this program broke while a key of
// its own was in the TPM. The error wraps ErrAbsent if nothing is there,
// ErrTimeout if connecting took too long.
func Open(address string, opts Options) (*TPM, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Attempts == nil {
		opts.Attempts = &unkept
	}
	l, err := link.Open(address, opts.Timeout)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", address, err)
	}
	t := &TPM{address: address, link: l, opts: opts}
	t.is12.Store(kernelSaysTPM12("/sys/class/tpm", address))
	t.flushLeftovers()
	return t, nil
}

// kernelSaysTPM12 reports whether the kernel knows a device as a TPM 1.2, so that
// it need not be asked by a command that it does not have. Kernels before Linux
// 5.6 do not say.
func kernelSaysTPM12(sysfs, address string) bool {
	name := strings.Replace(filepath.Base(address), "tpmrm", "tpm", 1)
	major, err := os.ReadFile(filepath.Join(sysfs, name, "tpm_version_major"))
	return err == nil && strings.HasPrefix(address, "/") && strings.TrimSpace(string(major)) == "1"
}

// CheckAddress returns nil if address can be one for [Open]; it opens nothing.
func CheckAddress(address string) error { return link.Check(address) }

// AddressForms returns the forms that an address can have: "unix:PATH".
func AddressForms() []string { return link.Forms() }

// Close ends the connection; no command can be sent after it.
func (t *TPM) Close() error {
	t.held.release()
	return t.link.Close()
}

// Broken reports whether the connection broke: another one may be better.
func (t *TPM) Broken() bool { return t.link.Broken() }

// Send sends one command and returns the response to it, each a whole frame. It
// implements transport.TPM of go-tpm, see [link.Link.Send].
func (t *TPM) Send(command []byte) ([]byte, error) { return t.link.Send(command) }
