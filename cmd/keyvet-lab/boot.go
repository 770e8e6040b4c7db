package main

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// bootLog is that of a real machine (boot/README.md).
//
//go:embed boot/rhel8-uefi.bin
var bootLog []byte

// boot measures into the device's TPM what was measured on that machine, and writes
// its log and a script that hands it to keyvet run as systemd would.
func (d *labDevice) boot() error {
	if err := measure(d.tpm.Address(), bootLog); err != nil {
		return err
	}
	log := filepath.Join(d.dir, "bootlog")
	if err := os.WriteFile(log, bootLog, 0o600); err != nil {
		return err
	}
	script := fmt.Sprintf(`#!/bin/sh
# keyvet run, with the log of the boot that its TPM measured, as OpenFile= of
# systemd hands it over (sd_listen_fds(3)).
LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=bootlog exec "${KEYVET:-keyvet}" run -config '%s' "$@" 3<'%s'
`, d.config, log)
	return os.WriteFile(d.runScript(), []byte(script), 0o700)
}

func (d *labDevice) runScript() string { return filepath.Join(d.dir, "keyvet-run") }

// measure extends the PCRs of the bank SHA-256 of the TPM at an address by the
// events of a log.
func measure(address string, log []byte) error {
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		return err
	}
	answer, hangUp, err := tpmtest.Dial(address)
	if err != nil {
		return err
	}
	defer hangUp()
	for _, e := range parsed.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue
		}
		command := []byte{0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82} // TPM2_PCR_Extend (Part 3, section 22.2)
		command = binary.BigEndian.AppendUint32(command, uint32(e.Index))
		command = append(command, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0) // the empty password
		command = append(command, 0, 0, 0, 1, 0, 0x0b)                      // one digest, of SHA-256
		response, err := answer(append(command, e.Digest...))
		if err != nil {
			return err
		}
		if code := binary.BigEndian.Uint32(response[6:]); code != 0 {
			return fmt.Errorf("the TPM does not extend PCR %d: %#x", e.Index, code)
		}
	}
	return nil
}
