package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// TestRefusedCommands has somebody on the bus state a false firmware version and
// refuse one kind of command, whichever: the verdict is never better than
// undecided.
func TestRefusedCommands(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	empty := filepath.Join(t.TempDir(), "empty.toml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Those of an inventory: CreatePrimary, NV_Read, Load, Quote, FlushContext,
	// NV_ReadPublic, ReadPublic, GetCapability, PCR_Read, ReadClock; and none.
	for _, command := range []uint32{0x131, 0x14e, 0x157, 0x158, 0x165, 0x169, 0x173, 0x17a, 0x17e, 0x181, 0} {
		for _, response := range []uint32{0x2e6, 0x1df, 0x18b, 0x143, 0x9a2} {
			words := []string{strconv.Itoa(int(command)), strconv.Itoa(int(response))}
			p, err := interpose(emulator.Address(), words)
			if err != nil {
				t.Fatal(err)
			}
			status, r := checkJSON(t, "", "-config", empty, "-tpm", p.Address())
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if v := r.Verdict(); status != cli.Undecided && status != cli.Fail || v != device.Undecided && v != device.Fail {
				t.Errorf("command %#x refused by %#x: exit status %d, verdict %v", command, response, status, v)
			}
		}
	}
}
