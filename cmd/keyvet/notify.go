package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifySystemd gives the function that the agent calls whenever it has come a
// step further: the first call tells systemd that the service is ready, which
// is when the device has vetted itself for the first time, and each one feeds
// the watchdog. Without systemd it does nothing.
func notifySystemd(ctx context.Context, log *slog.Logger) (alive func()) {
	tell := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("systemd cannot be told", "error", err)
		}
	}
	context.AfterFunc(ctx, func() { tell(daemon.SdNotifyStopping) })
	var ready sync.Once
	return func() {
		ready.Do(func() { tell(daemon.SdNotifyReady) })
		tell(daemon.SdNotifyWatchdog)
	}
}
