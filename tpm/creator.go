package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// withPrimary makes a primary key for as long as use runs. Whatever happens,
// it is flushed afterwards, unless the connection broke.
func (t *TPM) withPrimary(p primary, use func(tpm2.NamedHandle, tpm2.TPM2BPublic) error) (err error) {
	if t.is12.Load() {
		return fmt.Errorf("create primary key %s: %w", p.name, errTPM12)
	}
	creator := &creator{t: t, link: t.forCreation(&p.area), area: &p.area}
	defer func() {
		if flushErr := creator.flush(); err == nil && flushErr != nil {
			err = fmt.Errorf("%s: %w", p.id, flushErr)
		}
	}()
	hierarchy, err := t.hierarchy(p.hierarchy)
	if err != nil {
		return fmt.Errorf("create primary key %s: %w", p.name, err)
	}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(p.area)}.Execute(creator)
	if err != nil {
		return fmt.Errorf("create primary key %s: %w", p.name, explainCreation(t.ofHierarchy(p.hierarchy, err)))
	}
	if _, err := named(rsp.OutPublic, rsp.Name); err != nil {
		return fmt.Errorf("create primary key %s: %w", p.name, err)
	}
	return use(tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, rsp.OutPublic)
}

// creator is the transport of a command that loads an object. It takes the
// object's handle from the response itself, so that it can be flushed even if
// the rest of the response makes no sense. Other commands, those of a session,
// go through it as well.
type creator struct {
	t      *TPM
	link   transport.TPM
	area   *tpm2.TPMTPublic // of the object, or its template
	handle tpm2.TPMHandle   // 0 if nothing was loaded
}

func (c *creator) Send(command []byte) ([]byte, error) {
	response, err := c.link.Send(command)
	if !loads(command) {
		return response, err
	}
	if err == nil && isFull(response) && c.t.held.release() {
		response, err = c.link.Send(command)
	}
	if err != nil {
		c.t.leave(c.area) // whether the TPM carried it out is not known
	}
	const header = 10
	if err == nil && len(response) >= header+4 && binary.BigEndian.Uint32(response[6:]) == 0 {
		c.handle = tpm2.TPMHandle(binary.BigEndian.Uint32(response[header:]))
	}
	return response, err
}

// loads reports whether a command puts an object into the TPM (Part 2, section 6.5.2).
func loads(command []byte) bool {
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCContextLoad:
		return true
	}
	return false
}

// isFull reports whether the TPM has no room for one more object.
func isFull(response []byte) bool {
	code := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
	return code == tpm2.TPMRCObjectMemory || code == tpm2.TPMRCObjectHandles
}

// flush takes out what was loaded.
func (c *creator) flush() error {
	if c.handle == 0 {
		return nil
	}
	if _, err := (tpm2.FlushContext{FlushHandle: c.handle}).Execute(c.t); err != nil {
		c.t.leave(c.area)
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}
