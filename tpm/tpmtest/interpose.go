package tpmtest

import (
	"bytes"
	"encoding/binary"
)

// Refuse gives the answer to a command that the TPM is never to see; nil passes
// it on.
type Refuse func(command []byte) []byte

// Commands by their codes (TPM 2.0 Library, Part 2, section 6.5.2).
const (
	ccCreatePrimary = 0x131
	ccCreate        = 0x153
	ccLoad          = 0x157
	ccGetCapability = 0x17a
)

// Response codes (Part 2, section 6.6.3).
const (
	rcCurveOfTemplate = 0x2e6 // TPM_RC_CURVE of the second parameter
	rcIntegrity       = 0x1df // TPM_RC_INTEGRITY of the first
)

// refusal is the response that has that code alone.
func refusal(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, code)
}

func codeOf(command []byte) uint32 { return binary.BigEndian.Uint32(command[6:]) }

// RefuseCommand answers each command of that code with that response code.
func RefuseCommand(command, response uint32) Refuse {
	return func(c []byte) []byte {
		if codeOf(c) == command {
			return refusal(response)
		}
		return nil
	}
}

// CancelRSA is a [Refuse] for a TPM that gives up on the RSA endorsement key by
// the template of the EK Profile, as one does that something interrupts.
func CancelRSA(command []byte) []byte {
	const canceled = 0x909                                             // TPM_RC_CANCELED
	template := []byte{0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2} // TPM_ALG_RSA, TPM_ALG_SHA256, TPMA_OBJECT
	if codeOf(command) == ccCreatePrimary && bytes.Contains(command, template) {
		return refusal(canceled)
	}
	return nil
}

// HideAK is a [Refuse] for somebody on the bus who lets no attestation key be
// made or loaded, so that nothing is signed.
func HideAK(command []byte) []byte {
	// TPMA_OBJECT of keyvet's attestation key (Part 2, section 8.3).
	ak := []byte{0x00, 0x05, 0x04, 0x72}
	switch code := codeOf(command); {
	case !bytes.Contains(command, ak):
	case code == ccCreatePrimary, code == ccCreate:
		return refusal(rcCurveOfTemplate)
	case code == ccLoad:
		return refusal(rcIntegrity)
	}
	return nil
}

// HideAllKeys is a [Refuse] for somebody on the bus who says that there is no
// handle and no kind of key at all.
func HideAllKeys(command []byte) []byte {
	const handles = 1 // TPM_CAP_HANDLES
	switch code := codeOf(command); {
	case code == ccGetCapability && binary.BigEndian.Uint32(command[10:]) == handles:
		return []byte{0x80, 0x01, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, handles, 0, 0, 0, 0}
	case code == ccCreatePrimary, code == ccCreate:
		return refusal(rcCurveOfTemplate)
	}
	return HideAK(command)
}
