package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// Signed is what a TPM signed over a report, for another verifier. Nothing of it is
// verified.
type Signed struct {
	AKPublic  []byte // TPMT_PUBLIC
	Quote     []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
	// Nonce is what the quote has to carry as its extraData, computed from the
	// report and what goes with it, not read from the quote.
	Nonce   [sha256.Size]byte
	PCRs    []PCR
	BootLog []byte // gzip; nil if there is none
}

// SignedOver returns what the evidence of an encoded report holds.
func SignedOver(report []byte) (*Signed, error) {
	if len(report) > device.MaxReportBytes {
		return nil, fmt.Errorf("the report has more than %d bytes", device.MaxReportBytes)
	}
	digest, err := device.Digest(report)
	if err != nil {
		return nil, err
	}
	r := new(device.Report)
	if err := json.Unmarshal(report, r); err != nil {
		return nil, err
	}
	switch {
	case r.Evidence == nil:
		return nil, errors.New("the report carries no evidence: no TPM signed it")
	case !canonical(r.Evidence, report):
		return nil, errors.New("the evidence is not written as keyvet writes it: pass the report on byte for byte")
	}
	d, err := decode(r.Evidence)
	if err != nil {
		return nil, err
	}
	attest, err := parseAttest(d.quote)
	if err != nil {
		return nil, err
	}
	quote, err := attest.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("what was signed is no quote: %w", err)
	}
	s := &Signed{AKPublic: d.akPublic, Quote: d.quote, Signature: d.signature, BootLog: d.bootLog}
	doc := document{digest: digest, decoded: d}
	copy(s.Nonce[:], doc.qualifyingData())
	if s.PCRs, err = namePCRs(quote, d.pcrValues); err != nil {
		return nil, err
	}
	return s, nil
}

// readPCRs gives each PCR of a quote its value, if those hash to what the TPM signed.
func readPCRs(quote *tpm2.TPMSQuoteInfo, values []byte) ([]PCR, error) {
	pcrs, err := namePCRs(quote, values)
	if err != nil || len(pcrs) == 0 { // what a TPM makes of none is its own affair
		return nil, err
	}
	if sum := sha256.Sum256(values); !bytes.Equal(sum[:], quote.PCRDigest.Buffer) {
		return nil, errors.New("the values are not those that the TPM signed")
	}
	return pcrs, nil
}

// namePCRs gives each PCR of a quote its value, whatever the TPM signed.
func namePCRs(quote *tpm2.TPMSQuoteInfo, values []byte) ([]PCR, error) {
	var pcrs []PCR
	left := values
	for _, sel := range quote.PCRSelect.PCRSelections {
		hash, err := sel.Hash.Hash()
		if err != nil {
			return nil, fmt.Errorf("a bank of unknown hash %#04x", uint16(sel.Hash))
		}
		for i := range 8 * len(sel.PCRSelect) {
			if sel.PCRSelect[i/8]>>(i%8)&1 == 0 {
				continue
			}
			if len(left) < hash.Size() {
				return nil, errors.New("there are fewer values than PCRs in the quote")
			}
			pcrs = append(pcrs, PCR{Bank: hashName(sel.Hash), Index: i, Value: left[:hash.Size()]})
			left = left[hash.Size():]
		}
	}
	if len(left) > 0 {
		return nil, errors.New("there are more values than PCRs in the quote")
	}
	return pcrs, nil
}
