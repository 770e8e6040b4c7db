// Package gate keeps a device key shut until a report on that very key is
// acknowledged. The order "report, then trust" is in its types: a report comes
// with the credential that it is about, and the gate itself does the publishing,
// and hands that credential out only once it is open.
package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
)

// Policy says what a report needs for the gate to open.
type Policy string

const (
	Acknowledged Policy = "acknowledged" // the verdict passes and the cloud has acknowledged the report
	Local        Policy = "local"        // the verdict passes; the cloud is told when it can be
)

// Publisher carries a report to the cloud. A nil error means that the cloud has acknowledged it.
type Publisher interface {
	Publish(context.Context, *device.Report) error
}

// Credential is what a gate guards.
type Credential struct {
	Proven bool   // the private key has shown that it is there and belongs to SPKI
	SPKI   []byte // SubjectPublicKeyInfo, DER
	Leaf   []byte // the key's own certificate, DER
	// What other programs get while the gate is open, in PEM: the chain, leaf
	// first, and the key as it is kept, which may be one that only the TPM can
	// use. A key at a handle has no file.
	Certificate, KeyFile []byte
}

// Vetted is a report and the very credential that it is about.
type Vetted struct {
	Report     *device.Report
	Credential Credential
}

// State is how a gate stands, as other programs find it.
type State int

const (
	// Stuck: it must be shut and cannot be, or nobody can say how it stands.
	Stuck State = iota
	Shut
	Open
)

// String is the word of the shadow and of keyvet status.
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case Shut:
		return "shut"
	}
	return "stuck"
}

// Outcome is what came of a report. The fields say different things, and none of
// them follows from another. The zero value is the worst.
type Outcome struct {
	State        State
	Acknowledged bool   // by the cloud
	Moved        bool   // [Gate.Move]: the gate is before the new credential
	Refusal      string // why the report opens nothing
	Undelivered  error  // why the cloud has not acknowledged it
	Trouble      error  // with the gate's files
}

// Gate guards one credential. It is not for concurrent use.
type Gate struct {
	Policy Policy
	By     string // what vouches for an open gate, such as "keyvet run"
	BootID string // see [BootID]
	// Ready is asked before the gate opens: an error keeps it shut, such as that
	// of a run directory which this process cannot hold. nil: it may open.
	Ready func() error
	Now   func() time.Time // the wall clock; nil is time.Now

	dir        string
	disk       durable.Disk
	credential Credential // that the gate is open before
	open       bool
	notAfter   time.Time // of the credential's certificate
}

// New is a shut gate whose mark and credential are in dir. What an earlier gate
// left there is removed; [Gate.State] says whether that succeeded, and the error
// why it did not.
func New(dir string, disk durable.Disk) (*Gate, error) {
	g := &Gate{dir: dir, disk: disk}
	err := disk.Dir(dir, 0o755)
	return g, errors.Join(err, g.Shut())
}

// Dir returns the run directory, and the disk that it is on.
func (g *Gate) Dir() (string, durable.Disk) { return g.dir, g.disk }

// Clear removes what an earlier gate left in dir, unless a process holds that. A
// directory that is not there stays so.
func Clear(dir string, disk durable.Disk) error {
	if held, err := Held(dir); held || err != nil {
		return err
	}
	g := &Gate{dir: dir, disk: disk}
	return g.Shut()
}

// Admit publishes v's report and opens the gate before v's credential if the
// report passes that credential and the policy holds. A report that does not
// pass shuts the gate, and is published too, whatever becomes of the gate's
// files. Under policy [Acknowledged] a gate that is open stays open while a
// further passing report on the same key waits for its acknowledgement, since it
// stands on an acknowledged one.
func (g *Gate) Admit(ctx context.Context, p Publisher, v Vetted) Outcome {
	o := Outcome{Refusal: g.refusal(v)}
	if o.Refusal != "" { // shut first: publishing may take long
		o.Trouble = g.Shut()
	}
	if !sameKey(g.credential, v.Credential) {
		o.Trouble = g.Shut()
	}
	g.openOn(&o, v) // under policy Local
	o.Undelivered = p.Publish(ctx, v.Report)
	o.Acknowledged = o.Undelivered == nil
	g.openOn(&o, v)
	o.State = g.State()
	return o
}

// openOn opens the gate if what has come of a report so far is enough.
func (g *Gate) openOn(o *Outcome, v Vetted) {
	if o.Refusal != "" {
		return
	}
	if !g.enough(o) {
		return
	}
	o.Trouble = g.unlock(v)
}

// enough reports whether a report that passes opens the gate by now.
func (g *Gate) enough(o *Outcome) bool {
	if g.Policy == Local {
		return true
	}
	return o.Acknowledged
}

// Move publishes v's report on another credential of this device, and once the
// cloud has acknowledged it, under either policy, moves the gate before that
// credential. The gate is then open if the report passes as a whole, else shut.
// If it does not move, it stays as it was.
func (g *Gate) Move(ctx context.Context, p Publisher, v Vetted) Outcome {
	o := Outcome{Refusal: g.keyRefusal(v)}
	o.Undelivered = p.Publish(ctx, v.Report)
	o.Acknowledged = o.Undelivered == nil
	o.Trouble = g.move(&o, v)
	o.State = g.State()
	return o
}

