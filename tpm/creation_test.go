package tpm

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// A TPM that makes no key says why.
func TestCreateKeyRefused(t *testing.T) { byEveryWay(t, testCreateKeyRefused) }

func testCreateKeyRefused(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	for _, tt := range []struct {
		code tpm2.TPMRC
		want error
	}{
		{tpm2.TPMRCObjectMemory, ErrFull},
		{tpm2.TPMRCMemory, ErrFull},
		{tpm2.TPMRCCurve | 0x2c0, ErrAlgorithm}, // of parameter 2
		{tpm2.TPMRCHierarchy, nil},
	} {
		proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
			if binary.BigEndian.Uint32(command[6:]) != uint32(tpm2.TPMCCCreate) {
				return response
			}
			return append([]byte{0x80, 0x01, 0, 0, 0, 10}, binary.BigEndian.AppendUint32(nil, uint32(tt.code))...)
		})
		c := connect(t, proxy.Address())
		_, err := c.CreateKey("ecdsa-p256")
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && (errors.Is(err, ErrFull) || errors.Is(err, ErrAlgorithm)) {
			t.Errorf("%v: %v, want %v", tt.code, err, tt.want)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := connect(t, emulator.Address()).CreateKey("ecdsa-p256"); err != nil {
		t.Error(err)
	}
}
