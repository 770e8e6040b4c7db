package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyvet/keyvet/device"
)

// netlink is one message of rtnetlink(7).
func netlink(kind uint16, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, unix.SizeofNlMsghdr-len(b))...)
	return append(b, body...)
}

func link(index int32, flags uint32) []byte {
	body := binary.NativeEndian.AppendUint32(make([]byte, 4), uint32(index))
	body = binary.NativeEndian.AppendUint32(body, flags)
	return netlink(unix.RTM_NEWLINK, append(body, make([]byte, 4)...)...)
}

func TestNews(t *testing.T) {
	const up, running = unix.IFF_UP, unix.IFF_UP | unix.IFF_RUNNING
	l := make(links)
	for _, tt := range []struct {
		what string
		b    []byte
		news bool
	}{
		{"an address", netlink(unix.RTM_NEWADDR, make([]byte, 8)...), true},
		{"an address that goes", netlink(unix.RTM_DELADDR, make([]byte, 8)...), false},
		{"a link that is up, without a cable", link(2, up), false},
		{"a cable", link(2, running), true},
		{"the same again", link(2, running), false},
		{"no cable", link(2, up), false},
		{"a cable again, behind other words", append(netlink(unix.RTM_DELADDR, 1, 2, 3), append([]byte{0}, link(2, running)...)...), true},
		{"the loopback", link(1, running|unix.IFF_LOOPBACK), false},
		{"nothing", nil, false},
		{"too short", []byte{16, 0, 0, 0}, false},
		{"longer than it is", netlink(unix.RTM_NEWADDR)[:unix.SizeofNlMsghdr-1], false},
		{"a length of nothing", make([]byte, 64), false},
		{"half a link", netlink(unix.RTM_NEWLINK, 1, 2, 3), false},
	} {
		if got := l.news(tt.b); got != tt.news {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
	for i := range int32(10 * maxLinks) {
		l.news(link(i, running))
	}
	if len(l) > maxLinks {
		t.Errorf("%d links are remembered", len(l))
	}
}

func FuzzNews(f *testing.F) {
	f.Add(link(2, unix.IFF_RUNNING))
	f.Add(netlink(unix.RTM_NEWADDR, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := make(links)
		first := l.news(b)
		if l.news(nil) {
			t.Error("news of nothing")
		}
		if !bytes.Contains(b, []byte{unix.RTM_NEWADDR}) && !bytes.Contains(b, []byte{unix.RTM_NEWLINK}) && first {
			t.Error("news without an address or a link")
		}
	})
}

// The kernel takes both requests, and they end with the context.
func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Clock:
		t.Error("the clock was not set")
	default:
	}
	cancel()
}

// What the kernel says of a clock that was set comes as an error of a read.
func TestHear(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		hear(t.Context(), r, func(b []byte) bool { return string(b) == "news" }, func() { ring(heard) })
		close(ended)
	}()
	w.WriteString("news")
	<-heard
	w.Close()
	<-ended
}

func TestElapsed(t *testing.T) {
	before := Elapsed()
	time.Sleep(time.Millisecond)
	if after := Elapsed(); after <= before || before <= 0 {
		t.Errorf("%v, then %v", before, after)
	}
}

func TestTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	built := device.ClockFloor()
	told := &Told{Path: path}
	if err := told.Load(); err != nil || !device.ClockFloor().Equal(built) {
		t.Fatalf("of nothing: %v, %v", err, device.ClockFloor())
	}
	at := built.Add(30 * 24 * time.Hour)
	if err := told.Take(at); err != nil || !device.ClockFloor().Equal(at.Add(-24*time.Hour)) {
		t.Errorf("%v, %v", err, device.ClockFloor())
	}
	before, _ := os.ReadFile(path)
	for _, other := range []time.Time{at.Add(time.Minute), built, built.AddDate(100, 0, 0)} {
		if err := told.Take(other); err != nil {
			t.Error(err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) || device.ClockBehind(at) {
			t.Errorf("%v changes it: %s, %v", other, after, device.ClockFloor())
		}
	}
	again := &Told{Path: path}
	if err := again.Load(); err != nil || !again.kept.Equal(at) {
		t.Errorf("after a restart: %v, %v", err, again.kept)
	}
	if err := os.WriteFile(path, []byte("yesterday"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.Load(); err == nil {
		t.Error("nonsense is read")
	}
}
