package tpm

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// leftovers are the keys that may still be in a TPM, by its address, since the
// connection broke before they were flushed. A resource manager clears up after
// a connection; a TPM without one keeps them until its next reset, and has
// three slots.
var leftovers = struct {
	sync.Mutex
	areas map[string][]leftover
}{areas: make(map[string][]leftover)}

// leftover is a key that may be in a TPM.
type leftover struct {
	area    *tpm2.TPMTPublic
	is      func(found, area *tpm2.TPMTPublic) bool // sameTemplate or sameKey
	assumed bool                                    // no connection of this process broke
}

// leave notes a key, by its public area or by its template, if the connection
// broke.
func (t *TPM) leave(area *tpm2.TPMTPublic) {
	broken := t.link.Broken()
	leftovers.Lock()
	defer leftovers.Unlock()
	known := func(other leftover) bool { return other.is(area, other.area) }
	areas := leftovers.areas[t.address]
	switch i := slices.IndexFunc(areas, known); {
	case !broken:
	case i < 0:
		leftovers.areas[t.address] = append(areas, leftover{area, sameTemplate, false})
	default:
		areas[i].assumed = false
	}
}

// flushLeftovers takes out what earlier connections left. Through a resource
// manager, no other connection's keys are seen; without one, no other program
// may use the TPM, so a transient key that looks like one of ours is ours.
func (t *TPM) flushLeftovers() {
	leftovers.Lock()
	areas := leftovers.areas[t.address]
	leftovers.Unlock()
	if len(areas) == 0 || t.is12.Load() {
		return
	}
	var handles []tpm2.TPMHandle
	if slices.ContainsFunc(areas, func(left leftover) bool { return !left.assumed }) || !t.hasAllSlots() {
		var err error
		if handles, err = t.handles(firstTransient, lastTransient); err != nil {
			return // the TPM does not answer yet: at a later Open
		}
	}
	for _, h := range handles {
		_, area, err := t.readPublic(h)
		if err != nil || !slices.ContainsFunc(areas, func(left leftover) bool { return left.is(area, left.area) }) {
			continue
		}
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(t); err != nil {
			return
		}
	}
	leftovers.Lock()
	defer leftovers.Unlock()
	delete(leftovers.areas, t.address)
}

// hasAllSlots reports whether the TPM says, in properties that are read in any
// case, that it has room for as many keys as it has with none loaded.
func (t *TPM) hasAllSlots() bool {
	p, err := t.described()
	if _, both := p[tpm2.TPMPTHRTransientAvail]; err == nil && !both { // most TPMs answer by one group at a time
		var changing map[tpm2.TPMPT]uint32
		changing, err = t.properties(tpm2.TPMPTPermanent, lastProperty)
		maps.Copy(p, changing)
		t.read.properties.Store(&p)
	}
	least, has := p[tpm2.TPMPTHRTransientMin]
	free, has2 := p[tpm2.TPMPTHRTransientAvail]
	return err == nil && has && has2 && free >= least
}

// AssumeLeftovers says that an earlier process of this program may have been
// killed while it used the TPM at address, and that no other process of it is
// there now: the next [Open] takes out the transient keys that look like ours,
// which would fill a TPM without a resource manager.
func AssumeLeftovers(address string) {
	areas := []*tpm2.TPMTPublic{
		&storageRootKey.area, &rsaStorageRootKey.area, &attestationKey.area, &rsaAttestationKey.area,
		&storageParent.area, &rsaStorageParent.area, &endorsementStorage.area, &rsaEndorsementStorage.area,
	}
	for i := range endorsementKeys {
		areas = append(areas, &endorsementKeys[i].area)
	}
	for _, template := range keyTemplates {
		areas = append(areas, &template)
	}
	assume(address, sameTemplate, areas)
}

// AssumeOwnLeftovers is [AssumeLeftovers] for a process that does not have the
// TPM to itself: only what no other program makes is taken out, the attestation
// key and the device's own key; own may be nil. A TPM that has no resource manager
// serves one program at a time, so neither is in use.
func AssumeOwnLeftovers(address string, own *Signer) {
	assume(address, sameTemplate, []*tpm2.TPMTPublic{&attestationKey.area, &rsaAttestationKey.area})
	if own == nil {
		return
	}
	if b, isBlob := own.key.(*KeyBlob); isBlob {
		assume(address, sameKey, []*tpm2.TPMTPublic{b.area})
	}
}

// isManaged reports whether a device is that of the kernel's resource manager, which
// takes out what a program leaves, and shows a program only its own keys.
func isManaged(address string) bool { return strings.HasPrefix(address, "/dev/tpmrm") }

func assume(address string, is func(found, area *tpm2.TPMTPublic) bool, areas []*tpm2.TPMTPublic) {
	if isManaged(address) {
		return
	}
	leftovers.Lock()
	defer leftovers.Unlock()
	for _, area := range areas {
		leftovers.areas[address] = append(leftovers.areas[address], leftover{area, is, true})
	}
}
