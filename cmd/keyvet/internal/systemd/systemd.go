// Package systemd tells systemd how the service is, and takes the files that
// systemd has opened for it.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Systemd is what started the service; if that is another program, nothing happens.
type Systemd struct {
	log      *slog.Logger
	watchdog time.Duration // of the unit; 0 if it has none
	vetted   sync.Once
}

// New returns the systemd of the environment (sd_notify(3), sd_watchdog_enabled(3)).
func New(log *slog.Logger) *Systemd {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < 0 {
		usec = 0
	}
	return &Systemd{log: log, watchdog: time.Duration(usec) * time.Microsecond}
}

// firstVet is how long the first self-check may take, besides the wait for a TPM.
const firstVet = 5 * time.Minute

// Ready says that the service runs: units that are not behind the gate need not
// wait for the verdict. Until the first one the watchdog has time for wait, too.
func (s *Systemd) Ready(ctx context.Context, wait time.Duration) {
	state := daemon.SdNotifyReady + "\nSTATUS=vets the device"
	if s.watchdog > 0 {
		state += s.within(wait + max(firstVet, s.watchdog))
	}
	s.tell(state)
	context.AfterFunc(ctx, func() { s.tell(daemon.SdNotifyStopping) })
}

// Alive says that the agent has come a step further: the first one is that the
// device has vetted itself.
func (s *Systemd) Alive() {
	s.vetted.Do(func() {
		state := "STATUS=has vetted the device"
		if s.watchdog > 0 {
			state += s.within(s.watchdog)
		}
		s.tell(state)
	})
	s.tell(daemon.SdNotifyWatchdog)
}

// within sets the watchdog's time.
func (*Systemd) within(d time.Duration) string {
	return fmt.Sprintf("\nWATCHDOG_USEC=%d", d.Microseconds())
}

func (s *Systemd) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd cannot be told", "error", err)
	}
}

// firstFile is SD_LISTEN_FDS_START.
const firstFile = 3

// File returns the file of that name which systemd has opened for this process
// (OpenFile= in systemd.service(5), sd_listen_fds(3)), or nil. It is asked once for
// a name: the file owns its descriptor.
func File(name string) *os.File {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")) // 0 if it cannot be read
	for i, given := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if i < n && given == name {
			return os.NewFile(uintptr(firstFile+i), name)
		}
	}
	return nil
}
