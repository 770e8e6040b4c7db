package vet

import (
	"context"
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

// probe returns why the TPM cannot be read; nil if it can.
func (v *Vetter) probe() error {
	if v.look != nil {
		return v.look()
	}
	return tpm.Probe(v.Config.TPM.Address, v.Config.TPMOptions())
}

// awaitTPM waits for a TPM that the boot has not brought up yet, for at most
// tpm.wait, before the first check.
func (v *Vetter) awaitTPM(ctx context.Context) {
	wait := v.Config.TPM.Wait.Duration
	if v.awaited || v.Config.TPM.Address == "" || wait == 0 {
		return
	}
	v.awaited = true
	err := v.probe()
	if !tpm.ComesLate(err) {
		return // it is there, or waiting does not help
	}
	v.Log.Info("waiting for the TPM", "address", v.Config.TPM.Address, "most", wait, "why", err)
	done := v.progress("waiting for the TPM at " + v.Config.TPM.Address)
	defer done()
	start := time.Now()
	for pause := lookFirst; ; pause = min(2*pause, lookMost) {
		if left := wait - time.Since(start); left <= 0 || !sleep(ctx, min(pause, left)) {
			return // the report says what is missing
		}
		if err = v.probe(); !tpm.ComesLate(err) {
			v.Log.Info("the TPM answers", "after", time.Since(start).Round(time.Millisecond))
			return
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
			if err := v.probe(); err == nil || tpm.StateOf(err) != last {
				close(came)
				return
			}
		}
	}()
	return came
}
