package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// lasting is what outlives a process, and a reset, in a TPM: persistent keys,
// NV indices, and the state of its lockout and its hierarchies.
func lasting(t *testing.T, c *tpm.TPM) string {
	t.Helper()
	var all bytes.Buffer
	for _, ask := range []tpm2.GetCapability{
		{Capability: tpm2.TPMCapHandles, Property: 0x81 << 24, PropertyCount: 100},
		{Capability: tpm2.TPMCapHandles, Property: 0x01 << 24, PropertyCount: 100},
		{Capability: tpm2.TPMCapTPMProperties, Property: 0x200, PropertyCount: 1}, // TPM_PT_PERMANENT
		{Capability: tpm2.TPMCapTPMProperties, Property: 0x20e, PropertyCount: 1}, // TPM_PT_LOCKOUT_COUNTER
		{Capability: tpm2.TPMCapTPMProperties, Property: 0x20b, PropertyCount: 2}, // TPM_PT_NV_COUNTERS and what is left of them
		{Capability: tpm2.TPMCapTPMProperties, Property: 0x208, PropertyCount: 1}, // TPM_PT_HR_PERSISTENT
	} {
		rsp, err := ask.Execute(c)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%v: %x\n", ask.Property, tpm2.Marshal(rsp.CapabilityData))
	}
	return all.String()
}

// flushTransient does what a resource manager does when a program ends.
func flushTransient(t *testing.T, c *tpm.TPM) (flushed int) {
	t.Helper()
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x80 << 24, PropertyCount: 100}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list.Handle {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(c); err != nil {
			t.Fatal(err)
		}
	}
	return len(list.Handle)
}

// A check that is killed at any of its commands to the TPM leaves nothing in it
// that lasts.
func TestKilledAtEachCommand(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	var left, sent atomic.Int32
	var kill atomic.Pointer[func()]
	proxy := tpmtest.RunInterposer(t, emulator.Address(), func([]byte) []byte {
		sent.Add(1)
		if left.Add(-1) == 0 {
			(*kill.Load())()
		}
		return nil // the TPM carries it out all the same
	}, func(_, response []byte) []byte { return response })
	look := func(see func(*tpm.TPM)) {
		c, err := tpm.Open(emulator.Address(), tpm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		see(c)
	}
	var before string
	look(func(c *tpm.TPM) { before = lasting(t, c) })
	dir := t.TempDir()
	check := func(at int32) {
		config := filepath.Join(dir, fmt.Sprintf("%d.toml", at))
		state := filepath.Join(dir, fmt.Sprint(at))
		text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\nthing.name = \"gw\"\ntpm.address = %q\nmqtt.endpoints = [\"127.0.0.1:1\"]\n", state, state, proxy.Address())
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"keyvet", "check", "-config", config}
		stop := func() { cmd.Process.Kill() }
		kill.Store(&stop)
		left.Store(at)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
	}
	check(-1)
	commands := sent.Load()
	if commands < 10 {
		t.Fatalf("a check takes %d commands", commands)
	}
	flushed := 0
	for at := range commands {
		check(at + 1)
		look(func(c *tpm.TPM) {
			flushed += flushTransient(t, c)
			if after := lasting(t, c); after != before {
				t.Errorf("killed at command %d of %d:\n%s\nbefore:\n%s", at+1, commands, after, before)
			}
		})
	}
	if flushed == 0 {
		t.Error("no check was killed while it had a key in the TPM")
	}
}
