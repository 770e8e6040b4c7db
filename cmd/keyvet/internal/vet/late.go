package vet

import (
	"context"
	"fmt"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

// Between two looks for a TPM that was not there: while the first check waits,
// and afterwards.
const (
	lookFirst = 50 * time.Millisecond
	lookMost  = time.Second
	lookLater = time.Minute
)

// reach opens the TPM and has it answer. It returns what it opened even so, and
// why nothing can be asked of it.
func (v *Vetter) reach(ctx context.Context) (*tpm.TPM, error) {
	if v.look != nil {
		return v.look(ctx)
	}
	t, err := v.Check.connect(ctx)
	if err == nil {
		err = t.Answer()
	}
	return t, err
}

// probe returns why the TPM cannot be read; nil if it can.
func (v *Vetter) probe(ctx context.Context) error {
	t, err := v.reach(ctx)
	if t == nil {
		return err
	}
	defer t.Close() // errors are of no account: everything was read
	if err == nil {
		_, err = t.Info()
	}
	return err
}

// connect opens the TPM. Before the first check it waits for one that the boot has
// not brought up yet, for at most tpm.wait.
func (v *Vetter) connect(ctx context.Context) (*tpm.TPM, error) {
	t, err := v.reach(ctx)
	if wait := v.Config.TPM.Wait.Duration; !v.awaited && wait > 0 && tpm.ComesLate(err) {
		t, err = v.await(ctx, wait, t, err)
	}
	v.awaited = true
	if t != nil && !tpm.ComesLate(err) {
		return t, nil // the inventory says what is the matter with it, if anything
	}
	if t != nil {
		t.Close()
	}
	if v.waited > 0 {
		err = fmt.Errorf("%w (keyvet waited %v for it, which is tpm.wait, and looks again each minute)", err, v.waited)
	}
	return nil, err
}

// await is for a TPM that comes late: t is what could be opened of it, and err why
// that does not do.
func (v *Vetter) await(ctx context.Context, wait time.Duration, t *tpm.TPM, err error) (*tpm.TPM, error) {
	v.Log.Info("waiting for the TPM", "address", v.Config.TPM.Address, "most", wait, "why", err)
	done := v.progress("waiting for the TPM at " + v.Config.TPM.Address)
	defer done()
	start := time.Now()
	for pause := lookFirst; ; pause = min(2*pause, lookMost) {
		if t != nil {
			t.Close() // another program may have to start it
		}
		left := wait - time.Since(start)
		late := left <= 0 || !sleep(ctx, min(pause, left))
		if t, err = v.reach(ctx); !tpm.ComesLate(err) {
			v.Log.Info("the TPM answers", "after", time.Since(start).Round(time.Millisecond))
			return t, err
		}
		if late {
			v.waited = time.Since(start).Round(time.Second)
			return t, err
		}
	}
}

// sleep reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// isLate reports whether a check found a TPM that may come yet. opened reports
// whether it could be connected to.
func isLate(found *device.TPM, opened bool) bool {
	if found == nil {
		return false
	}
	switch found.State {
	case device.TPMOK, device.TPMDegraded:
		return false
	case device.TPMAbsent:
		return !opened // else it does not answer, and each look would take its timeout
	}
	return true
}

// Late implements [agent.Device].
func (v *Vetter) Late(ctx context.Context) <-chan struct{} {
	if v.late == "" {
		return nil
	}
	last := v.late
	came := make(chan struct{})
	go func() {
		for sleep(ctx, lookLater) {
			if err := v.probe(ctx); err == nil || tpm.StateOf(err) != last {
				close(came)
				return
			}
		}
	}()
	return came
}
