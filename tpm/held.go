package tpm

import (
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// Hold has the keys of files stay in the TPM from their first use on, until the
// connection is closed or their room is needed: a check uses the device's key to
// prove it and to certify it.
func (t *TPM) Hold() {
	t.held.mu.Lock()
	defer t.held.mu.Unlock()
	if t.held.keys == nil {
		t.held.keys = make(map[contextID]*heldKey)
	}
}

// held are the keys that stay in the TPM.
type held struct {
	mu   sync.Mutex
	keys map[contextID]*heldKey // nil: none is to stay
}

type heldKey struct {
	creator *creator
	key     tpm2.NamedHandle
	parent  tpm2.TPM2BName
	users   int
}

// keep reports whether a key stays.
func (h *held) keep(id contextID, k *heldKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil || h.keys[id] != nil {
		return false
	}
	h.keys[id] = k
	return true
}

// take returns a key that stayed, which is then in use until it is given back; nil
// if there is none.
func (h *held) take(id contextID) *heldKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keys[id]
	if k != nil {
		k.users++
	}
	return k
}

func (h *held) giveBack(k *heldKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k.users--
}

// release takes out the keys that are not in use, and reports whether there were any.
func (h *held) release() bool {
	h.mu.Lock()
	var idle []*heldKey
	for id, k := range h.keys {
		if k.users == 0 {
			delete(h.keys, id)
			idle = append(idle, k)
		}
	}
	h.mu.Unlock()
	for _, k := range idle {
		k.creator.flush() // what stays is noted as a leftover
	}
	return len(idle) > 0
}
