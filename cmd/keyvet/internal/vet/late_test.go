package vet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

// lateVetter looks for a TPM by a function.
func lateVetter(wait time.Duration, look func() error) (*Vetter, *strings.Builder) {
	c := *config.Default()
	c.TPM.Wait.Duration = wait
	log := new(strings.Builder)
	return &Vetter{
		Check: Check{Config: c}, Log: slog.New(slog.NewTextHandler(log, nil)),
		look: func(context.Context) (*tpm.TPM, error) { return nil, look() },
	}, log
}

var errAbsent = fmt.Errorf("no device: %w", tpm.ErrAbsent)

// The first check waits for a TPM that comes late, as long as the configuration
// says and no longer; it does not wait for one that waiting does not help.
func TestAwaitTPM(t *testing.T) {
	for _, c := range []struct {
		name  string
		comes time.Duration // 0: never
		why   error         // until then
		wait  time.Duration
		least time.Duration
		most  time.Duration
	}{
		{"there at once", 0, nil, 90 * time.Second, 0, 0},
		{"in 5 s", 5 * time.Second, errAbsent, 90 * time.Second, 5 * time.Second, 6 * time.Second},
		{"given to its group in 1 s", time.Second, &fs.PathError{Op: "open", Err: fs.ErrPermission}, 90 * time.Second, time.Second, 2 * time.Second},
		{"started in 3 s", 3 * time.Second, tpm2.TPMRCInitialize, 90 * time.Second, 3 * time.Second, 4 * time.Second},
		{"let go in 3 s", 3 * time.Second, syscall.EBUSY, 90 * time.Second, 3 * time.Second, 4 * time.Second},
		{"updated in 60 s", 60 * time.Second, tpm2.TPMRCUpgrade, 90 * time.Second, 60 * time.Second, 61 * time.Second},
		{"never", 0, errAbsent, 90 * time.Second, 90 * time.Second, 90 * time.Second},
		{"later than that", 2 * time.Minute, errAbsent, 90 * time.Second, 90 * time.Second, 90 * time.Second},
		{"no wish to wait", 5 * time.Second, errAbsent, 0, 0, 0},
		{"hung", 0, tpm.ErrTimeout, 90 * time.Second, 0, 0},
		{"wrong locality", 0, tpm2.TPMRCLocality, 90 * time.Second, 0, 0},
		{"not a TPM", 0, errors.New("not a character device"), 90 * time.Second, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			v, log := lateVetter(c.wait, func() error {
				if c.comes > 0 && time.Since(start) >= c.comes {
					return nil
				}
				return c.why
			})
			_, err := v.connect(t.Context())
			if took := time.Since(start); took < c.least || took > c.most {
				t.Errorf("%s: waited %v, want %v to %v", c.name, took, c.least, c.most)
			}
			if waited := strings.Contains(log.String(), "waiting for the TPM"); waited != (c.most > 0) {
				t.Errorf("%s: %s", c.name, log)
			}
			gaveUp := c.most > 0 && (c.comes == 0 || c.comes > c.wait)
			if said := err != nil && strings.Contains(err.Error(), "waited 1m30s"); said != gaveUp || gaveUp && !errors.Is(err, c.why) {
				t.Errorf("%s: %v", c.name, err)
			}
			again := time.Now()
			v.connect(t.Context())
			if took := time.Since(again); took != 0 {
				t.Errorf("%s: the second check waits, too: %v", c.name, took)
			}
		})
	}
}

func TestAwaitTPMIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		v, _ := lateVetter(90*time.Second, func() error { return errAbsent })
		start := time.Now()
		v.connect(ctx)
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("%v", took)
		}
	})
}

// A TPM that did not come in time is looked for each minute.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		why, looks := error(errAbsent), 0
		v, _ := lateVetter(0, func() error { looks++; return why })
		if v.Late(ctx) != nil {
			t.Error("a TPM is looked for that is there")
		}
		v.late = device.TPMAbsent
		late := v.Late(ctx)
		time.Sleep(10*time.Minute + time.Second)
		select {
		case <-late:
			t.Fatal("it is not there")
		default:
		}
		if looks != 10 {
			t.Errorf("%d looks in 10 minutes", looks)
		}
		why = nil
		start := time.Now()
		<-late
		if took := time.Since(start); took > time.Minute {
			t.Errorf("found after %v", took)
		}
		// A device that is there now, but not this user's, is news, too.
		late, why = v.Late(ctx), fs.ErrPermission
		<-late
		v.late = device.TPMAbsent
		v.Late(ctx)
		cancel()
		synctest.Wait() // no look is left behind
	})
}

func TestIsLate(t *testing.T) {
	for _, c := range []struct {
		state  device.TPMState
		opened bool
		want   bool
	}{
		{device.TPMOK, true, false}, {device.TPMDegraded, true, false}, {device.TPMAbsent, false, true}, {device.TPMAbsent, true, false},
		{device.TPMDenied, false, true}, {device.TPMBusy, false, true}, {device.TPMNotStarted, true, true}, {device.TPMUpdating, true, true},
		{device.TPMWrongLocality, true, true},
	} {
		if got := isLate(&device.TPM{State: c.state}, c.opened); got != c.want {
			t.Errorf("%s, opened %v: %v", c.state, c.opened, got)
		}
	}
	if isLate(nil, false) {
		t.Error("a device without a TPM waits for one")
	}
}
