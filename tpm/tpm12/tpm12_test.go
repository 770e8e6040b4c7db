package tpm12

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// socket is a TPM at a unix socket.
type socket struct{ conn net.Conn }

func (s socket) Send(command []byte) ([]byte, error) {
	if _, err := s.conn.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, 10)
	if _, err := io.ReadFull(s.conn, response); err != nil {
		return nil, err
	}
	response = append(response, make([]byte, binary.BigEndian.Uint32(response[2:])-10)...)
	_, err := io.ReadFull(s.conn, response[10:])
	return response, err
}

func emulator(t *testing.T, opts tpmtest.Options) (Transport, *tpmtest.SWTPM) {
	t.Helper()
	opts.TPM12 = true
	s := tpmtest.Run(t, opts)
	conn, err := net.Dial("unix", strings.TrimPrefix(s.Address(), "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return socket{conn}, s
}

// transcript answers each command with the next response.
type transcript struct {
	responses [][]byte
	commands  []uint32 // their ordinals
}

func (t *transcript) Send(command []byte) ([]byte, error) {
	t.commands = append(t.commands, binary.BigEndian.Uint32(command[6:]))
	if len(t.responses) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	r := t.responses[0]
	t.responses = t.responses[1:]
	return r, nil
}

func frame(code Code, parameters ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0xc4}, uint32(10+len(parameters)))
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), parameters...)
}

// answer is the response of TPM_GetCapability.
func answer(b ...byte) []byte {
	return frame(0, append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)...)
}

