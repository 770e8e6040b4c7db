package tpm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// errPCRsChanged: a PCR was extended between two parts of a reading.
var errPCRsChanged = errors.New("the PCRs keep changing")

// banks are the PCR banks that can be quoted (Part 2, section 6.3).
var banks = map[string]tpm2.TPMAlgID{"sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384, "sha512": tpm2.TPMAlgSHA512}

// pcrsOf returns PCRs as [AttestRequest] has them, in ascending order.
func pcrsOf(name string, asked []uint) (bank tpm2.TPMAlgID, pcrs []uint, err error) {
	bank, known := banks[cmp.Or(name, "sha256")]
	if !known {
		return 0, nil, fmt.Errorf("unknown bank %q", name)
	}
	if asked == nil {
		asked = []uint{0, 1, 2, 3, 4, 5, 6, 7}
	}
	for i := range uint(24) {
		if slices.Contains(asked, i) {
			pcrs = append(pcrs, i)
		}
	}
	return bank, pcrs, nil
}

// pcrValues are what was read of PCRs, for the quote to come.
type pcrValues struct {
	bank   tpm2.TPMAlgID
	pcrs   []uint
	values []byte
}

// HasPCRs reports whether the TPM has the bank of such PCRs, bank and pcrs being
// those of [AttestRequest]. What it reads of them is what [TPM.Attest] has signed,
// unless they change before.
func (t *TPM) HasPCRs(bank string, pcrs []uint) (bool, error) {
	alg, pcrs, err := pcrsOf(bank, pcrs)
	if err != nil {
		return false, fmt.Errorf("read PCRs: %w", err)
	}
	values, err := t.readPCRs(alg, pcrs)
	if err != nil {
		return false, explain(err)
	}
	t.read.pcrs.Store(&pcrValues{alg, pcrs, values})
	return len(values) > 0, nil
}

// takePCRs returns what was read of the PCRs before, once, else reads them.
func (t *TPM) takePCRs(bank tpm2.TPMAlgID, pcrs []uint) ([]byte, error) {
	if v := t.read.pcrs.Swap(nil); v != nil && v.bank == bank && slices.Equal(v.pcrs, pcrs) {
		return v.values, nil
	}
	return t.readPCRs(bank, pcrs)
}

// readPCRs reads PCRs of a bank, in ascending order and end to end
// (TPM2_PCR_Read, Part 3, section 22.4): none if the TPM has no such bank. The
// TPM gives as many at a time as it likes; all are of one moment, by its
// counter of updates, or else they are read again.
func (t *TPM) readPCRs(bank tpm2.TPMAlgID, pcrs []uint) ([]byte, error) {
	const attempts = 3
	var err error
	for range attempts {
		var values []byte
		if values, err = t.readPCRsOnce(bank, pcrs); !errors.Is(err, errPCRsChanged) {
			return values, err
		}
	}
	return nil, err
}

func (t *TPM) readPCRsOnce(bank tpm2.TPMAlgID, pcrs []uint) ([]byte, error) {
	const most = 8 // digests of one answer (Part 2, TPML_DIGEST)
	values := make(map[uint][]byte)
	var counter uint32
	for left := pcrs; len(left) > 0; { // each answer leaves fewer
		asked := left[:min(most, len(left))]
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, asked)}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("read PCRs: %w", err)
		}
		given, digests := selected(bank, rsp.PCRSelectionOut), rsp.PCRValues.Digests
		switch {
		case len(given) != len(digests):
			return nil, fmt.Errorf("read PCRs: %d values of %d PCRs", len(digests), len(given))
		case len(given) == 0 && len(values) == 0:
			return nil, nil
		case len(given) == 0:
			return nil, fmt.Errorf("read PCRs: %d instead of %d", len(values), len(pcrs))
		case len(values) > 0 && rsp.PCRUpdateCounter != counter:
			return nil, fmt.Errorf("read PCRs: %w", errPCRsChanged)
		}
		counter = rsp.PCRUpdateCounter
		for i, pcr := range given {
			if !slices.Contains(asked, pcr) {
				return nil, fmt.Errorf("read PCRs: %d, which was not asked for", pcr)
			}
			values[pcr] = digests[i].Buffer
		}
		left = slices.DeleteFunc(slices.Clone(left), func(pcr uint) bool { return slices.Contains(given, pcr) })
	}
	var all []byte
	for _, pcr := range pcrs {
		all = append(all, values[pcr]...)
	}
	return all, nil
}

// selected returns the PCRs of a bank that a selection has, in ascending order.
func selected(bank tpm2.TPMAlgID, s tpm2.TPMLPCRSelection) (pcrs []uint) {
	for _, sel := range s.PCRSelections {
		for i := range 8 * uint(len(sel.PCRSelect)) {
			if sel.Hash == bank && sel.PCRSelect[i/8]>>(i%8)&1 != 0 {
				pcrs = append(pcrs, i)
			}
		}
	}
	return pcrs
}
