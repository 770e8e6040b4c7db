package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/attempts"
	"github.com/keyvet/keyvet/tpm/tpm12"
)

// state is what of the TPM's state keeps keys from being read or used (TPM_PT
// of group PT_VAR: TPMA_PERMANENT and TPMA_STARTUP_CLEAR, Part 2, sections 6.13,
// 8.6 and 8.7).
type state struct {
	lockout            attempts.Lockout
	auth               map[tpm2.TPMHandle]bool // the hierarchies that have a password
	noClear            bool                    // TPM2_Clear is disabled
	recovery           uint32                  // seconds until one more failure is forgiven; 0: never
	owner, endorsement bool                    // the hierarchy is enabled
	platform           bool                    // so is the firmware's own
	platformNV         bool                    // so are the NV indices that the platform defined
}

func (t *TPM) readState() (state, error) {
	p, err := t.properties(tpm2.TPMPTPermanent, lastProperty)
	if err != nil {
		return state{}, err
	}
	return stateIn(p)
}

// stateIn is the state in properties.
func stateIn(p map[tpm2.TPMPT]uint32) (state, error) {
	permanent, has := p[tpm2.TPMPTPermanent]
	startup, has2 := p[tpm2.TPMPTStartupClear]
	failures, has3 := p[tpm2.TPMPTLockoutCounter]
	limit, has4 := p[tpm2.TPMPTMaxAuthFail]
	if !has || !has2 || !has3 || !has4 {
		return state{}, errors.New("the TPM does not state its state")
	}
	return state{
		lockout: attempts.Lockout{Failures: failures, Limit: limit, Locked: permanent&(1<<9) != 0},
		auth: map[tpm2.TPMHandle]bool{
			tpm2.TPMRHOwner: permanent&1 != 0, tpm2.TPMRHEndorsement: permanent&(1<<1) != 0, tpm2.TPMRHLockout: permanent&(1<<2) != 0,
		},
		noClear: permanent&(1<<8) != 0, recovery: p[tpm2.TPMPTLockoutInterval],
		platform: startup&1 != 0, owner: startup&(1<<1) != 0, endorsement: startup&(1<<2) != 0, platformNV: startup&(1<<3) != 0,
	}, nil
}

// addStates adds as gaps what of the TPM's state keeps things from being read.
// Lockout is a minor one: it keeps keys from being used, not from being read. It
// returns who may clear the TPM, and how close it is to its lockout.
func (inv *inventory) addStates() (device.TPMClearing, *device.TPMLockout) {
	var s state
	p, err := inv.t.described()
	inv.t.read.properties.Store(nil) // they change
	if err == nil {
		s, err = stateIn(p)
	}
	if err != nil { // most TPMs answer by one group at a time
		s, err = inv.t.readState()
	}
	if err != nil {
		inv.gap("tpm: state", err)
		return device.ClearingUnknown, nil
	}
	inv.state = s
	if !s.owner {
		inv.gap("tpm: owner hierarchy", disabled("keys and NV indices"))
	}
	if !s.endorsement {
		inv.gap("tpm: endorsement hierarchy", disabled("keys"))
	}
	if !s.platformNV {
		inv.gap("tpm: NV of the platform", disabled("NV indices, EK certificates among them,"))
	}
	var lockout *device.TPMLockout
	if l := s.lockout; l.Locked || l.Failures > 0 {
		lockout = &device.TPMLockout{Failures: l.Failures, Limit: l.Limit, Locked: l.Locked, Recovery: s.recovery}
	}
	if s.lockout.Locked {
		inv.gaps = append(inv.gaps, device.Gap{What: "tpm: lockout", Why: lockout.String(), Minor: true})
	}
	if s.auth[tpm2.TPMRHLockout] || s.noClear {
		return device.ClearingGuarded, lockout
	}
	return device.ClearingOpen, lockout
}

func disabled(what string) error {
	return fmt.Errorf("disabled: its %s cannot be read until the TPM is reset; find out which program or firmware sends TPM2_HierarchyControl", what)
}

