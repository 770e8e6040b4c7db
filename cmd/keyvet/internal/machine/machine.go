// Package machine hears of what changes on the machine without anybody's telling
// keyvet: its clock is set, it gets an address or a link.
package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Changes are what has changed since one last looked. Each channel holds one
// token.
type Changes struct {
	Clock chan struct{} // it was set, or the machine was suspended
	Dial  chan struct{} // the same, or the machine has another address or link
}

// Watch hears of changes until ctx ends. The error says what it cannot hear of;
// of the rest it does.
func Watch(ctx context.Context) (*Changes, error) {
	c := &Changes{Clock: make(chan struct{}, 1), Dial: make(chan struct{}, 1)}
	clock, clockErr := openClock()
	if clockErr == nil {
		go hear(ctx, clock, func([]byte) bool { return false }, func() { ring(c.Clock); ring(c.Dial); arm(clock) })
	}
	network, networkErr := openNetwork()
	if networkErr == nil {
		running := make(links)
		go hear(ctx, network, running.news, func() { ring(c.Dial) })
	}
	return c, errors.Join(clockErr, networkErr)
}

func ring(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it was not looked at yet
	}
}

// hear reads from f until ctx ends, and calls changed when what it read is news,
// or the kernel says that something was missed: a clock that was set, or more
// messages than there was room for.
func hear(ctx context.Context, f *os.File, news func([]byte) bool, changed func()) {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buffer := make([]byte, 32<<10)
	for {
		n, err := f.Read(buffer)
		switch {
		case errors.Is(err, unix.ECANCELED), errors.Is(err, unix.ENOBUFS):
			changed()
		case errors.Is(err, unix.EINTR):
		case err != nil:
			f.Close()
			return
		case news(buffer[:n]):
			changed()
		}
	}
}

// openClock makes a timer that the kernel cancels when the clock is set
// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func openClock() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("nothing tells of a clock that is set: %w", os.NewSyscallError("timerfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "clock")
	if err := arm(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("nothing tells of a clock that is set: %w", err)
	}
	return f, nil
}

// never is as far from 1970 as every kernel's clock goes.
const never = (1<<31 - 1) * time.Second

// arm sets the timer to a time that does not come. One that has come, by a clock
// that is wrong, is read, and the timer is not set again before the clock is.
func arm(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	at := &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(never))}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, at, nil)
	})
	return errors.Join(err, os.NewSyscallError("timerfd_settime", setErr))
}

// openNetwork listens to addresses and links (rtnetlink(7)).
func openNetwork() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("nothing tells of another address (does the unit allow AF_NETLINK?): %w", os.NewSyscallError("netlink", err))
	}
	return os.NewFile(uintptr(fd), "network"), nil
}

// links are those that run, by index.
type links map[int32]bool

const maxLinks = 1024

// news reports whether messages of rtnetlink have a new address, or a link that
// runs now and did not before. What makes no sense is none.
func (l links) news(b []byte) bool {
	changed := false
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return changed
		}
		body := b[unix.SizeofNlMsghdr:length]
		switch {
		case kind == unix.RTM_NEWADDR:
			changed = true
		case kind == unix.RTM_NEWLINK && len(body) >= unix.SizeofIfInfomsg:
			changed = l.runs(int32(binary.NativeEndian.Uint32(body[4:])), binary.NativeEndian.Uint32(body[8:])) || changed
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return changed
}

// runs takes the flags of a link, and reports whether it runs now and did not.
func (l links) runs(index int32, flags uint32) bool {
	now, before := flags&unix.IFF_RUNNING != 0, l[index]
	if len(l) >= maxLinks {
		clear(l)
	}
	l[index] = now
	return now && !before && flags&unix.IFF_LOOPBACK == 0
}

// Elapsed is the time since the machine started, which nobody sets, suspended or
// not (clock_gettime(2), CLOCK_BOOTTIME).
func Elapsed() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(started)
	}
	return time.Duration(t.Nano())
}

var started = time.Now()
