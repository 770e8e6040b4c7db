// Package vet puts every check to every key of the device: it reads the TPM and
// the files, with the lists, advisories and roots that there are, and has the TPM
// sign the report.
package vet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm"
)

// Check is one self-check, of what a configuration or a command line names.
type Check struct {
	Config   config.Config
	Agent    device.Agent                    // what makes the report
	Progress func(what string) (done func()) // of what takes long; nil: nobody looks

	// What only a command line says.
	Blocklists []string            // besides the built-in lists and those of the configuration
	Files      []string            // only these, and those in these directories
	Accept     []device.Acceptance // besides those of the configuration
	Stdin      Stdin               // the file "-"
	Only       []string            // the ids of the checks to ask; none: all
	Verbose    bool                // keep all that passed
	Thorough   *Thorough           // search for what no list covers; nil: do not
}

// Stdin is what is read for the file "-".
type Stdin struct {
	io.Reader
	Typed bool // it is a keyboard
}

// Report vets and returns the report, which no TPM has signed.
func (c *Check) Report(ctx context.Context, trigger device.Trigger) *device.Report {
	var own credential.Credential
	if len(c.Files) == 0 {
		own, _ = credential.InUse(c.Config) // the inventory tells
	}
	if c.Config.TPM.Address != "" {
		tpm.AssumeOwnLeftovers(c.Config.TPM.Address, own.Signer())
	}
	r, _, t := c.run(ctx, trigger, &own, c.connect, nil)
	if t != nil {
		t.Close()
	}
	return r
}

// connector connects to the TPM.
type connector func(context.Context) (*tpm.TPM, error)

// run reads all there is, puts every check to it and makes the report. The TPM
// stays open for evidence; it is nil where there is none.
func (c *Check) run(ctx context.Context, trigger device.Trigger, own *credential.Credential, connect connector, prepare func(*tpm.TPM) []device.Gap) (*device.Report, device.Inventory, *tpm.TPM) {
	env := &check.Env{Now: time.Now(), ExpiryWarning: c.Config.Check.ExpiryWarning.Duration, MaxAge: c.Config.Check.MaxAge.Duration, Only: c.Only, Moduli: new(check.Moduli)}
	inv := device.Inventory{ReadAt: env.Now}

	// What the checks need is made ready, and what takes long is tried, while the TPM
	// makes up its answers.
	var lists blocklist.Lists
	var missing []device.Gap
	var ready sync.WaitGroup
	ready.Go(func() { lists, missing = c.loadEnv(env) })
	t := c.askTPM(ctx, &inv, own, connect, func(t *tpm.TPM) (gaps []device.Gap) {
		if len(c.Only) == 0 {
			t.Found = func(k device.Key) { ready.Go(func() { env.Moduli.Ahead(ctx, k) }) }
		}
		if prepare != nil {
			gaps = prepare(t)
		}
		return gaps
	})
	ready.Wait()
	defer lists.Close() // errors are of no account: nobody asks them any more
	inv.Gaps = append(missing, inv.Gaps...)

	var later []string
	if len(c.Files) == 0 {
		c.readDevice(&inv, env, own)
	} else {
		later = c.readFiles(ctx, &inv, env)
	}
	f := &files{ctx: ctx, env: env, ids: make(ids), cas: make(map[[sha256.Size]byte]bool)}
	if c.Thorough != nil && env.Blocklist != nil {
		f.search = &search{Thorough: *c.Thorough, lists: lists, at: make(map[string]int)}
	}
	f.ids.unique(inv.Keys)

	done := c.progress("testing keys")
	findings := check.OfInventory(ctx, inv, env)
	if len(c.Files) == 0 && len(c.Only) == 0 {
		findings = append(findings, credential.ClaimFindings(c.Config)...)
		findings = append(findings, credential.NameFindings(c.Config, inv)...)
	}
	r := device.NewReport(inv, findings)
	r.Verbose = c.Verbose
	f.report = r
	f.remember(inv.Keys)
	for _, name := range later {
		f.name(name)
	}
	if len(c.Files) == 0 {
		for _, pattern := range c.Config.Check.Files {
			f.pattern(pattern)
		}
	}
	f.flush()
	if n := env.Moduli.Spared(); n > 0 {
		r.Gaps = append(r.Gaps, device.Gap{What: "RSA moduli of files", Minor: true,
			Why: fmt.Sprintf("%d of so many were not searched for factors above %d, nor tested for being a prime: check fewer files at a time", n, check.SmallFactors)})
	}
	r.AddAcross(check.Across(ctx, f.numbers, env))
	f.search.run(ctx, r)
	r.Accept(c.accept())
	done()
	r.Trigger, r.Agent = trigger, c.Agent
	if len(lists) > 0 {
		info := lists.Info()
		r.Blocklist = &info
	}
	return r, inv, t
}

