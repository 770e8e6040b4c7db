// Package tpm12 reads what a TPM 1.2 tells anybody: its make and version, its
// state, its endorsement key and its NV indices. It gives no password and
// changes nothing, so what only the owner may read stays unread: the storage
// root key, all keys under it, and the endorsement key once there is an owner.
//
// "Part 2" and "Part 3" are those of the TCG's TPM Main Specification, level 2,
// version 1.2, revision 116: structures, and commands.
package tpm12

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Transport sends one command and returns the response to it, each a whole
// frame. It is also what repeats a command that the TPM cannot take now.
type Transport interface {
	Send(command []byte) (response []byte, err error)
}

// Code is a return code that is not TPM_SUCCESS (Part 2, section 16).
type Code uint32

// The codes that tell of a state.
const (
	AuthFail      Code = 0x01 // TPM_AUTHFAIL
	BadIndex      Code = 0x02 // TPM_BADINDEX
	Deactivated   Code = 0x06 // TPM_DEACTIVATED
	Disabled      Code = 0x07 // TPM_DISABLED
	DisabledCmd   Code = 0x08 // TPM_DISABLED_CMD
	BadOrdinal    Code = 0x0a // TPM_BAD_ORDINAL
	FailedTest    Code = 0x1c // TPM_FAILEDSELFTEST
	BadTag        Code = 0x1e // TPM_BADTAG
	NoEndorsement Code = 0x23 // TPM_NO_ENDORSEMENT
	NotStarted    Code = 0x26 // TPM_INVALID_POSTINIT
	AuthConflict  Code = 0x3b // TPM_AUTH_CONFLICT
	NeedsSelfTest Code = 0x801
	LockRunning   Code = 0x803 // TPM_DEFEND_LOCK_RUNNING
)

var meaning = map[Code]string{
	AuthFail:      "it takes a password",
	BadIndex:      "no such index",
	Deactivated:   "the TPM is deactivated: activate it in the firmware's setup",
	Disabled:      "the TPM is disabled: enable it in the firmware's setup",
	DisabledCmd:   "the TPM does not tell without its owner's password",
	BadOrdinal:    "no such command",
	FailedTest:    "the TPM failed its self-test",
	NoEndorsement: "the TPM has no endorsement key",
	NotStarted:    "the TPM was not started: load the kernel's TPM driver, or have the firmware send TPM_Startup",
	AuthConflict:  "it takes the owner's password",
	LockRunning:   "the TPM is locked against guessing of passwords: leave it powered until the time is over",
}

// Error says what the code means, and the code.
func (c Code) Error() string {
	if m, ok := meaning[c]; ok {
		return fmt.Sprintf("%s (TPM 1.2 code %#x)", m, uint32(c))
	}
	return fmt.Sprintf("TPM 1.2 code %#x", uint32(c))
}

// Ordinals of the commands (Part 2, section 17).
const (
	ordPCRRead          = 0x15
	ordContinueSelfTest = 0x53
	ordGetCapability    = 0x65
	ordReadPubek        = 0x7c
	ordNVReadValue      = 0xcf
)

// execute sends a command without authorization and returns the parameters of
// the response. A TPM that was not yet tested is told to test itself.
func execute(t Transport, ordinal uint32, parameters []byte) ([]byte, error) {
	out, err := exchange(t, ordinal, parameters)
	if errors.Is(err, NeedsSelfTest) {
		if _, err := exchange(t, ordContinueSelfTest, nil); err != nil {
			return nil, fmt.Errorf("self-test: %w", err)
		}
		out, err = exchange(t, ordinal, parameters)
	}
	return out, err
}

func exchange(t Transport, ordinal uint32, parameters []byte) ([]byte, error) {
	command := binary.BigEndian.AppendUint16(nil, 0x00c1) // TPM_TAG_RQU_COMMAND
	command = binary.BigEndian.AppendUint32(command, uint32(10+len(parameters)))
	command = append(binary.BigEndian.AppendUint32(command, ordinal), parameters...)
	response, err := t.Send(command)
	if err != nil {
		return nil, err
	}
	r := reader{b: response}
	tag, size, code := r.uint16(), r.uint32(), r.uint32()
	if r.short || tag != 0x00c4 || uint64(size) != uint64(len(response)) { // TPM_TAG_RSP_COMMAND
		return nil, errors.New("the response is not one of a TPM 1.2")
	}
	if code != 0 {
		return nil, Code(code)
	}
	return r.b, nil
}

