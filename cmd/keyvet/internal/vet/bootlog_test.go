package vet

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func TestBootLogOf(t *testing.T) {
	for address, want := range map[string]string{
		"/dev/tpmrm0": "/sys/kernel/security/tpm0/binary_bios_measurements", "/dev/tpm12": "/sys/kernel/security/tpm12/binary_bios_measurements",
		"": "", "unix:/dev/tpm0": "", "tcp:localhost:2321": "", "/dev/tpm": "", "/dev/tpmrm0x": "", "/dev/tpm-": "", "/tmp/tpm0": "", "spi:/dev/spidev0.1": "",
	} {
		if got := bootLogOf(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}

func TestNoBootLog(t *testing.T) {
	for err, words := range map[error]string{
		fs.ErrNotExist: "file does not exist: the firmware has measured nothing", fs.ErrPermission: "permission denied: systemd 253", io.ErrUnexpectedEOF: "unexpected EOF",
	} {
		if got := noBootLog(err); !errors.Is(got, err) || !strings.HasPrefix(got.Error(), words) {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// opened is a file as systemd hands it over.
func opened(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.Open(write(t, filepath.Join(t.TempDir(), "log"), content))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// Which reports carry the log, and what is said where it is missing.
func TestBootLog(t *testing.T) {
	log := bytes.Repeat([]byte("measured "), 1000)
	pipe, end, err := os.Pipe()
	must(t, err)
	must(t, end.Close())
	defer pipe.Close()
	folder, err := os.Open(t.TempDir())
	must(t, err)
	defer folder.Close()
	for name, tt := range map[string]struct {
		address string
		file    *os.File
		trigger device.Trigger
		off     bool
		has     bool
		missing string
	}{
		"boot":                  {"unix:/s", opened(t, log), device.TriggerBoot, false, true, ""},
		"first boot":            {"/dev/tpmrm0", opened(t, log), device.TriggerFirstBoot, false, true, ""},
		"schedule":              {"unix:/s", opened(t, log), device.TriggerSchedule, false, false, ""},
		"job":                   {"unix:/s", opened(t, log), device.TriggerJob, false, false, ""},
		"not wanted":            {"unix:/s", opened(t, log), device.TriggerBoot, true, false, ""},
		"empty":                 {"unix:/s", opened(t, nil), device.TriggerBoot, false, false, "the log is empty"},
		"no file":               {"unix:/s", pipe, device.TriggerBoot, false, false, "illegal seek"},
		"no log":                {"unix:/s", folder, device.TriggerBoot, false, false, "is a directory"},
		"too large":             {"unix:/s", opened(t, make([]byte, maxBootLog+1)), device.TriggerBoot, false, false, "more than 16777216 bytes"},
		"as large as it may be": {"unix:/s", opened(t, make([]byte, maxBootLog)), device.TriggerBoot, false, true, ""},
		"none of this TPM":      {"/dev/tpmrm7", nil, device.TriggerBoot, false, false, "has measured nothing"},
		"none of the kernel's":  {"spi:/dev/spidev0.1", nil, device.TriggerBoot, false, false, ""},
	} {
		cfg := *config.Default()
		cfg.TPM.Address, cfg.Evidence.BootLog = tt.address, !tt.off
		v := &Vetter{Check: Check{Config: cfg}, BootLog: tt.file}
		for range 2 { // the file stays open
			packed, err := v.bootLog(tt.trigger)
			if (err == nil) != (tt.missing == "") || err != nil && !strings.Contains(err.Error(), tt.missing) || (packed != nil) != tt.has {
				t.Errorf("%s: %d bytes, %v; want %q", name, len(packed), err, tt.missing)
			}
		}
	}
	packed, err := (&Vetter{Check: Check{Config: *config.Default()}, BootLog: opened(t, log)}).bootLog(device.TriggerBoot)
	must(t, err)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	if back, err := io.ReadAll(z); err != nil || !bytes.Equal(back, log) {
		t.Errorf("%d bytes, %v", len(back), err)
	}
	if isBootLog(opened(t, log), "") != true || isBootLog(opened(t, log), bootLogOf("/dev/tpm1")) != true {
		t.Error("a file from elsewhere, which a drop-in names, is not taken")
	}
}

// The TPM signs the log along with the report; one without room is counted.
func TestBootLogIsSigned(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{})
	v := vetterOf(t, configOn(t, newCA(t), s.Address(), nil))
	level := func(r *device.Report, name string) evidence.Level {
		for _, l := range evidence.Verify(r.Encode(), evidence.Policy{Now: time.Now()}).Levels {
			if l.Name == name {
				return l
			}
		}
		t.Fatalf("no level %s", name)
		return evidence.Level{}
	}
	v.BootLog = opened(t, []byte("what the firmware measured"))
	r := v.Vet(t.Context(), device.TriggerBoot, "").Report
	if r.Evidence == nil || r.Evidence.BootLog == "" || level(r, evidence.LevelReport).Status != device.Pass {
		t.Fatalf("%+v, gaps %v: %+v", r.Evidence, r.Gaps, level(r, evidence.LevelReport))
	}
	packed, err := base64.StdEncoding.DecodeString(r.Evidence.BootLog)
	must(t, err)
	for i := range packed {
		packed[i] ^= 1
		r.Evidence.BootLog = base64.StdEncoding.EncodeToString(packed)
		if l := level(r, evidence.LevelReport); l.Status != device.Fail {
			t.Fatalf("byte %d of the log flipped: %+v", i, l)
		}
		packed[i] ^= 1
	}
	r.Evidence.BootLog = ""
	if l := level(r, evidence.LevelReport); l.Status != device.Fail {
		t.Errorf("the log taken away: %+v", l)
	}

	large := make([]byte, 100<<10)
	rand.New(rand.NewSource(1)).Read(large)
	v.BootLog = opened(t, large)
	r = v.Vet(t.Context(), device.TriggerBoot, "").Report
	if r.Evidence == nil || r.Evidence.BootLog != "" || len(r.Cut) != 1 || r.Cut[0].Check != "boot-log" || gapOn(r, "boot log") != nil ||
		level(r, evidence.LevelReport).Status != device.Pass || len(r.Encode()) > device.MaxReportBytes {
		t.Errorf("%+v, cut %v, gaps %v", r.Evidence, r.Cut, r.Gaps)
	}
	v.BootLog = opened(t, nil)
	r = v.Vet(t.Context(), device.TriggerBoot, "").Report
	if g := gapOn(r, "boot log"); r.Evidence == nil || g == nil || !g.Minor {
		t.Errorf("gaps %v", r.Gaps)
	}
}
