package tpm

import (
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// excusable is a gap that is minor once an endorsement key was read.
type excusable struct {
	gap int    // its index
	id  string // of that key; "" for any
}

// guarded reports whether a key was refused for the password of its hierarchy,
// which has one by what the TPM states: one refusal alone is easily put in the
// way of a key.
func (inv *inventory) guarded(hierarchy tpm2.TPMHandle, err error) bool {
	return errors.Is(err, errHierarchyPassword) && inv.state.auth[hierarchy]
}

// excuse makes minor what need not have been read where an endorsement key was.
func (inv *inventory) excuse() {
	for _, e := range inv.excusable {
		read := func(k device.Key) bool { return k.Role == device.RoleEK && (e.id == "" || e.id == k.ID) }
		if slices.ContainsFunc(inv.keys, read) {
			inv.gaps[e.gap].Minor = true
		}
	}
}

// hasIndex reports whether there is something at an NV index.
func (inv *inventory) hasIndex(index uint32) bool {
	return inv.nv != nil && slices.Contains(*inv.nv, tpm2.TPMHandle(index))
}

// open is how many gaps from one on are not minor and will not be.
func (inv *inventory) open(from int) (n int) {
	for i, g := range inv.gaps[from:] {
		excusable := slices.ContainsFunc(inv.excusable, func(e excusable) bool { return e.gap == from+i })
		if !g.Minor && !excusable {
			n++
		}
	}
	return n
}

// isGuarded reports whether an NV index is not for everybody to read: it takes the
// owner's password, another one or a policy, or is locked (TPM2_NV_ReadLock, Part
// 3, section 31.14).
func (inv *inventory) isGuarded(err error) bool {
	return errors.Is(err, errNotOurs) || errors.Is(err, tpm2.TPMRCNVLocked) || inv.guarded(tpm2.TPMRHOwner, err)
}
