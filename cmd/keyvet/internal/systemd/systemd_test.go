package systemd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemd has the service be ready before its first verdict, and the watchdog
// wait for that one as long as for the TPM.
func TestSystemd(t *testing.T) {
	for usec, want := range map[string][]string{
		"":          {"READY=1\nSTATUS=vets the device", "STATUS=has vetted the device", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"},
		"300000000": {"READY=1\nSTATUS=vets the device\nWATCHDOG_USEC=900000000", "STATUS=has vetted the device\nWATCHDOG_USEC=300000000", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"},
		"600000000": {"READY=1\nSTATUS=vets the device\nWATCHDOG_USEC=1200000000", "STATUS=has vetted the device\nWATCHDOG_USEC=600000000", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"},
	} {
		path := filepath.Join(t.TempDir(), "notify")
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		socket.SetReadDeadline(time.Now().Add(time.Minute))
		t.Setenv("NOTIFY_SOCKET", path)
		t.Setenv("WATCHDOG_USEC", usec)
		ctx, cancel := context.WithCancel(t.Context())
		s := New(slog.New(slog.DiscardHandler))
		s.Ready(ctx, 10*time.Minute)
		s.Alive()
		s.Alive()
		cancel()
		var got []string
		for range want {
			b := make([]byte, 200)
			n, err := socket.Read(b)
			if err != nil {
				t.Error(err)
			}
			got = append(got, string(b[:n]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("with a watchdog of %q: %q, want %q", usec, got, want)
		}
		socket.Close()
	}
}

// TestFile takes an opened file by its name, and only what is for this process.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("measured"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	own := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		pid, count string
		before     int // names before it
		found      bool
	}{
		{own, "all", 0, true}, {"1", "all", 0, false}, {"", "all", 0, false}, {own, "0", 0, false}, {own, "", 0, false}, {own, "x", 0, false}, {own, "all", 1, true},
	} {
		fd := -1
		for fd < firstFile+tt.before {
			if fd, err = syscall.Dup(int(opened.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		if tt.count == "all" {
			tt.count = strconv.Itoa(fd - firstFile + 1)
		}
		t.Setenv("LISTEN_PID", tt.pid)
		t.Setenv("LISTEN_FDS", tt.count)
		t.Setenv("LISTEN_FDNAMES", strings.Repeat("other:", fd-firstFile)+"bootlog")
		f := File("bootlog")
		if (f != nil) != tt.found || File("none") != nil {
			t.Errorf("%+v: %v", tt, f)
		}
		if f == nil {
			syscall.Close(fd)
			continue
		}
		b := make([]byte, 20)
		if n, _ := f.ReadAt(b, 0); string(b[:n]) != "measured" {
			t.Errorf("%+v: %q", tt, b[:n])
		}
		f.Close()
	}
}
