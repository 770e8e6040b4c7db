package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/attempts"
)

// NeedsEvidence returns why a report without evidence opens nothing, and how to
// accept one; "" if it is accepted. A TPM that signed before must sign again:
// whatever is on the bus can refuse the commands that signing takes.
func (c *Config) NeedsEvidence() string {
	if c.Evidence.Required {
		return "a TPM that cannot sign is accepted by evidence.required = false"
	}
	if c.TPM.AK != "" {
		return "tpm.ak names a key to sign with: remove it to accept a TPM that cannot sign"
	}
	path := c.AKPath()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("this TPM has signed before: remove %s to accept that it no longer does", path)
	}
	switch last, err := agent.LoadState(c.StateDir); {
	case errors.Is(err, agent.ErrNoState):
	case err != nil:
		return "whether this TPM signed before is not known: " + err.Error()
	case last.Report.Evidence != nil:
		return "the last report was signed: the next one need not be, if this is to last"
	}
	return ""
}

// TPMOptions returns how to talk to the TPM.
func (c *Config) TPMOptions() tpm.Options {
	return tpm.Options{
		Timeout: c.TPM.Timeout.Duration, AKOptional: c.NeedsEvidence() == "",
		OwnerAuthFile: c.TPM.OwnerAuthFile, EndorsementAuthFile: c.TPM.EndorsementAuthFile, Attempts: c.Attempts(),
	}
}

// Attempts returns what is known of the TPM's keys with passwords.
func (c *Config) Attempts() *attempts.Memory {
	return attempts.Of(filepath.Join(c.StateDir, "tpm-attempts.json"))
}

// AttestationKey returns the persistent handle that tpm.ak names; 0 if it names none.
func (c *Config) AttestationKey() (uint32, error) {
	if c.TPM.AK == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(c.TPM.AK, 0, 32)
	if err != nil || n < 0x81000000 || n > 0x817fffff {
		return 0, mustBe("a persistent handle in the range of the owner, 0x81000000 to 0x817fffff", c.TPM.AK)
	}
	return uint32(n), nil
}
