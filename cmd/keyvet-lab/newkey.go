package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// stopTime is what a service has to end by itself.
const stopTime = 10 * time.Second

// rotation is a job that has a device make a new key.
type rotation struct {
	fault  localiot.Faults
	reason device.ReasonCode // why the rotation has to fail; "" means that it succeeds
}

func (r rotation) play(ctx context.Context, s *stage, thing string) error {
	d, err := s.device(ctx, thing, false)
	if err != nil {
		return err
	}
	defer d.tpm.Stop()
	s.cloud.SetFaults(r.fault)
	defer s.cloud.SetFaults(localiot.Faults{})
	before, err := d.key()
	if err != nil {
		return err
	}
	job := "rotate-" + thing
	err = s.cloud.CreateJob(localiot.Job{ID: job, Things: []string{thing}, Document: json.RawMessage(`{"operation":"keyvet.rotate","version":"1.0"}`)})
	if err != nil {
		return err
	}
	return s.serve(ctx, d, func(ctx context.Context) error {
		e, err := s.cloud.WaitExecution(ctx, job, thing, localiot.Execution.Ended)
		if err != nil {
			return err
		}
		if err := s.cloud.WaitShadow(ctx, thing, "keyvet", gateIsOpen); err != nil {
			return fmt.Errorf("job %s %v: %w", e.Status, e.StatusDetails, err)
		}
		report, err := s.delivered(d.thing)
		if err != nil {
			return err
		}
		s.show(d, report)
		s.say("job keyvet.rotate %s", e.Status)
		if r.reason != "" {
			return r.rolledBack(s, d, e, before)
		}
		return rotated(s, d, e, before)
	})
}

func gateIsOpen(shadow []byte) bool {
	var state struct {
		Reported struct {
			Gate string `json:"gate"`
		} `json:"reported"`
	}
	return json.Unmarshal(shadow, &state) == nil && state.Reported.Gate == "open"
}

// rotated does the fleet's part, too: the device cannot deactivate a certificate.
func rotated(s *stage, d *labDevice, e localiot.Execution, before []byte) error {
	if e.Status != localiot.Succeeded || !d.trusted() {
		return fmt.Errorf("job %s %v, trusted %v", e.Status, e.StatusDetails, d.trusted())
	}
	if err := s.newKey(d); err != nil {
		return err
	}
	after, err := d.key()
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return errors.New("the key is as before")
	}
	if err := s.cloud.Deactivate(e.StatusDetails["oldCertificateId"]); err != nil {
		return err
	}
	if active := s.active(d.thing); !slices.Contains(active, e.StatusDetails["newCertificateId"]) {
		return fmt.Errorf("active certificates %v, %v", active, e.StatusDetails)
	}
	s.say("the fleet deactivates the certificate on the old key")
	return nil
}

func (r rotation) rolledBack(s *stage, d *labDevice, e localiot.Execution, before []byte) error {
	after, err := d.key()
	if err != nil {
		return err
	}
	if e.Status != localiot.Failed || e.StatusDetails["reasonCode"] != r.reason || !bytes.Equal(before, after) || !d.trusted() {
		return fmt.Errorf("job %s %v, the same key %v, trusted %v", e.Status, e.StatusDetails, bytes.Equal(before, after), d.trusted())
	}
	s.say("%s", e.StatusDetails["message"])
	s.say("%s", r.reason)
	s.say("rolled back: the new key is removed, the old one and its certificate stay in use")
	if active := s.active(d.thing); !slices.Equal(active, []string{e.StatusDetails["oldCertificateId"]}) {
		return fmt.Errorf("active certificates %v", active)
	}
	left, err := os.ReadDir(filepath.Join(d.dir, "state", "credentials"))
	if len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	return err
}

// provision is the first contact of a device that has a claim.
func provision(ctx context.Context, s *stage, thing string) error {
	d, err := s.device(ctx, thing, true)
	if err != nil {
		return err
	}
	defer d.tpm.Stop()
	if slices.Contains(s.cloud.Things(), thing) {
		return errors.New("the thing is there already")
	}
	_, exit, err := s.runOnce(ctx, d)
	if err != nil {
		return err
	}
	if err := s.newKey(d); err != nil {
		return err
	}
	if active := s.active(thing); exit != 0 || !d.trusted() || len(active) != 1 {
		return fmt.Errorf("exit %d, trusted %v, active certificates %v", exit, d.trusted(), active)
	}
	s.say("registered: thing %s, one active certificate", thing)
	return nil
}

// newKey shows the device's new key, which must be one of the TPM's that passes.
func (s *stage) newKey(d *labDevice) error {
	report, err := s.delivered(d.thing)
	if err != nil {
		return err
	}
	file, err := d.key()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(report.Keys, func(k device.KeyReport) bool { return k.Role == device.RoleDevice })
	if i < 0 || report.Keys[i].Algorithm != "ECDSA-P256" || !report.Verdict().Opens() || !bytes.Contains(file, []byte("TSS2 PRIVATE KEY")) {
		return fmt.Errorf("no P-256 key of the TPM's that passes: %s, %s", report.Verdict(), describe(report))
	}
	s.say("new key: %s, made in the TPM, which alone can use it", report.Keys[i].Algorithm)
	return nil
}

// active are the ids of the thing's active certificates.
func (s *stage) active(thing string) []string {
	var ids []string
	for _, c := range s.cloud.Certificates(thing) {
		if c.Status == localiot.Active {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// serve runs the agent as a service for as long as do lasts.
func (s *stage) serve(ctx context.Context, d *labDevice, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, s.program, "run", "-config", d.config)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTime
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cancel(fmt.Errorf("keyvet run ended: %w", cmp.Or(cmd.Wait(), errors.New("exit 0"))))
	}()
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	cancel(nil)
	<-ended
	if err != nil {
		return fmt.Errorf("%w\n%s", err, indent(said.String()))
	}
	return nil
}
