package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const defaultBank = "sha256"

// Duration is a time.Duration in Go's notation; "" is zero.
type Duration struct{ time.Duration }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		d.Duration = 0
		return nil
	}
	d.Duration, err = time.ParseDuration(string(b))
	if err != nil || d.Duration < 0 {
		return mustBe("a duration of zero or more, such as 90s or 720h", string(b))
	}
	return nil
}

// PCRs are PCRs of one bank: "sha256:0,1,7"; "" is none.
type PCRs struct {
	Bank    string // sha256, sha384 or sha512
	Indices []uint // each once
}

// String returns the text that p is of.
func (p PCRs) String() string {
	var indices []string
	for _, i := range p.Indices {
		indices = append(indices, strconv.FormatUint(uint64(i), 10))
	}
	return p.Bank + ":" + strings.Join(indices, ",")
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *PCRs) UnmarshalText(b []byte) error {
	*p = PCRs{Bank: defaultBank, Indices: []uint{}}
	if len(b) == 0 {
		return nil
	}
	bank, list, ok := strings.Cut(string(b), ":")
	if !ok || !slices.Contains([]string{"sha256", "sha384", "sha512"}, bank) {
		return mustBe("a bank (sha256, sha384 or sha512) and its PCRs, such as sha256:0,1,7", string(b))
	}
	p.Bank = bank
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || n > 23 || slices.Contains(p.Indices, uint(n)) {
			return mustBe("a bank and PCRs from 0 to 23, each once", string(b))
		}
		p.Indices = append(p.Indices, uint(n))
	}
	return nil
}

// PersistentHandle returns the handle in the name of a key in the TPM, such as
// "tpm:0x81000100"; other names are those of files.
func PersistentHandle(key string) (handle uint32, inTPM bool, err error) {
	text, inTPM := strings.CutPrefix(key, "tpm:")
	if !inTPM {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || n>>24 != 0x81 {
		return 0, true, mustBe("a file, or tpm: and a persistent handle, such as tpm:0x81000100", key)
	}
	return uint32(n), true, nil
}
