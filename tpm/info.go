package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// Info is what the TPM says of itself (TPM2_GetCapability, Part 3, section
// 30.2; properties in Part 2, section 6.13). A TPM in failure mode is
// TPMDegraded and nothing more is said of it, since what it says then is not
// to be trusted. After an error the state is that of [StateOf]. A TPM in working
// order is asked once.
func (t *TPM) Info() (device.TPM, error) {
	if t.is12.Load() {
		return t.info12()
	}
	if s := t.read.stated.Load(); s != nil {
		return s.info, nil
	}
	info, err := t.info20()
	if err != nil {
		info.State, info.Problem = StateOf(err), err.Error()
	}
	return info, err
}

func (t *TPM) info20() (device.TPM, error) {
	info := device.TPM{Family: "2.0", State: device.TPMDegraded}
	// In failure mode TPM2_GetCapability still answers, so another command,
	// which needs no authorization and changes nothing, has to ask.
	_, err := tpm2.ReadClock{}.Execute(t)
	if errors.Is(err, tpm2.TPMRCCommandCode) { // not every TPM has it
		err = t.testResult()
	}
	switch {
	case errors.Is(err, tpm2.TPMRCFailure):
		return info, nil
	case isTPM12(err):
		t.is12.Store(true)
		return t.info12()
	case err != nil:
		return info, fmt.Errorf("read the TPM's clock or test result: %w", explain(err))
	}
	s, err := t.describe()
	if err == nil {
		t.read.stated.Store(s)
	}
	return s.info, err
}

// describe returns what the TPM states of itself. It is not to be trusted in
// failure mode, which it does not show.
func (t *TPM) describe() (*stated, error) {
	info := device.TPM{Family: "2.0", State: device.TPMDegraded}
	p, err := t.described()
	if err != nil {
		return &stated{info: info}, err
	}
	info.Manufacturer = words(p[tpm2.TPMPTManufacturer])
	info.VendorString = words(p[tpm2.TPMPTVendorString1], p[tpm2.TPMPTVendorString2], p[tpm2.TPMPTVendorString3], p[tpm2.TPMPTVendorString4])
	v1, has1 := p[tpm2.TPMPTFirmwareVersion1]
	v2, has2 := p[tpm2.TPMPTFirmwareVersion2]
	if !has1 || !has2 || info.Manufacturer == "" {
		return &stated{info: info}, errors.New("the TPM does not state its manufacturer and firmware version")
	}
	info.FirmwareVersion = advisory.FirmwareVersion(info.Manufacturer, uint64(v1)<<32|uint64(v2))
	if r, ok := p[tpm2.TPMPTRevision]; ok {
		info.SpecRevision = fmt.Sprintf("%d.%02d", r/100, r%100)
	}
	if family := words(p[tpm2.TPMPTFamilyIndicator]); family != "" {
		info.Family = family
	}
	info.State = device.TPMOK
	return &stated{info, uint64(v1)<<32 | uint64(v2)}, nil
}

// stated is what a TPM states of itself, which is not what it signs.
type stated struct {
	info     device.TPM
	firmware uint64
}

// Answer reports why the TPM cannot be asked anything, as [StateOf] and [ComesLate]
// want it; nil if it can, though it may be in failure mode. What it answers is not
// asked for again by what comes next.
func (t *TPM) Answer() error {
	if t.is12.Load() {
		_, err := t.Info()
		return err
	}
	_, err := t.described()
	if isTPM12(err) {
		_, err = t.Info()
		return err
	}
	return explain(err)
}

// described reads the properties of both groups, or of the first alone where the
// TPM answers so, once.
func (t *TPM) described() (map[tpm2.TPMPT]uint32, error) {
	if p := t.read.properties.Load(); p != nil {
		return *p, nil
	}
	p, err := t.properties(tpm2.TPMPTFamilyIndicator, lastProperty)
	if err == nil {
		t.read.properties.Store(&p)
		t.nvBufferMax.Store(p[tpm2.TPMPTNVBufferMax])
	}
	return p, err
}