// Checks are the ids of all checks.
func Checks() []string { return check.IDs() }

// accept is what the operator accepts.
func (c *Check) accept() []device.Acceptance { return slices.Concat(c.Config.Check.Accept, c.Accept) }

func (c *Check) progress(what string) (done func()) {
	if c.Progress == nil {
		return func() {}
	}
	return c.Progress(what)
}

// Key puts every check to one key.
type Key struct{ Check }

// Vet implements [rotate.Vetter]. What is accepted of the device's key is accepted
// of the one that is to take its place.
func (k Key) Vet(ctx context.Context, key device.Key) []device.Finding {
	key.ID = "device"
	env := &check.Env{Now: time.Now(), ExpiryWarning: k.Config.Check.ExpiryWarning.Duration, MaxAge: k.Config.Check.MaxAge.Duration}
	inv := device.Inventory{ReadAt: env.Now, Keys: []device.Key{key}}
	lists, _ := k.loadEnv(env) // what is missing, a check that needs it says
	defer lists.Close()
	r := device.NewReport(inv, check.Run(ctx, inv, env))
	r.Accept(k.accept())
	return r.Findings
}

// Vetter vets the device over and over, and knows which report its TPM signed
// last. It is not for concurrent use.
type Vetter struct {
	Check
	Credentials *credential.Store
	Journal     rotate.Journal
	Log         *slog.Logger
	BootLog     *os.File   // what the firmware measured, as the service manager has opened it; nil: it has not
	Limit       func() int // bytes that the network should have to carry; nil or 0: no limit

	signed signed // the last report with evidence
	waiting
	look connector // instead of one of its own, by tests
}

// waiting is what is known of a TPM that comes late.
type waiting struct {
	awaited bool            // the TPM, by the first check
	late    device.TPMState // as the last check found it, if it may come yet; else ""
	waited  time.Duration   // for a TPM that did not come
}

// Vet makes the report, with the thing's name and the TPM's evidence, on the
// credential of an id; "" is the one in use. Keys of the TPM that are kept count
// only with that evidence; without it, all are read again.
func (v *Vetter) Vet(ctx context.Context, trigger device.Trigger, id string) gate.Vetted {
	v.Credentials.Take(id)
	own, ownErr := v.Credentials.Current()
	defer debug.FreeOSMemory() // the next vet is a day away
	r, stands := v.report(ctx, trigger, own, ownErr, true)
	if !stands {
		v.Log.Warn("the TPM has not shown that it is the one whose keys are kept: all of them are read again")
		r, _ = v.report(ctx, trigger, own, ownErr, false)
	}
	return gate.Vetted{Report: r, Credential: own.Guarded()}
}

// report makes the report. It stands unless keys in it were taken on trust and the
// TPM has not signed it.
func (v *Vetter) report(ctx context.Context, trigger device.Trigger, own *credential.Credential, ownErr error, mayTrust bool) (_ *device.Report, stands bool) {
	onTrust := false
	r, inv, t := v.run(ctx, trigger, own, v.connect, func(t *tpm.TPM) (gaps []device.Gap) {
		gaps, onTrust = v.prepareTPM(t, mayTrust)
		return gaps
	})
	if t != nil {
		defer t.Close()
	}
	if v.late = ""; isLate(inv.TPM, t != nil) {
		v.late = inv.TPM.State
	}
	v.Credentials.Name(inv)
	if v.Limit != nil {
		r.Limit = v.Limit()
	}
	r.ThingName, _ = v.Credentials.Thing() // without one there is no connection
	if ownErr == nil {
		r.Credential = device.RoleDevice
	}
	if _, err := v.Journal.Load(); err != nil { // nothing is rotated until somebody has looked
		v.Log.Error("journal of rotations", "error", err)
		r.Gaps = append(r.Gaps, device.Gap{What: "rotation journal", Why: err.Error(), Minor: true})
	}
	if device.ClockBehind(r.Time) {
		v.Log.Warn("the clock is behind: it shows a time before this program was made; certificates cannot be judged until it is set", "time", r.Time)
	}
	if t != nil && inv.TPM.State == device.TPMOK {
		v.attest(t, r, own.Signer())
	}
	if r.Evidence == nil {
		return r, !onTrust
	}
	v.keep(t)
	return r, true
}
