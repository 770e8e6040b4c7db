package mqtttest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestHoldPort(t *testing.T) {
	p, err := HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for range 2 { // a server that is stopped starts again where it was
		if c, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("with no server: %v, %v", c, err)
		}
		l, err := net.Listen("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	for range 500 { // the kernel calls others free
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if l.Addr().String() == p.Addr {
			t.Fatalf("%s is held, and was given away", p.Addr)
		}
	}
}
