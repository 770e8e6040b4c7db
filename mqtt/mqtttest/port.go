package mqtttest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// Port is a TCP port on 127.0.0.1 that the kernel gives to nobody else while it
// is held. Connections to it are refused, but while somebody listens on its Addr.
type Port struct {
	Addr   string // 127.0.0.1:N
	socket int
}

// HoldPort holds a free port. It is bound and does not listen: Linux lets one
// program listen on it all the same, since both have SO_REUSEADDR, and passes it
// over where it looks for a free port.
func HoldPort() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &Port{socket: fd}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		p.Release()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		p.Release()
		return nil, os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		p.Release()
		return nil, os.NewSyscallError("getsockname", err)
	}
	at, isIPv4 := bound.(*syscall.SockaddrInet4)
	if !isIPv4 {
		p.Release()
		return nil, fmt.Errorf("the port is of %T", bound)
	}
	p.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(at.Port))
	return p, nil
}

// Release gives the port back. A program that listens on it is not disturbed.
func (p *Port) Release() { _ = syscall.Close(p.socket) }
