package tpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func open(t *testing.T, address string, timeout time.Duration) *tpm.TPM {
	t.Helper()
	c, err := tpm.Open(address, tpm.Options{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestOpenAbsent(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // so that nothing listens at its port
	deserted := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: deserted, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, address := range []string{"unix:" + filepath.Join(dir, "none"), "unix:" + deserted, "tcp:" + listener.Addr().String(), filepath.Join(dir, "tpm0")} {
		if _, err := tpm.Open(address, tpm.Options{}); !errors.Is(err, tpm.ErrAbsent) || !strings.HasPrefix(err.Error(), "open "+address) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"":                      "not an address",
		"tpm0":                  "not an address",
		"spi:/dev/spidev99.99":  "no TPM there",
		"i2c:/dev/i2c-99":       "no TPM there",
		"spi:spidev0.0":         "not a SPI device",
		"mssim:localhost:2321":  "unknown scheme",
		"tcp:localhost":         "missing port",
		file:                    "not a character device",
		filepath.Dir(file):      "is a directory",
		"unix:" + file:          "no TPM there",
		"unix:" + file + "/sub": "not a directory",
	} {
		_, err := tpm.Open(address, tpm.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

// A TPM that stopped ends the whole inventory by one deadline, and its late
// answers are never taken for those to later commands.
func TestPausedTPM(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	c := open(t, emulator.Address(), 100*time.Millisecond)
	if err := emulator.Pause(); err != nil {
		t.Fatal(err)
	}
	info, keys, gaps := c.Inventory()
	if info.State != device.TPMAbsent || info.Problem == "" || len(keys) != 0 || len(gaps) != 1 || gaps[0].Minor || !strings.Contains(gaps[0].Why, "timed out") {
		t.Errorf("inventory of a paused TPM: %+v %v %v", info, keys, gaps)
	}
	if err := emulator.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(); !errors.Is(err, tpm.ErrTimeout) {
		t.Errorf("after a time-out: %v", err)
	}
	if _, err := c.Quote([32]byte{}); !errors.Is(err, tpm.ErrTimeout) {
		t.Errorf("after a time-out: %v", err)
	}
	if info, err := open(t, emulator.Address(), 0).Info(); err != nil || info.State != device.TPMOK {
		t.Errorf("after it was opened again: %+v, %v", info, err)
	}
}

func TestSecondClientOfAnEmulator(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	if _, err := open(t, emulator.Address(), 0).Info(); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, emulator.Address(), 100*time.Millisecond).Info()
	if !errors.Is(err, tpm.ErrTimeout) || !strings.Contains(err.Error(), "another client") {
		t.Errorf("second client: %v", err)
	}
}

func TestTCP(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-served })
	go func() { // a TCP front to the emulator, one byte at a time
		defer close(served)
		front, err := listener.Accept()
		if err != nil {
			return
		}
		defer front.Close()
		back, err := net.Dial("unix", strings.TrimPrefix(emulator.Address(), "unix:"))
		if err != nil {
			return
		}
		defer back.Close()
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := front.Read(buf)
				if err != nil {
					back.Close()
					return
				}
				back.Write(buf[:n])
			}
		}()
		one := make([]byte, 1)
		for {
			if _, err := back.Read(one); err != nil {
				return
			}
			if _, err := front.Write(one); err != nil {
				return
			}
		}
	}()
	c, err := tpm.Open("tcp:"+listener.Addr().String(), tpm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Info(); err != nil || info.Manufacturer != "IBM" {
		t.Errorf("%+v, %v", info, err)
	}
}

// frame makes a response of that tag, code and parameters.
func frame(tag uint16, code uint32, parameters ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(parameters)))
	return append(binary.BigEndian.AppendUint32(b, code), parameters...)
}

func TestBadAnswers(t *testing.T) {
	withLength := func(n uint32) []byte {
		b := frame(0x8001, 0)
		binary.BigEndian.PutUint32(b[2:], n)
		return b
	}
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"mute":             {nil, "timed out"},
		"one byte":         {[]byte{0x80}, "timed out"},
		"half a header":    {frame(0x8001, 0)[:9], "timed out"},
		"short of length":  {frame(0x8001, 0, 1, 2, 3)[:12], "timed out"},
		"length 0":         {withLength(0), "claims 0 bytes"},
		"length 9":         {withLength(9), "claims 9 bytes"},
		"length 4097":      {withLength(4097), "claims 4097 bytes"},
		"length 4 GB":      {withLength(0xffffffff), "claims 4294967295 bytes"},
		"too long":         {append(frame(0x8001, 0), 0), "11 bytes, its header claims 10"},
		"two answers":      {bytes.Repeat(frame(0x8001, 0), 2), "20 bytes, its header claims 10"},
		"other protocol":   {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "claims"},
		"other tag":        {frame(0x1234, 0), "tag 0x1234"},
		"nothing in it":    {frame(0x8001, 0), "read the TPM's capability"},
		"garbage in it":    {frame(0x8001, 0, bytes.Repeat([]byte{0xff}, 4000)...), "read the TPM's capability"},
		"TPM 1.2":          {frame(0x00c4, 0x1e), "TPM 1.2 code 0x1e"},
		"emulator gone":    {frame(0x00c4, 9), "emulator has ended"},
		"not started":      {frame(0x8001, 0x100), "was not started"},
		"wrong locality":   {frame(0x8001, 0x907), "read the TPM's clock"},
		"in an upgrade":    {frame(0x8001, 0x12d), "read the TPM's clock"},
		"unknown error":    {frame(0x8001, 0xdeadbeef), "read the TPM's clock"},
		"unknown format 1": {frame(0x8001, 0x0bf), "read the TPM's clock"},
	} {
		proxy := tpmtest.RunProxy(t, "", func(_, _ []byte) []byte { return c.answer })
		timeout := 10 * time.Second
		if c.want == "timed out" {
			timeout = 50 * time.Millisecond
		}
		client := open(t, proxy.Address(), timeout)
		state, known := map[string]device.TPMState{
			"not started": device.TPMNotStarted, "wrong locality": device.TPMWrongLocality, "in an upgrade": device.TPMUpdating,
		}[name]
		if !known {
			state = device.TPMAbsent
		}
		info, keys, gaps := client.Inventory()
		if info.State != state || info.Problem == "" || len(keys) != 0 || len(gaps) != 1 || gaps[0].Minor ||
			!strings.Contains(gaps[0].Why, c.want) || strings.Contains(gaps[0].Why, "\n") {
			t.Errorf("%s: %+v %v %v", name, info, keys, gaps)
		}
		if _, err := client.Quote([32]byte{}); err == nil {
			t.Errorf("%s: a quote", name)
		}
	}
}

func TestConnectionLost(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			conn.Close()
		}
	}()
	_, err = open(t, "unix:"+listener.Addr().String(), 0).Info()
	if err == nil || errors.Is(err, tpm.ErrTimeout) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("%v", err)
	}
}
