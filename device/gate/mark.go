package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyvet/keyvet/device/durable"
)

// Path is the mark in a run directory: the file that exists while a gate is open.
func Path(dir string) string { return filepath.Join(dir, "trusted") }

// ShutPath is the file that exists while a gate is shut: what waits for it sees
// it whenever it looks, where it could miss that the mark went.
func ShutPath(dir string) string { return filepath.Join(dir, "shut") }

// Mark is what the mark of an open gate says, for people and for programs that
// want to know on what the gate stands.
type Mark struct {
	ReportID          string    `json:"reportId"`
	Time              time.Time `json:"time"` // of the report
	SPKISHA256        string    `json:"spkiSha256"`
	CertificateSHA256 string    `json:"certificateSha256"`
	NotAfter          time.Time `json:"notAfter"`
	By                string    `json:"by"`               // what opened it: "keyvet run" vouches for it as long as it lives
	BootID            string    `json:"bootId,omitempty"` // when it was opened; "" if that is not known
}

const maxMarkBytes = 4 << 10

func (g *Gate) mark(v Vetted) error {
	m := Mark{
		ReportID: v.Report.ID, Time: v.Report.Time, SPKISHA256: digest(v.Credential.SPKI), CertificateSHA256: digest(v.Credential.Leaf),
		NotAfter: g.notAfter, By: g.By, BootID: g.BootID,
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := g.disk.Remove(ShutPath(g.dir)); err != nil {
		return err
	}
	return g.disk.WriteFile(Path(g.dir), append(b, '\n'), 0o644)
}

// unmark makes of the mark what says that the gate is shut, in one step that
// needs no room on the disk.
func (g *Gate) unmark() error {
	switch marked, err := g.exists(Path(g.dir)); {
	case err != nil:
		return err
	case marked:
		return g.disk.Rename(Path(g.dir), ShutPath(g.dir))
	}
	if said, err := g.exists(ShutPath(g.dir)); err == nil && !said {
		// Without a mark the gate is shut, also where this cannot be said.
		_ = g.disk.WriteFile(ShutPath(g.dir), nil, 0o644)
	}
	return nil
}

// remove removes what is there. A file system that is read-only refuses to
// remove even what is not.
func (g *Gate) remove(path string, remove func(string) error) error {
	if there, err := g.exists(path); err != nil || !there {
		return err
	}
	return remove(path)
}

func (g *Gate) exists(path string) (bool, error) {
	_, err := g.disk.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Look reports how a gate stands before programs that look at its directory, and
// by what mark; nil if there is none. A mark of another boot counts as none.
func Look(dir string, disk durable.Disk, bootID string) (State, *Mark, error) {
	b, err := disk.ReadFile(Path(dir), maxMarkBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return Shut, nil, nil
	}
	if err != nil {
		return Stuck, nil, err
	}
	m := new(Mark)
	if err := json.Unmarshal(b, m); err != nil {
		return Stuck, nil, fmt.Errorf("%s: %w", Path(dir), err)
	}
	if m.BootID != "" && bootID != "" && m.BootID != bootID {
		return Shut, nil, nil
	}
	return Open, m, nil
}

// BootID names this boot of the machine; "" if it cannot be had. Under a unit
// that hides it (ProcSubset=), the environment says it: KEYVET_BOOT_ID=%b.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		b = []byte(os.Getenv("KEYVET_BOOT_ID"))
	}
	return string(bytes.ReplaceAll(bytes.TrimSpace(b), []byte("-"), nil))
}
