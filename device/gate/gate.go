// Package gate keeps a device key shut until a report on that very key is
// acknowledged. The order "report, then trust" is in its types: the gate holds
// the key, does the publishing itself, and hands the key out only once open.
package gate

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
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

var (
	// ErrShut is wrapped by every error after which the gate is shut.
	ErrShut = errors.New("gate is shut")
	// ErrNotAcknowledged is wrapped by the error of a report that the cloud did not acknowledge.
	ErrNotAcknowledged = errors.New("report is not acknowledged")
)

// Credential is what a gate guards.
type Credential struct {
	Key  crypto.Signer
	SPKI []byte // SubjectPublicKeyInfo, DER
	// What other programs get while the gate is open, in PEM: the chain, leaf
	// first, and the key as it is kept, which may be one that only the TPM can
	// use. A key at a handle has no file.
	Certificate, KeyFile []byte
}

// Gate guards one credential. It is not for concurrent use.
type Gate struct {
	policy     Policy
	runDir     string
	credential Credential
	spki       string // lower-case hex SHA-256
	open       bool
}

// New makes a shut gate before a credential, and removes what an earlier gate
// left in runDir. The credential may be empty, if the device has none yet; such
// a gate never opens.
func New(policy Policy, runDir string, c Credential) (*Gate, error) {
	if policy != Acknowledged && policy != Local {
		return nil, fmt.Errorf("gate: unknown policy %q", policy)
	}
	g := &Gate{policy: policy, runDir: runDir, credential: c, spki: digest(c.SPKI)}
	if err := durable.Dir(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	return g, g.shut()
}

// Path is the file that exists in runDir while a gate is open.
func Path(runDir string) string { return filepath.Join(runDir, "trusted") }

// Admit publishes r and opens the gate if r passes and the policy holds; else
// it shuts it, and the error says why. A report that does not pass is published
// too. Under policy [Acknowledged] a gate that is open stays open while a
// further passing report waits for its acknowledgement, since it stands on an
// acknowledged one; the error then wraps ErrNotAcknowledged alone.
func (g *Gate) Admit(ctx context.Context, p Publisher, r *device.Report) error {
	reason := refusal(r)
	if reason == "" {
		reason = g.keyRefusal(r)
	}
	if reason != "" {
		// Shut first: publishing may take long.
		if err := g.shut(); err != nil {
			return err
		}
		if err := p.Publish(ctx, r); err != nil {
			return fmt.Errorf("gate: %s: %w: %w: %w", reason, ErrShut, ErrNotAcknowledged, err)
		}
		return fmt.Errorf("gate: %s: %w", reason, ErrShut)
	}
	if g.policy == Local {
		if err := g.unlock(r); err != nil {
			return err
		}
	}
	if err := p.Publish(ctx, r); err != nil {
		if g.open {
			return fmt.Errorf("gate: %w: %w", ErrNotAcknowledged, err)
		}
		return fmt.Errorf("gate: %w: %w: %w", ErrShut, ErrNotAcknowledged, err)
	}
	return g.unlock(r)
}

// refusal says why r as a whole opens no gate; "" if it does.
func refusal(r *device.Report) string {
	if v := r.Verdict(); !v.Opens() {
		return "the verdict is " + v.String()
	}
	return ""
}

// keyRefusal says why r does not open the gate before its key; "" if it does.
func (g *Gate) keyRefusal(r *device.Report) string {
	if g.credential.Key == nil || g.spki == "" {
		return "the device has no key yet"
	}
	for _, k := range r.Keys {
		if k.Role == device.RoleDevice && k.SPKISHA256 == g.spki {
			if k.Status.Opens() {
				return ""
			}
			return "the device key is " + k.Status.String()
		}
	}
	return "the report holds no finding on the device key"
}

// ErrRefused is wrapped by the error of a report that lets no gate move.
var ErrRefused = errors.New("the gate does not move to the key")

// Move publishes r, a report on another key of this device, and once the cloud
// has acknowledged it, under either policy, moves the gate before that key. The
// gate is then open if r passes as a whole, else shut. On an error the gate
// stays as it was: ErrRefused if r does not pass that key, ErrNotAcknowledged
// if the cloud did not acknowledge it.
func (g *Gate) Move(ctx context.Context, p Publisher, r *device.Report, c Credential) error {
	moved := &Gate{policy: g.policy, runDir: g.runDir, credential: c, spki: digest(c.SPKI), open: g.open}
	reason := moved.keyRefusal(r)
	if err := p.Publish(ctx, r); err != nil {
		return fmt.Errorf("gate: %w: %w", ErrNotAcknowledged, err)
	}
	if reason != "" {
		return fmt.Errorf("gate: %s: %w", reason, ErrRefused)
	}
	settle := moved.shut
	if refusal(r) == "" {
		settle = func() error { return moved.unlock(r) }
	}
	if err := settle(); err != nil {
		return err
	}
	*g = *moved
	return nil
}

// Reset puts the gate, shut, before another credential, such as the one it was
// before until a rotation that failed.
func (g *Gate) Reset(c Credential) error {
	g.credential, g.spki = c, digest(c.SPKI)
	return g.shut()
}

// digest is the lower-case hex SHA-256; "" of nothing.
func digest(spki []byte) string {
	if len(spki) == 0 {
		return ""
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// trusted is the content of the mark, for people and for units that want to
// know on what the gate stands.
type trusted struct {
	ReportID   string    `json:"reportId"`
	Time       time.Time `json:"time"`
	SPKISHA256 string    `json:"spkiSha256"`
}

func (g *Gate) unlock(r *device.Report) error {
	b, err := json.Marshal(trusted{r.ID, r.Time, g.spki})
	if err == nil {
		err = g.handOut()
	}
	if err == nil {
		err = durable.WriteFile(Path(g.runDir), append(b, '\n'), 0o644)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("gate: %w: %w", ErrShut, err), g.shut())
	}
	g.open = true
	return nil
}

func (g *Gate) shut() error {
	g.open = false
	if err := errors.Join(durable.Remove(Path(g.runDir)), g.takeBack()); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// Guards tells whether the gate's key is that of spki (DER).
func (g *Gate) Guards(spki []byte) bool { return g.spki == digest(spki) }

// Open tells whether the gate is open.
func (g *Gate) Open() bool { return g.open }

// Signer is the key, for any use, while the gate is open; else ErrShut.
func (g *Gate) Signer() (crypto.Signer, error) {
	if !g.open {
		return nil, fmt.Errorf("gate: %w", ErrShut)
	}
	return g.credential.Key, nil
}