func (g *Gate) move(o *Outcome, v Vetted) error {
	if !o.Acknowledged {
		return nil
	}
	if o.Refusal != "" {
		return nil
	}
	o.Moved = true
	whole := g.refusal(v)
	if whole != "" {
		o.Refusal = whole
		return g.Shut()
	}
	return g.unlock(v)
}

// refusal is why v opens no gate; "" if it does.
func (g *Gate) refusal(v Vetted) string {
	if g.Policy != Acknowledged && g.Policy != Local {
		return fmt.Sprintf("the policy %q is unknown", g.Policy)
	}
	if status := v.Report.Verdict(); !status.Opens() {
		return "the verdict is " + status.String()
	}
	return g.keyRefusal(v)
}

// keyRefusal is why v's report does not pass v's credential; "" if it does.
func (g *Gate) keyRefusal(v Vetted) string {
	c := v.Credential
	if len(c.SPKI) == 0 {
		return "the device has no key yet"
	}
	if !c.Proven {
		return "the device key has not shown that it can be used"
	}
	var vetted []device.KeyReport
	for _, k := range v.Report.Keys {
		if k.Role == device.RoleDevice {
			vetted = append(vetted, k)
		}
	}
	if len(vetted) != 1 {
		return fmt.Sprintf("the report is about %d device keys, not one", len(vetted))
	}
	k := vetted[0]
	if k.SPKISHA256 != digest(c.SPKI) {
		return "the report is about another key"
	}
	if k.Certificate == nil || k.Certificate.SHA256 != digest(c.Leaf) {
		return "the report is about another certificate"
	}
	if k.PrivateSHA256 != digest(c.KeyFile) {
		return "the report is about another key file"
	}
	if !k.Status.Opens() {
		return "the device key is " + k.Status.String()
	}
	if g.now().After(deadline(v.Report, k)) {
		return "the certificate, or what the operator accepts, has expired since the report was made"
	}
	return ""
}

func sameKey(a, b Credential) bool {
	return digest(a.SPKI) != "" && digest(a.SPKI) == digest(b.SPKI)
}

// digest is the lower-case hex SHA-256; "" of nothing.
func digest(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (g *Gate) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

// unlock opens the gate before v's credential, or leaves it shut.
func (g *Gate) unlock(v Vetted) error {
	g.notAfter = notAfter(v.Report)
	err := g.ready()
	for _, step := range []func(Vetted) error{g.handOut, g.mark} {
		if err == nil {
			err = step(v)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the gate cannot be opened: %w", err), g.Shut())
	}
	g.credential, g.open = v.Credential, true
	return nil
}

func (g *Gate) ready() error {
	if g.Ready == nil {
		return nil
	}
	return g.Ready()
}

// notAfter is when a gate shuts that is open on the report.
func notAfter(r *device.Report) time.Time {
	for _, k := range r.Keys {
		if k.Role == device.RoleDevice && k.Certificate != nil {
			return deadline(r, k)
		}
	}
	return time.Time{}
}

// deadline is when a device key's certificate expires, or when something that the
// gate opens on is no longer accepted, such as that the certificate has expired.
func deadline(r *device.Report, k device.KeyReport) time.Time {
	end := k.Certificate.NotAfter
	for _, a := range r.Accepted {
		if a.Key == k.ID && a.ReasonCode == device.ReasonExpired {
			end = a.End()
		}
	}
	for _, f := range r.Findings {
		for _, a := range r.Accepted {
			if f.Counts() != f.Status && a.ReasonCode == f.ReasonCode && a.Key == f.Key && a.End().Before(end) {
				end = a.End()
			}
		}
	}
	return end
}

// Shut shuts the gate: the mark goes, and what other programs had. After an
// error the gate may be stuck; see [Gate.State].
func (g *Gate) Shut() error {
	g.credential, g.open, g.notAfter = Credential{}, false, time.Time{}
	if err := errors.Join(g.unmark(), g.takeBack()); err != nil {
		return fmt.Errorf("the gate cannot be shut: %w", err)
	}
	return nil
}

// State is how the gate stands, as the disk shows it.
func (g *Gate) State() State {
	entries, err := g.disk.ReadDir(g.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Stuck
	}
	marked, handedOut := false, false
	for _, e := range entries {
		switch name := e.Name(); {
		case name == filepath.Base(Path(g.dir)):
			marked = true
		case name == identityName, strings.HasPrefix(name, identityName+"."):
			handedOut = true
		}
	}
	switch {
	case g.open && marked:
		return Open
	case marked, handedOut && !g.open:
		return Stuck
	}
	return Shut
}

// NotAfter is when the certificate expires before which the gate is open, or what
// it opened on is no longer accepted: its deadline. Zero: it is not open.
func (g *Gate) NotAfter() time.Time { return g.notAfter }

// Expire shuts a gate whose deadline has passed, by the wall clock, and reports
// whether it did.
func (g *Gate) Expire() (expired bool, err error) {
	if !g.open || !g.now().After(g.notAfter) {
		return false, nil
	}
	return true, g.Shut()
}