// testResult is what the TPM says of its self-test, nil if that did not fail
// (TPM2_GetTestResult, Part 3, section 10.4). A TPM in failure mode answers it.
func (t *TPM) testResult() error {
	response, err := t.Send([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x7c})
	if err != nil {
		return err
	}
	if code := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])); code != tpm2.TPMRCSuccess {
		return code
	}
	result := response[max(10, len(response)-4):] // after the maker's own data
	if len(result) != 4 {
		return errors.New("test result: malformed answer")
	}
	if tpm2.TPMRC(binary.BigEndian.Uint32(result)) == tpm2.TPMRCFailure {
		return tpm2.TPMRCFailure
	}
	return nil
}

// words is the text in properties that each hold four characters, without
// padding; what is not printable ASCII becomes a question mark.
func words(values ...uint32) string {
	var b strings.Builder
	for _, v := range values {
		for shift := 24; shift >= 0; shift -= 8 {
			switch c := byte(v >> shift); {
			case c == 0:
			case c < ' ' || c > '~':
				b.WriteByte('?')
			default:
				b.WriteByte(c)
			}
		}
	}
	return strings.TrimSpace(b.String())
}

// lastProperty is that of the group that changes, which comes after the one that
// does not (TPM_PT, Part 2, section 6.13).
const lastProperty = tpm2.TPMPTPermanent + 0xff

// properties are those from first up to last.
func (t *TPM) properties(first, last tpm2.TPMPT) (map[tpm2.TPMPT]uint32, error) {
	all := make(map[tpm2.TPMPT]uint32)
	err := t.capability(tpm2.TPMCapTPMProperties, uint32(first), func(data *tpm2.TPMUCapabilities) (uint32, error) {
		list, err := data.TPMProperties()
		if err != nil {
			return 0, err
		}
		seen := uint32(0)
		for _, p := range list.TPMProperty {
			if seen = uint32(p.Property); p.Property > last {
				return 0, nil
			}
			all[p.Property] = p.Value
		}
		return seen, nil
	})
	return all, err
}

// handles lists the handles from first up to last, which are of one type
// (Part 2, section 7).
func (t *TPM) handles(first, last uint32) ([]tpm2.TPMHandle, error) {
	var all []tpm2.TPMHandle
	err := t.capability(tpm2.TPMCapHandles, first, func(data *tpm2.TPMUCapabilities) (uint32, error) {
		list, err := data.Handles()
		if err != nil {
			return 0, err
		}
		seen := uint32(0)
		for _, h := range list.Handle {
			if seen = uint32(h); seen > last {
				return 0, nil
			}
			all = append(all, h)
		}
		return seen, nil
	})
	return all, err
}

// capability reads a list of values in ascending order, in as many commands as
// it takes. add takes one part of it and returns the last value in it, or 0 to
// end the list.
func (t *TPM) capability(what tpm2.TPMCap, first uint32, add func(*tpm2.TPMUCapabilities) (last uint32, err error)) error {
	const maxParts = 64
	for range maxParts {
		rsp, err := tpm2.GetCapability{Capability: what, Property: first, PropertyCount: 128}.Execute(t)
		if err != nil {
			return fmt.Errorf("read the TPM's capability %v: %w", what, err)
		}
		if rsp.CapabilityData.Capability != what {
			return fmt.Errorf("read the TPM's capability %v: the answer is to another question, %v", what, rsp.CapabilityData.Capability)
		}
		last, err := add(&rsp.CapabilityData.Data)
		if err != nil {
			return fmt.Errorf("read the TPM's capability %v: %w", what, err)
		}
		if !rsp.MoreData || last == 0 {
			return nil
		}
		if last < first {
			return fmt.Errorf("read the TPM's capability %v: the list goes back from %#x to %#x", what, first, last)
		}
		first = last + 1
	}
	return fmt.Errorf("read the TPM's capability %v: the list does not end", what)
}
