package vet

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/deflate"
	"github.com/keyvet/keyvet/device"
)

const (
	// maxBootLog bounds the log of what the firmware measured, in bytes.
	maxBootLog = 16 << 20
	// securityfs has a directory for each TPM with a log.
	securityfs = "/sys/kernel/security"
)

// bootLog returns the log of what the firmware measured before this boot, in gzip,
// for the report of a boot; nil for another report, and for a TPM of which the
// kernel cannot have a log. The error says why there should be one and is none.
func (v *Vetter) bootLog(trigger device.Trigger) ([]byte, error) {
	if !v.Config.Evidence.BootLog || trigger != device.TriggerBoot && trigger != device.TriggerFirstBoot {
		return nil, nil
	}
	name := bootLogOf(v.Config.TPM.Address)
	if f := v.BootLog; f != nil && isBootLog(f, name) {
		return pack(f)
	}
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, noBootLog(err)
	}
	defer f.Close()
	return pack(f)
}

// noBootLog adds to why a log could not be opened what that means.
func noBootLog(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the firmware has measured nothing that the kernel knows of, or securityfs is not mounted", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: systemd 253 and later opens it for keyvet, by OpenFile= in the unit", err)
	}
	return err
}

// bootLogOf is the file in which the kernel has the log of the TPM at an address;
// "" where the kernel does not drive that TPM.
func bootLogOf(address string) string {
	dir, name := path.Split(address)
	number, ok := strings.CutPrefix(name, "tpmrm")
	if !ok {
		number, ok = strings.CutPrefix(name, "tpm")
	}
	if dir != "/dev/" || !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return ""
	}
	return securityfs + "/tpm" + number + "/binary_bios_measurements"
}

// isBootLog reports whether an opened file can be the log that the kernel has under
// that name. The unit opens the one of the first TPM, whichever the configuration
// names.
func isBootLog(f *os.File, name string) bool {
	opened, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return err != nil || name == "" || opened == name || !strings.HasPrefix(opened, securityfs+"/")
}

// pack returns the whole of a log in gzip. Of one that compresses to more than a
// report can hold, it returns what is too large for one.
func pack(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var packed deflate.Writer
	read := 0
	for piece := make([]byte, 64<<10); read <= maxBootLog && packed.Len() <= device.MaxReportBytes; {
		n, err := f.Read(piece)
		packed.Write(piece[:n]) // never fails
		read += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case read == 0:
		return nil, errors.New("the log is empty: the firmware has measured nothing")
	case read > maxBootLog:
		return nil, fmt.Errorf("the log has more than %d bytes", maxBootLog)
	}
	return packed.Close(), nil
}
