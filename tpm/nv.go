package tpm

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/ekcert"
)

// nvIndex is what an NV index is, and the SHA-256 of what it holds.
type nvIndex struct {
	public  tpm2.TPMSNVPublic
	name    tpm2.TPM2BName
	content []byte
}

// readNV reads a whole NV index. Where what is kept of it does not give what it
// held before, the TPM says what it is now.
func (inv *inventory) readNV(index tpm2.TPMHandle) ([]byte, error) {
	if content, err := inv.readKept(index); err == nil {
		return content, nil
	}
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(inv.t)
	if err != nil {
		return nil, fmt.Errorf("read the public area of an NV index: %w", explain(err))
	}
	public, err := rsp.NVPublic.Contents()
	if err == nil && public.NVIndex != index {
		err = fmt.Errorf("it is that of %#08x", uint32(public.NVIndex))
	}
	if err != nil {
		return nil, fmt.Errorf("read the public area of an NV index: %w", err)
	}
	now := &nvIndex{public: *public, name: rsp.NVName}
	content, err := inv.t.readIndex(now)
	if err == nil {
		digest := sha256.Sum256(content)
		now.content, inv.made = digest[:], true
		inv.keepIndex(now)
	}
	return content, err
}

func (inv *inventory) keepIndex(i *nvIndex) {
	inv.toKeep.Indices = append(inv.toKeep.Indices, keptIndex{tpm2.Marshal(i.public), bytes.Clone(i.name.Buffer), i.content})
}

// readIndex reads a whole NV index by its public area. Where the index has a
// password, a wrong guess could count towards the lockout of the TPM, so the index
// is read by its own, empty authorization only if it is exempt from that, else by
// the owner's, which always is.
func (t *TPM) readIndex(i *nvIndex) ([]byte, error) {
	public, a := &i.public, i.public.Attributes
	nv := tpm2.NamedHandle{Handle: public.NVIndex, Name: i.name}
	auth, err := t.hierarchy(tpm2.TPMRHOwner)
	switch {
	case !a.Written:
		return nil, fmt.Errorf("NV index was never written: %w", ekcert.ErrNotCertificate)
	case a.AuthRead && a.NoDA:
		auth = emptyAuth(nv)
	case !a.OwnerRead:
		return nil, errNotOurs
	case err != nil:
		return nil, fmt.Errorf("read NV index: %w", err)
	}
	if public.DataSize > ekcert.MaxBytes {
		return nil, fmt.Errorf("NV index of %d bytes: %w", public.DataSize, ekcert.ErrNotCertificate)
	}
	chunk, err := t.nvBuffer()
	if err != nil {
		return nil, err
	}
	content := make([]byte, 0, public.DataSize)
	for offset := uint16(0); offset < public.DataSize; {
		size := min(chunk, public.DataSize-offset)
		rsp, err := tpm2.NVRead{AuthHandle: auth, NVIndex: nv, Size: size, Offset: offset}.Execute(t)
		if err != nil {
			if auth.Handle == tpm2.TPMRHOwner {
				err = t.ofHierarchy(auth.Handle, err)
			}
			return nil, fmt.Errorf("read NV index: %w", explain(err))
		}
		if len(rsp.Data.Buffer) != int(size) {
			return nil, fmt.Errorf("read NV index: %d bytes instead of %d", len(rsp.Data.Buffer), size)
		}
		content = append(content, rsp.Data.Buffer...)
		offset += size
	}
	return content, nil
}

// errNotOurs: an NV index is not for keyvet to read.
var errNotOurs = errors.New("NV index can be read neither without a password nor by the owner")

// nvBuffer is how much of an NV index one command reads. The TPM is asked once,
// by Info or here.
func (t *TPM) nvBuffer() (uint16, error) {
	if t.nvBufferMax.Load() == 0 {
		properties, err := t.properties(tpm2.TPMPTFamilyIndicator, tpm2.TPMPTPermanent-1)
		if err != nil {
			return 0, err
		}
		t.nvBufferMax.Store(cmp.Or(properties[tpm2.TPMPTNVBufferMax], 512))
	}
	return uint16(min(t.nvBufferMax.Load(), 1024)), nil
}
