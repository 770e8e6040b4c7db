package tpmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestROCAKey(t *testing.T) {
	key := ROCAKey("one")
	if err := key.Validate(); err != nil {
		t.Fatal(err)
	}
	if key.N.BitLen() != 2048 || !key.Equal(ROCAKey("one")) || key.Equal(ROCAKey("two")) {
		t.Error("not 2,048 bits, or not by the seed")
	}
	// Modulo each of the first 126 primes it is a power of 65537, and so are its factors.
	primes := 0
	for r := int64(2); primes < 126; r++ {
		if !big.NewInt(r).ProbablyPrime(0) {
			continue
		}
		primes++
		powers := make(map[int64]bool)
		for x := int64(1); !powers[x]; x = x * (65537 % r) % r {
			powers[x] = true
		}
		for _, n := range []*big.Int{key.N, key.Primes[0], key.Primes[1]} {
			if residue := new(big.Int).Mod(n, big.NewInt(r)).Int64(); !powers[residue] {
				t.Errorf("%d modulo %d is not a power of 65537", residue, r)
			}
		}
	}
}

func ask(t *testing.T, address, command string) []byte {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response, err := client{conn}.Send([]byte(command))
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// manufacturer asks for the property TPM_PT_MANUFACTURER.
const manufacturer = "\x80\x01\x00\x00\x00\x16\x00\x00\x01\x7a\x00\x00\x00\x06\x00\x00\x01\x05\x00\x00\x00\x01"

func TestStartInDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := Start(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range s.CAFiles() {
		if pem, err := os.ReadFile(file); err != nil || !bytes.Contains(pem, []byte("BEGIN CERTIFICATE")) || filepath.Dir(file) != filepath.Join(dir, "ca") {
			t.Errorf("%s: %v", file, err)
		}
	}
	if response := ask(t, s.Address(), manufacturer); !bytes.HasSuffix(response, []byte("IBM\x00")) {
		t.Errorf("%x", response)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", s.socket()); err == nil {
		t.Error("it still listens")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a directory that was given is gone: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	if _, err := Start(context.Background(), Options{Dir: "/tmp/" + strings.Repeat("x", 100)}); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ctx, Options{}); err == nil {
		t.Errorf("%v", err)
	}
}

func TestPretendLeavesTheRest(t *testing.T) {
	p := Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}
	list := []byte{0, 0, 0, 0, 6, 0, 0, 0, 7}
	for i, v := range []uint32{0x102, 0x105, 0x106, 0x107, 0x108, 0x10b, 0x10c} {
		list = binary.BigEndian.AppendUint32(list, v)
		list = binary.BigEndian.AppendUint32(list, uint32(i)+0x41414141)
	}
	response := append([]byte{0x80, 1, 0, 0, 0, byte(10 + len(list)), 0, 0, 0, 0}, list...)
	want := bytes.Clone(response)
	for i, v := range []string{"AAAA", "IFX\x00", "SLB9", "670\x00", "\x00\x00\x00\x00", "\x00\x07\x00\x3d", "\x00\x0a\xe1\x00"} {
		copy(want[19+8*i+4:], v)
	}
	if got := p.Rewrite([]byte(manufacturer), bytes.Clone(response)); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for name, command := range map[string]string{
		"another command":    "\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x81",
		"another capability": strings.Replace(manufacturer, "\x00\x06\x00", "\x00\x01\x00", 1),
		"nothing":            "",
	} {
		if got := p.Rewrite([]byte(command), bytes.Clone(response)); !bytes.Equal(got, response) {
			t.Errorf("%s: %x", name, got)
		}
	}
	for n := range response {
		p.Rewrite([]byte(manufacturer), bytes.Clone(response[:n]))
	}
}

func TestProxyWithoutTPM(t *testing.T) {
	answer := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0}
	proxy := RunProxy(t, "", func(command, response []byte) []byte {
		if string(command) != manufacturer || response != nil {
			t.Errorf("%x, %x", command, response)
		}
		return answer
	})
	if got := ask(t, proxy.Address(), manufacturer); !bytes.Equal(got, answer) {
		t.Errorf("%x", got)
	}
	if err := proxy.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", strings.TrimPrefix(proxy.Address(), "unix:")); err == nil {
		t.Error("it still listens")
	}
}
