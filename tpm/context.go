package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// contexts are the keys of files that this process has had in a TPM, as that TPM
// gave them out again (TPM2_ContextSave, Part 3, section 28.2): it takes them back
// until its next reset or TPM2_Clear, without a parent, whose creation takes a
// chip a quarter of a second each time.
var contexts = struct {
	sync.Mutex
	saved  map[contextID]savedKey
	loaded map[contextID]bool // before, by this process
}{saved: make(map[contextID]savedKey), loaded: make(map[contextID]bool)}

// saving is when a key is saved that is loaded: at once if it is soon to be used
// again, or else once that has come to pass. Nothing waits for the attestation key
// on the day after a boot, and in the boot itself each command counts.
type saving bool

const (
	saveAtOnce saving = true
	saveAgain  saving = false
)

// maxContexts is more than a device uses: its key, the one that is to take its
// place, and its attestation key.
const maxContexts = 8

// contextID is a key by all that its file says: another private area, of what is
// said to be the same key, has to be loaded to show that it is.
type contextID struct {
	address string
	file    [sha256.Size]byte
}

type savedKey struct {
	context      tpm2.TPMSContext
	name, parent tpm2.TPM2BName
}

func (t *TPM) contextOf(file *loadable) contextID {
	return contextID{t.address, sha256.Sum256(file.marshal())}
}

// save keeps a key that was loaded. A TPM that does not give it out keeps nothing.
func (t *TPM) save(id contextID, key tpm2.NamedHandle, parent tpm2.TPM2BName, when saving) {
	contexts.Lock()
	again := contexts.loaded[id]
	if len(contexts.loaded) >= maxContexts {
		clear(contexts.loaded)
	}
	contexts.loaded[id] = true
	contexts.Unlock()
	if when == saveAgain && !again {
		return
	}
	rsp, err := tpm2.ContextSave{SaveHandle: key.Handle}.Execute(t)
	if err != nil {
		return
	}
	contexts.Lock()
	defer contexts.Unlock()
	if len(contexts.saved) >= maxContexts {
		clear(contexts.saved)
	}
	contexts.saved[id] = savedKey{rsp.Context, tpm2.TPM2BName{Buffer: bytes.Clone(key.Name.Buffer)}, parent}
}

// restore puts a key back that was saved. It reports whether the key is there; if
// not, it has to be loaded, and is saved no more. The error is one of the
// connection.
func (c *creator) restore(id contextID) (key tpm2.NamedHandle, parent tpm2.TPM2BName, there bool, err error) {
	contexts.Lock()
	saved, there := contexts.saved[id]
	contexts.Unlock()
	if !there {
		return key, parent, false, nil
	}
	rsp, err := tpm2.ContextLoad{Context: saved.context}.Execute(c)
	if err == nil {
		return tpm2.NamedHandle{Handle: rsp.LoadedHandle, Name: saved.name}, saved.parent, true, nil
	}
	contexts.Lock()
	delete(contexts.saved, id)
	contexts.Unlock()
	if code := tpm2.TPMRC(0); c.handle == 0 && errors.As(err, &code) {
		err = nil
	}
	return key, parent, false, err
}
