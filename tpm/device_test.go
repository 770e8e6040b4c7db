package tpm

import (
	"crypto"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

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

// recorded is the TPM at an address and a recording of what it answers.
func recorded(t testing.TB, address string) (*TPM, *recorder) {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{ReadWriteCloser: conn}
	c := over(r, DefaultTimeout)
	t.Cleanup(func() { c.Close() })
	return c, r
}

// FuzzInventory has a TPM answer anything, from a recording of a real inventory on.
func FuzzInventory(f *testing.F) {
	for _, opts := range []tpmtest.Options{{}, {TPM12: true}} {
		c, r := recorded(f, tpmtest.Run(f, opts).Address())
		_, keys, gaps := c.Inventory()
		if _, err := c.Quote([32]byte{}); (err == nil) == opts.TPM12 || len(keys) == 0 || len(gaps) != 0 {
			f.Fatalf("%v %v %v", keys, gaps, err)
		}
		f.Add(r.responses)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := over(&transcript{responses: b}, time.Minute)
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
	c, r := recorded(f, tpmtest.Run(f, tpmtest.Options{}).Address())
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
			return c.withPrimary(signing, func(key tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
				area, err := public.Contents()
				if err != nil {
					return err
				}
				_, err = c.certify(ak, [32]byte{}, emptyAuth(key), area)
				return err
			})
		})
	})
	for i, use := range uses {
		r.responses = nil
		if err := use(c); err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), r.responses)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		// Too short a time to be asked to repeat a command.
		_ = uses[int(which)%len(uses)](over(&transcript{responses: b}, 9*time.Millisecond))
	})
}
