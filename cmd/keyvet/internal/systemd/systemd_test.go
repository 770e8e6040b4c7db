package systemd

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
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