func TestWithoutOwner(t *testing.T) {
	tpm, s := emulator(t, tpmtest.Options{})
	info, err := ReadInfo(tpm)
	if err != nil || info.Manufacturer != "IBM" || !strings.HasPrefix(info.Version, "18.") {
		t.Errorf("%+v, %v", info, err)
	}
	if state, err := ReadState(tpm); err != nil || state != (State{}) {
		t.Errorf("%+v, %v", state, err)
	}
	n, e, err := ReadEndorsementKey(tpm)
	if err != nil || n.BitLen() != 2048 || e.Cmp(big.NewInt(65537)) != 0 {
		t.Fatalf("%v, %v, %v", n, e, err)
	}
	content, err := ReadNV(tpm, EKCertificate)
	if err != nil || len(content) < 600 || !bytes.HasPrefix(content, []byte{0x10, 0x01, 0}) || !bytes.Contains(content, n.Bytes()) {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	ca, err := os.ReadFile(s.CAFiles()[0])
	if block, _ := pem.Decode(ca); err != nil || block == nil || bytes.Contains(content, block.Bytes) {
		t.Errorf("the CA's certificate: %v", err)
	}
	if content, err := ReadNV(tpm, PlatformCertificate); err != nil || len(content) < 600 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	if _, err := ReadNV(tpm, 0x1000f001); !errors.Is(err, BadIndex) {
		t.Errorf("an index that is not there: %v", err)
	}
	lockNV(t, tpm)
	if _, err := ReadNV(tpm, EKCertificate); !errors.Is(err, AuthConflict) {
		t.Errorf("an index for the owner alone: %v", err)
	}
}

// lockNV has the TPM heed the permissions of its NV indices, by defining the
// index TPM_NV_INDEX_LOCK (Part 3, section 20.1).
func lockNV(t *testing.T, tpm Transport) {
	t.Helper()
	pcrs := append([]byte{0, 3, 0, 0, 0, 0x1f}, make([]byte, sha1.Size)...)
	public := slices.Concat([]byte{0, 0x18, 0xff, 0xff, 0xff, 0xff}, pcrs, pcrs, []byte{0, 0x17}, make([]byte, 4+3+4))
	if _, err := execute(tpm, 0xcc, append(public, make([]byte, 20)...)); err != nil {
		t.Fatal(err)
	}
}

func TestOwned(t *testing.T) {
	tpm, _ := emulator(t, tpmtest.Options{Owned: true})
	if state, err := ReadState(tpm); err != nil || state != (State{Owned: true}) {
		t.Errorf("%+v, %v", state, err)
	}
	if _, _, err := ReadEndorsementKey(tpm); !errors.Is(err, DisabledCmd) || !strings.Contains(err.Error(), "owner's password") {
		t.Errorf("endorsement key: %v", err)
	}
	if content, err := ReadNV(tpm, EKCertificate); err != nil || len(content) < 600 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
}

func TestWithoutCertificate(t *testing.T) {
	tpm, _ := emulator(t, tpmtest.Options{NoEKCertificates: true})
	if _, err := ReadNV(tpm, EKCertificate); !errors.Is(err, BadIndex) {
		t.Errorf("%v", err)
	}
	if _, _, err := ReadEndorsementKey(tpm); err != nil {
		t.Error(err)
	}
}

// The versions that the vendors' texts name.
func TestVersion(t *testing.T) {
	for want, bytes := range map[string][2]byte{"4.31": {4, 0x1f}, "4.34": {4, 0x22}, "6.43": {6, 0x2b}, "133.33": {0x85, 0x21}} {
		info, err := ReadInfo(&transcript{responses: [][]byte{
			frame(0, make([]byte, 20)...), answer(0, 0x30, 1, 2, bytes[0], bytes[1], 0, 2, 3, 'I', 'F', 'X', 0, 0, 0), answer('I', 'F', 'X', 0),
		}})
		if err != nil || info != (Info{Manufacturer: "IFX", Version: want}) {
			t.Errorf("%+v, %v, want %s", info, err, want)
		}
	}
}

func TestStates(t *testing.T) {
	for _, code := range []Code{FailedTest, NotStarted} {
		if _, err := ReadInfo(&transcript{responses: [][]byte{frame(code)}}); !errors.Is(err, code) {
			t.Errorf("%v", err)
		}
	}
	for want, flags := range map[State][]byte{
		{}:                                  {0, 0x1f, 0, 1, 0, 1},
		{Disabled: true}:                    {0, 0x1f, 1, 1, 0, 1},
		{Deactivated: true}:                 {0, 0x1f, 0, 1, 1, 1},
		{Disabled: true, Deactivated: true}: {0, 0x1f, 1, 1, 1},
	} {
		if state, err := ReadState(&transcript{responses: [][]byte{answer(flags...), answer(0)}}); err != nil || state != want {
			t.Errorf("%+v, %v", state, err)
		}
	}
	for _, code := range []Code{Disabled, Deactivated, NoEndorsement, LockRunning, 0x99} {
		if _, _, err := ReadEndorsementKey(&transcript{responses: [][]byte{frame(code)}}); !errors.Is(err, code) || !strings.HasPrefix(err.Error(), "read the TPM's endorsement key: ") {
			t.Errorf("%v", err)
		}
	}
}

func TestSelfTestIsAskedFor(t *testing.T) {
	tpm := &transcript{responses: [][]byte{frame(NeedsSelfTest), frame(0), frame(BadIndex)}}
	if _, err := ReadNV(tpm, EKCertificate); !errors.Is(err, BadIndex) || !slices.Equal(tpm.commands, []uint32{ordGetCapability, ordContinueSelfTest, ordGetCapability}) {
		t.Errorf("%v, commands %x", err, tpm.commands)
	}
	for name, responses := range map[string][][]byte{
		"the self-test fails": {frame(NeedsSelfTest), frame(FailedTest)}, "it asks again": {frame(NeedsSelfTest), frame(0), frame(NeedsSelfTest)},
	} {
		if _, err := ReadNV(&transcript{responses: responses}, EKCertificate); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// pubek is a response of TPM_ReadPubek to a nonce of zeros.
func pubek(algorithm uint32, exponent, modulus []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, algorithm)
	b = append(b, 0, 3, 0, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(12+len(exponent)))
	b = append(b, 0, 0, 8, 0, 0, 0, 0, 2)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(exponent))), exponent...)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(modulus))), modulus...)
	sum := sha1.Sum(append(bytes.Clone(b), make([]byte, 20)...))
	return append(b, sum[:]...)
}

