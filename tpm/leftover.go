package tpm

import (
	"slices"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// leftovers are the keys that may still be in a TPM, by its address, since the
// connection broke before they were flushed. A resource manager clears up after
// a connection; a TPM without one keeps them until its next reset, and has
// three slots.
var leftovers = struct {
	sync.Mutex
	areas map[string][]*tpm2.TPMTPublic
}{areas: make(map[string][]*tpm2.TPMTPublic)}

// leave notes a key, by its public area or by its template, if the connection
// broke.
func (t *TPM) leave(area *tpm2.TPMTPublic) {
	broken := t.link.Broken()
	leftovers.Lock()
	defer leftovers.Unlock()
	known := func(other *tpm2.TPMTPublic) bool { return sameTemplate(other, area) }
	if broken && !slices.ContainsFunc(leftovers.areas[t.address], known) {
		leftovers.areas[t.address] = append(leftovers.areas[t.address], area)
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
	handles, err := t.handles(firstTransient, lastTransient)
	if err != nil {
		return // the TPM does not answer yet: at a later Open
	}
	for _, h := range handles {
		_, area, err := t.readPublic(h)
		if err != nil || !slices.ContainsFunc(areas, func(left *tpm2.TPMTPublic) bool { return sameTemplate(area, left) }) {
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
	leftovers.Lock()
	defer leftovers.Unlock()
	leftovers.areas[address] = areas
}
