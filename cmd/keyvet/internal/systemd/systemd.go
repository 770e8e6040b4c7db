// Package systemd tells systemd how the service is.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
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
