package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// The commands here need no authorization, so that their bytes are put together
// and taken apart by hand: go-tpm's own way costs 11 KB of the device binary
// for each of them. The structures in them are still go-tpm's.

var errShortResponse = errors.New("the response ends early")

// plain carries out a command without sessions and gives the parameters of the
// response (Part 1, section 18). What the TPM answers instead is a [tpm2.TPMRC].
func (t *TPM) plain(code tpm2.TPMCC, parameters []byte) ([]byte, error) {
	const header = 10 // tag, size, code
	command := binary.BigEndian.AppendUint16(make([]byte, 0, header+len(parameters)), uint16(tpm2.TPMSTNoSessions))
	command = binary.BigEndian.AppendUint32(command, uint32(header+len(parameters)))
	command = binary.BigEndian.AppendUint32(command, uint32(code))
	response, err := t.Send(append(command, parameters...))
	if err != nil {
		return nil, err
	}
	if len(response) < header {
		return nil, errShortResponse
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])); rc != tpm2.TPMRCSuccess {
		return nil, rc
	}
	if tag, size := binary.BigEndian.Uint16(response), binary.BigEndian.Uint32(response[2:]); tag != uint16(tpm2.TPMSTNoSessions) || uint64(size) != uint64(len(response)) {
		return nil, fmt.Errorf("a response of tag %#x and size %d in %d bytes", tag, size, len(response))
	}
	return response[header:], nil
}

// fields takes a response apart, in order. After the first that is not there,
// all are empty and err tells.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) take(n int) []byte {
	if f.err != nil || n < 0 || n > len(f.rest) {
		f.rest, f.err = nil, errShortResponse
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) number(bytes int) uint32 {
	var n uint32
	for _, b := range f.take(bytes) {
		n = n<<8 | uint32(b)
	}
	return n
}

// sized is the content of a TPM2B.
func (f *fields) sized() []byte { return f.take(int(f.number(2))) }

func handleBytes(h tpm2.TPMHandle) []byte { return binary.BigEndian.AppendUint32(nil, uint32(h)) }

// readClock is TPM2_ReadClock (Part 3, section 29.1), for whether it answers.
func (t *TPM) readClock() error {
	_, err := t.plain(tpm2.TPMCCReadClock, nil)
	return err
}

// publicOf is TPM2_ReadPublic (Part 3, section 12.4).
func (t *TPM) publicOf(h tpm2.TPMHandle) (public tpm2.TPM2BPublic, name tpm2.TPM2BName, err error) {
	response, err := t.plain(tpm2.TPMCCReadPublic, handleBytes(h))
	if err != nil {
		return public, name, err
	}
	f := fields{rest: response}
	public = tpm2.BytesAs2B[tpm2.TPMTPublic](f.sized())
	name.Buffer = f.sized()
	return public, name, f.err
}

// publicOfNV is TPM2_NV_ReadPublic (Part 3, section 31.6).
func (t *TPM) publicOfNV(index tpm2.TPMHandle) (*tpm2.TPMSNVPublic, tpm2.TPM2BName, error) {
	response, err := t.plain(tpm2.TPMCCNVReadPublic, handleBytes(index))
	if err != nil {
		return nil, tpm2.TPM2BName{}, err
	}
	f := fields{rest: response}
	area := tpm2.BytesAs2B[tpm2.TPMSNVPublic](f.sized())
	name := tpm2.TPM2BName{Buffer: f.sized()}
	if f.err != nil {
		return nil, name, f.err
	}
	public, err := area.Contents()
	return public, name, err
}

// getCapability is TPM2_GetCapability (Part 3, section 30.2).
func (t *TPM) getCapability(what tpm2.TPMCap, first, most uint32) (data *tpm2.TPMSCapabilityData, more bool, err error) {
	var parameters []byte
	for _, n := range []uint32{uint32(what), first, most} {
		parameters = binary.BigEndian.AppendUint32(parameters, n)
	}
	response, err := t.plain(tpm2.TPMCCGetCapability, parameters)
	if err != nil {
		return nil, false, err
	}
	f := fields{rest: response}
	more = f.number(1) != 0
	if f.err != nil {
		return nil, false, f.err
	}
	data, err = tpm2.Unmarshal[tpm2.TPMSCapabilityData](f.rest)
	return data, more, err
}

// pcrRead is TPM2_PCR_Read (Part 3, section 22.4).
func (t *TPM) pcrRead(selected tpm2.TPMLPCRSelection) (digests [][]byte, err error) {
	response, err := t.plain(tpm2.TPMCCPCRRead, tpm2.Marshal(selected))
	if err != nil {
		return nil, err
	}
	f := fields{rest: response}
	f.number(4) // how often PCRs changed
	for n := f.number(4); n > 0 && f.err == nil; n-- {
		f.number(2) // the bank
		f.take(int(f.number(1)))
	}
	for n := f.number(4); n > 0 && f.err == nil; n-- {
		digests = append(digests, f.sized())
	}
	return digests, f.err
}