// explainCreation is explain for the commands that make a key by a template,
// inPublic, which is their second parameter (Part 3, sections 12.1 and 24.1).
func explainCreation(err error) error {
	var format1 tpm2.TPMFmt1Error
	if errors.As(err, &format1) {
		if ok, n := format1.Parameter(); ok && n == 2 {
			return fmt.Errorf("%w: %w", errUnsupported, err)
		}
	}
	return explain(err)
}

// StateOf returns the state of a TPM that an error came from, of [Open] or of a
// command. One that says nothing of the kind is that of a TPM which does not
// answer.
func StateOf(err error) device.TPMState {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return device.TPMDenied
	case errors.Is(err, syscall.EBUSY):
		return device.TPMBusy
	case errors.Is(err, tpm2.TPMRCFailure):
		return device.TPMDegraded
	case errors.Is(err, tpm2.TPMRCInitialize), errors.Is(err, tpm12.NotStarted):
		return device.TPMNotStarted
	case errors.Is(err, tpm2.TPMRCLocality):
		return device.TPMWrongLocality
	case errors.Is(err, tpm2.TPMRCUpgrade):
		return device.TPMUpdating
	}
	return device.TPMAbsent
}

// ComesLate reports whether an error of [Open] or of a command is that of a TPM
// which a boot has not brought up yet: its device is not there, or not given to
// its group, another program holds it, nobody has started it, or it is still
// busy with its new firmware. One that does not answer is hung.
func ComesLate(err error) bool {
	switch StateOf(err) {
	case device.TPMDenied, device.TPMBusy, device.TPMNotStarted, device.TPMUpdating:
		return true
	}
	return errors.Is(err, ErrAbsent)
}

// explain says what a refusal means, and what to do next where that helps.
func explain(err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.code) {
			return fmt.Errorf("%s: %w", r.means, err)
		}
	}
	if isTPM12(err) {
		return fmt.Errorf("%w: %w", errTPM12, err)
	}
	return err
}

const busy = "the TPM stayed busy for as long as a command may take: let it finish its self-test, look for another program that uses it, or raise the timeout"

const fullOfKeys = "keys that other programs, or a program that was killed, left there fill the TPM: use the kernel's resource manager, /dev/tpmrm0, " +
	"or have them flushed (`tpm2_flushcontext -t`; `keyvet run` flushes its own when it starts)"

// refusals are the codes that tell of the TPM's state, not of the command
// (Part 2, section 6.6.3).
var refusals = []struct {
	code  tpm2.TPMRC
	means string
}{
	{tpm2.TPMRCHierarchy, "the hierarchy is disabled until the TPM is reset"},
	{tpm2.TPMRCHandle, "the TPM lists it and does not give it, so its hierarchy is disabled until the TPM is reset"},
	{tpm2.TPMRCLockout, "the TPM is in dictionary-attack lockout: wait, or clear it by its lockout password (`tpm2_dictionarylockout -c`)"},
	{tpm2.TPMRCObjectMemory, fullOfKeys},
	{tpm2.TPMRCObjectHandles, fullOfKeys},
	{tpm2.TPMRCSessionMemory, "other programs' sessions fill the TPM; use the kernel's resource manager, /dev/tpmrm0"},
	{tpm2.TPMRCSessionHandles, "other programs' sessions fill the TPM; flush them (`tpm2_flushcontext --saved-session`)"},
	{tpm2.TPMRCMemory, "the TPM is out of memory; use the kernel's resource manager, /dev/tpmrm0"},
	{tpm2.TPMRCYielded, busy}, {tpm2.TPMRCTesting, busy}, {tpm2.TPMRCNVRate, busy}, {tpm2.TPMRCRetry, busy},
	{tpm2.TPMRCInitialize, "the TPM was not started: load the kernel's TPM driver, or have the firmware send TPM2_Startup"},
	{tpm2.TPMRCUpgrade, "the TPM is in the middle of a firmware update: finish it"},
	{tpm2.TPMRCReboot, "the TPM wants a reset: restart the device"},
	{fail12, "the TPM failed, without a reason: restart the device; in a virtual machine, the TPM's emulator has ended"},
	{tpm2.TPMRCFailure, "the TPM went into failure mode: reset the device, and replace the TPM if that does not help"},
}