// reader takes big-endian values off the front of b.
type reader struct {
	b     []byte
	short bool // b was too short for something
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.b, r.short = nil, true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Areas and properties of TPM_GetCapability (Part 2, section 21).
const (
	capFlag          = 0x04
	capProperty      = 0x05
	capNVIndex       = 0x11
	capVersion       = 0x1a
	flagPermanent    = 0x108
	propManufacturer = 0x103
	propOwner        = 0x111
)

// capability is what TPM_GetCapability (Part 3, section 7.1) answers about an
// area, and a value in it where the area has several.
func capability(t Transport, area uint32, of ...uint32) (*reader, error) {
	parameters := binary.BigEndian.AppendUint32(nil, area)
	parameters = binary.BigEndian.AppendUint32(parameters, uint32(4*len(of)))
	for _, v := range of {
		parameters = binary.BigEndian.AppendUint32(parameters, v)
	}
	out, err := execute(t, ordGetCapability, parameters)
	if err != nil {
		return nil, err
	}
	r := &reader{b: out}
	answer := r.bytes(r.uint32())
	if r.short || len(r.b) != 0 {
		return nil, errors.New("malformed answer")
	}
	return &reader{b: answer}, nil
}

// Info is what the TPM says of itself.
type Info struct {
	Manufacturer string // TPM_CAP_PROP_MANUFACTURER, trimmed: "IFX"
	Version      string // TPM_VERSION.revMajor and revMinor, decimal: "4.34"
}

// ReadInfo asks for the make and version (Part 2, sections 5.3 and 21.6). The
// error wraps FailedTest if the TPM is in failure mode: what it says of itself
// is then not asked for.
func ReadInfo(t Transport) (Info, error) {
	// In failure mode TPM_GetCapability still answers, so another command has to ask.
	if _, err := execute(t, ordPCRRead, make([]byte, 4)); errors.Is(err, FailedTest) || errors.Is(err, NotStarted) {
		return Info{}, fmt.Errorf("read PCR: %w", err)
	}
	r, err := capability(t, capVersion)
	if err != nil {
		return Info{}, fmt.Errorf("read the TPM's version: %w", err)
	}
	// TPM_CAP_VERSION_INFO: tag 0x30; major, minor, revMajor, revMinor, …
	tag, version := r.uint16(), r.bytes(4)
	if r.short || tag != 0x30 {
		return Info{}, errors.New("read the TPM's version: malformed answer")
	}
	manufacturer, err := capability(t, capProperty, propManufacturer)
	if err != nil {
		return Info{}, fmt.Errorf("read the TPM's manufacturer: %w", err)
	}
	name := strings.TrimSpace(strings.Map(printable, string(bytes.Trim(manufacturer.bytes(4), "\x00"))))
	if manufacturer.short || name == "" {
		return Info{}, errors.New("the TPM does not state its manufacturer")
	}
	return Info{Manufacturer: name, Version: fmt.Sprintf("%d.%d", version[2], version[3])}, nil
}

// printable is c if it is printable ASCII, else a question mark.
func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// State is how the TPM is set up.
type State struct {
	Owned       bool // somebody took ownership
	Disabled    bool // most commands are refused
	Deactivated bool // the same, from the next start
}

// ReadState asks for the state (Part 2, sections 7.1 and 21.2).
func ReadState(t Transport) (State, error) {
	r, err := capability(t, capFlag, flagPermanent)
	if err != nil {
		return State{}, fmt.Errorf("read the TPM's flags: %w", err)
	}
	// TPM_PERMANENT_FLAGS: tag 0x1f; disable, ownership, deactivated, …
	tag, flags := r.uint16(), r.bytes(3)
	if r.short || tag != 0x1f {
		return State{}, errors.New("read the TPM's flags: malformed answer")
	}
	owner, err := capability(t, capProperty, propOwner)
	if err != nil {
		return State{}, fmt.Errorf("read the TPM's owner: %w", err)
	}
	owned := owner.bytes(1)
	if owner.short {
		return State{}, errors.New("read the TPM's owner: malformed answer")
	}
	return State{Owned: owned[0] != 0, Disabled: flags[0] != 0, Deactivated: flags[2] != 0}, nil
}

// ReadEndorsementKey is the endorsement key, an RSA key of modulus n and
// exponent e (TPM_ReadPubek, Part 3, section 14.4). The error wraps DisabledCmd
// where only the owner may read it, NoEndorsement where there is none.
func ReadEndorsementKey(t Transport) (n, e *big.Int, err error) {
	nonce := make([]byte, 20)
	out, err := execute(t, ordReadPubek, nonce)
	if err == nil {
		n, e, err = parsePubek(out, nonce)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the TPM's endorsement key: %w", err)
	}
	return n, e, nil
}

// parsePubek reads a TPM_PUBKEY (Part 2, section 10.5) and the SHA-1 over it
// and the nonce.
func parsePubek(b, nonce []byte) (n, e *big.Int, err error) {
	r := reader{b: b}
	algorithm := r.uint32()
	r.bytes(4) // schemes of encryption and signature
	parameters := reader{b: r.bytes(r.uint32())}
	parameters.bytes(8) // size in bits, number of primes
	exponent := parameters.bytes(parameters.uint32())
	modulus := r.bytes(r.uint32())
	key := b[:len(b)-len(r.b)]
	checksum := r.bytes(sha1.Size)
	if r.short || parameters.short || len(parameters.b) != 0 || len(r.b) != 0 || len(modulus) == 0 {
		return nil, nil, errors.New("malformed answer")
	}
	if sum := sha1.Sum(append(bytes.Clone(key), nonce...)); !bytes.Equal(sum[:], checksum) {
		return nil, nil, errors.New("its checksum is wrong")
	}
	if algorithm != 1 { // TPM_ALG_RSA
		return nil, nil, fmt.Errorf("a key of unknown algorithm %#x", algorithm)
	}
	e = big.NewInt(65537) // the default (Part 2, section 10.1.1)
	if len(exponent) != 0 {
		e.SetBytes(exponent)
	}
	return new(big.Int).SetBytes(modulus), e, nil
}

// NV indices of certificates (Part 2, section 19.1.2; TCG PC Client Specific
// Implementation Specification for Conventional BIOS).
const (
	EKCertificate       = 0x1000f000
	PlatformCertificate = 0x1000f002
)

// maxNV bounds an NV index: certificates are of one to two KB.
const maxNV = 16 << 10

// ReadNV reads a whole NV index (TPM_NV_ReadValue, Part 3, section 20.4). The
// error wraps BadIndex if it is not defined, AuthConflict or AuthFail if it
// takes a password.
func ReadNV(t Transport, index uint32) ([]byte, error) {
	content, err := readNV(t, index)
	if err != nil {
		return nil, fmt.Errorf("read NV index: %w", err)
	}
	return content, nil
}

func readNV(t Transport, index uint32) ([]byte, error) {
	r, err := capability(t, capNVIndex, index)
	if err != nil {
		return nil, err
	}
	size, err := parseNVSize(r)
	if err != nil {
		return nil, err
	}
	if size > maxNV {
		return nil, fmt.Errorf("%d bytes are too many", size)
	}
	const chunk = 512
	content := make([]byte, 0, size)
	for offset := uint32(0); offset < size; offset += chunk {
		want := min(chunk, size-offset)
		parameters := binary.BigEndian.AppendUint32(nil, index)
		parameters = binary.BigEndian.AppendUint32(parameters, offset)
		out, err := execute(t, ordNVReadValue, binary.BigEndian.AppendUint32(parameters, want))
		if err != nil {
			return nil, err
		}
		part := reader{b: out}
		data := part.bytes(part.uint32())
		if part.short || uint32(len(data)) != want {
			return nil, fmt.Errorf("%d bytes instead of %d", len(data), want)
		}
		content = append(content, data...)
	}
	return content, nil
}

// parseNVSize is the dataSize of a TPM_NV_DATA_PUBLIC (Part 2, section 19.3).
func parseNVSize(r *reader) (uint32, error) {
	tag := r.uint16()
	r.bytes(4)    // index
	for range 2 { // the PCRs for reading and for writing, each
		r.bytes(uint32(r.uint16())) // TPM_PCR_SELECTION
		r.bytes(1 + sha1.Size)      // localities, digest
	}
	r.bytes(2 + 4 + 3) // TPM_NV_ATTRIBUTES, three flags
	size := r.uint32()
	if r.short || tag != 0x18 || len(r.b) != 0 {
		return 0, errors.New("malformed answer")
	}
	return size, nil
}
