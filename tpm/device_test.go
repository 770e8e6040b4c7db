package tpm

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// blockingFile is a file that blocks, as that of a TPM does, and the other end of it.
func blockingFile(t *testing.T) (device, chip *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	device, chip = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "chip")
	t.Cleanup(func() { device.Close(); chip.Close() })
	return device, chip
}

func TestBlockingFile(t *testing.T) {
	device, chip := blockingFile(t)
	if err := device.SetDeadline(time.Now()); err == nil {
		t.Fatal("the file takes deadlines: it is not as a device is")
	}
	go func() {
		command := make([]byte, maxFrame)
		n, _ := chip.Read(command)
		binary.BigEndian.PutUint32(command[6:], 0) // success
		chip.Write(command[:n])
	}()
	c := &TPM{address: "device", timeout: time.Minute, conn: device}
	command := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4}
	response, err := c.Send(command)
	if want := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0, 0, 3, 4}; err != nil || !bytes.Equal(response, want) {
		t.Errorf("%x, %v", response, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Send(command); err == nil {
		t.Error("a closed TPM answered")
	}
}

// A read that nothing can interrupt is left behind.
func TestBlockingFileTimeout(t *testing.T) {
	device, chip := blockingFile(t)
	c := &TPM{address: "device", timeout: 20 * time.Millisecond, conn: device}
	command := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 2}
	if _, err := c.Send(command); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	if _, err := chip.Write(command); err != nil { // the late answer
		t.Fatal(err)
	}
	if _, err := c.Send(command); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCommandBounds(t *testing.T) {
	for _, n := range []int{0, 9, 4097} {
		if _, err := roundTrip(&transcript{}, make([]byte, n)); err == nil {
			t.Errorf("a command of %d bytes was sent", n)
		}
	}
}

// transcript answers each command with the next response of a recording.
type transcript struct {
	responses []byte
	current   []byte
}

func (t *transcript) Write(b []byte) (int, error) {
	n := len(t.responses)
	if n >= headerLen {
		n = min(n, max(headerLen, int(binary.BigEndian.Uint16(t.responses[4:]))))
	}
	t.current, t.responses = t.responses[:n], t.responses[n:]
	return len(b), nil
}

func (t *transcript) Read(b []byte) (int, error) {
	if len(t.current) == 0 {
		return 0, io.EOF
	}
	n := copy(b, t.current)
	t.current = t.current[n:]
	return n, nil
}

func (t *transcript) Close() error { return nil }

// recorder records the responses of a TPM.
type recorder struct {
	io.ReadWriteCloser
	responses []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.ReadWriteCloser.Read(b)
	r.responses = append(r.responses, b[:n]...)
	return n, err
}

// FuzzInventory has a TPM answer anything, from a recording of a real inventory on.
func FuzzInventory(f *testing.F) {
	for _, opts := range []tpmtest.Options{{}, {TPM12: true}} {
		c := connect(f, tpmtest.Run(f, opts).Address())
		r := &recorder{ReadWriteCloser: c.conn}
		c.conn = r
		_, keys, gaps := c.Inventory()
		if _, err := c.Quote([32]byte{}); (err == nil) == opts.TPM12 || len(keys) == 0 || len(gaps) != 0 {
			f.Fatalf("%v %v %v", keys, gaps, err)
		}
		f.Add(r.responses)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &TPM{address: "fuzz", timeout: time.Minute, conn: &transcript{responses: b}}
		info, keys, gaps := c.Inventory()
		if info.State == "" || len(keys)+len(gaps) == 0 {
			t.Fatalf("%+v, no keys and no gaps", info)
		}
		for _, k := range keys {
			if k.ID == "" || k.Public == nil {
				t.Fatalf("%+v", k)
			}
		}
		c.Quote([32]byte{})
	})
}

// FuzzKeys has a TPM answer anything while it makes keys, certifies one and
// answers challenges, from recordings of these on.
func FuzzKeys(f *testing.F) {
	c := connect(f, tpmtest.Run(f, tpmtest.Options{}).Address())
	_, keys, _ := c.Inventory()
	quoted, err := c.Quote([32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	statement, err := evidence.VerifyDigest(quoted, [32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	var uses []func(*TPM) error
	for _, k := range keys {
		if k.Role == device.RoleEK { // by password and by policy
			challenge, _, err := evidence.NewChallenge(k.Public, statement.AKName, func(crypto.PublicKey) error { return nil })
			if err != nil {
				f.Fatal(err)
			}
			uses = append(uses, func(c *TPM) error { _, err := c.Activate(challenge); return err })
		}
	}
	for _, algorithm := range []string{"ecdsa-p256", "rsa-2048"} {
		uses = append(uses, func(c *TPM) error {
			b, err := c.CreateKey(algorithm)
			if err == nil {
				_, err = ParseKeyBlob(b.PEM())
			}
			return err
		})
	}
	uses = append(uses, func(c *TPM) error {
		signing := attestationKey
		signing.hierarchy = tpm2.TPMRHOwner
		signing.area.ObjectAttributes.Restricted = false
		return c.withPrimary(attestationKey, func(ak tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
			return c.withPrimary(signing, func(key tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
				_, err := c.certify(ak, [32]byte{}, emptyAuth(key))
				return err
			})
		})
	})
	socket := c.conn
	for i, use := range uses {
		recorded := &recorder{ReadWriteCloser: socket}
		c.conn = recorded
		if err := use(c); err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), recorded.responses)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		// Too short a time to be asked to repeat a command.
		_ = uses[int(which)%len(uses)](&TPM{address: "fuzz", timeout: 9 * time.Millisecond, conn: &transcript{responses: b}})
	})
}