func TestParsePubek(t *testing.T) {
	modulus := bytes.Repeat([]byte{0xc5}, 256)
	for exponent, want := range map[string]int64{"": 65537, "\x03": 3, "\x01\x00\x01": 65537, "\x80\x00\x00\x00": 1 << 31} {
		n, e, err := parsePubek(pubek(1, []byte(exponent), modulus), make([]byte, 20))
		if err != nil || e.Int64() != want || !bytes.Equal(n.Bytes(), modulus) {
			t.Errorf("exponent %x: %v, %v", exponent, e, err)
		}
	}
	good := pubek(1, nil, modulus)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, _, err := parsePubek(bad, make([]byte, 20)); err == nil {
			t.Errorf("byte %d is changed: no error", i)
		}
		if _, _, err := parsePubek(good[:i], make([]byte, 20)); err == nil {
			t.Errorf("cut to %d bytes: no error", i)
		}
	}
	for name, bad := range map[string][]byte{
		"another algorithm": pubek(2, nil, modulus), "no modulus": pubek(1, nil, nil), "longer": append(bytes.Clone(good), 0),
	} {
		if _, _, err := parsePubek(bad, make([]byte, 20)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, response := range map[string][]byte{
		"nothing": {}, "half a header": frame(0)[:7], "TPM 2.0": {0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0}, "another length": append(frame(0), 1),
		"no parameters": frame(0), "empty": answer(), "longer": append(answer(), 0), "one byte": answer(1), "many": answer(bytes.Repeat([]byte{0xff}, 500)...),
	} {
		again := func() Transport {
			return &transcript{responses: [][]byte{frame(0), response, response, response}}
		}
		if info, err := ReadInfo(again()); err == nil {
			t.Errorf("%s: %+v", name, info)
		}
		now := func() Transport { return &transcript{responses: [][]byte{response, response, response}} }
		if state, err := ReadState(now()); err == nil {
			t.Errorf("%s: %+v", name, state)
		}
		if n, _, err := ReadEndorsementKey(now()); err == nil {
			t.Errorf("%s: %v", name, n)
		}
		if content, err := ReadNV(now(), EKCertificate); err == nil {
			t.Errorf("%s: %x", name, content)
		}
	}
}

// FuzzAnswers has a TPM answer anything.
func FuzzAnswers(f *testing.F) {
	f.Add(frame(0), answer(0, 0x30, 1, 2, 4, 34, 0, 2, 3, 'I', 'F', 'X', 0, 0, 0), answer('I', 'F', 'X', 0))
	f.Add(answer(0, 0x1f, 0, 1, 0), answer(1), []byte{})
	f.Add(frame(0, pubek(1, nil, bytes.Repeat([]byte{0xc5}, 256))...), []byte{}, []byte{})
	pcrs := append([]byte{0, 3, 0, 0, 0, 0x1f}, make([]byte, sha1.Size)...)
	nv := slices.Concat([]byte{0, 0x18, 0x10, 0, 0xf0, 0}, pcrs, pcrs, []byte{0, 0x17, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 4})
	f.Add(answer(nv...), frame(0, 0, 0, 0, 4, 1, 2, 3, 4), []byte{})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		again := func() Transport { return &transcript{responses: [][]byte{a, b, c}} }
		if info, err := ReadInfo(again()); err == nil && (info.Manufacturer == "" || info.Version == "") {
			t.Fatalf("%+v", info)
		}
		ReadState(again())
		if n, e, err := ReadEndorsementKey(again()); err == nil && (n == nil || e == nil) {
			t.Fatal("neither key nor error")
		}
		if content, err := ReadNV(again(), EKCertificate); err == nil && len(content) > maxNV {
			t.Fatalf("%d bytes", len(content))
		}
	})
}
