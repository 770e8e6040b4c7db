package tpmtest

import "encoding/binary"

// Lacks is a TPM without an algorithm: it neither makes nor loads such keys and,
// unless Lists says otherwise, does not list the algorithm and its curves. Its
// Refuse and Rewrite are for [NewInterposer]. What is at a persistent handle
// stays: remove it first.
type Lacks struct {
	Algorithm uint16 // TPM_ALG_RSA or TPM_ALG_ECC
	Code      uint32 // that refuses its templates: 0x2ca, TPM_RC_TYPE of the second parameter
	Lists     bool   // the TPM lists what it refuses
}

// The algorithms that a TPM may lack (TPM 2.0 Library, Part 2, section 6.3).
const (
	RSA = 0x0001
	ECC = 0x0023
)

// Refuse is a [Refuse].
func (l Lacks) Refuse(command []byte) []byte {
	switch codeOf(command) {
	case ccCreatePrimary, ccCreate, ccLoad:
		if keyType(command) == l.Algorithm {
			return refusal(l.Code)
		}
	}
	return nil
}

// keyType is the algorithm of the public area in a command that has one as its
// second parameter, after a handle and its authorization; 0 if there is none.
func keyType(command []byte) uint16 {
	at := 14
	skip := func(size int) bool { at += size; return at+4 <= len(command) }
	if !skip(0) || !skip(4+int(binary.BigEndian.Uint32(command[at:]))) || !skip(2+int(binary.BigEndian.Uint16(command[at:]))) {
		return 0
	}
	return binary.BigEndian.Uint16(command[at+2:])
}

// Rewrite is a [Rewrite].
func (l Lacks) Rewrite(command, response []byte) []byte {
	const (
		algorithms, curves = 0, 8 // TPM_CAP_ALGS, TPM_CAP_ECC_CURVES
		list               = 10 + 1 + 4
	)
	if l.Lists || codeOf(command) != ccGetCapability || len(response) < list+4 || binary.BigEndian.Uint32(response[6:]) != 0 {
		return response
	}
	size := 0 // of an entry
	switch kind := binary.BigEndian.Uint32(command[10:]); {
	case kind == algorithms:
		size = 2 + 4
	case kind == curves && l.Algorithm == ECC:
		size = 2
	default:
		return response
	}
	kept, n := append([]byte(nil), response[:list+4]...), uint32(0)
	for at := list + 4; at+size <= len(response); at += size {
		if size > 2 && binary.BigEndian.Uint16(response[at:]) != l.Algorithm {
			kept, n = append(kept, response[at:at+size]...), n+1
		}
	}
	binary.BigEndian.PutUint32(kept[2:], uint32(len(kept)))
	binary.BigEndian.PutUint32(kept[list:], n)
	return kept
}
