package tpm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// errPCRsChanged: a PCR was extended between two parts of a reading.
var errPCRsChanged = errors.New("the PCRs keep changing")

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
			return nil, fmt.Errorf("tpm: read PCRs: %w", err)
		}
		given, digests := selected(bank, rsp.PCRSelectionOut), rsp.PCRValues.Digests
		switch {
		case len(given) != len(digests):
			return nil, fmt.Errorf("tpm: read PCRs: %d values of %d PCRs", len(digests), len(given))
		case len(given) == 0 && len(values) == 0:
			return nil, nil
		case len(given) == 0:
			return nil, fmt.Errorf("tpm: read PCRs: %d instead of %d", len(values), len(pcrs))
		case len(values) > 0 && rsp.PCRUpdateCounter != counter:
			return nil, fmt.Errorf("tpm: read PCRs: %w", errPCRsChanged)
		}
		counter = rsp.PCRUpdateCounter
		for i, pcr := range given {
			if !slices.Contains(asked, pcr) {
				return nil, fmt.Errorf("tpm: read PCRs: %d, which was not asked for", pcr)
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
