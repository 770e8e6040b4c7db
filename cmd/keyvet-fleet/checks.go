package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	attestpb "github.com/google/go-tpm-tools/proto/attest"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/cmd/internal/accept"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet-fleet/internal/bootlog"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/tpm/advisory"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// trust is what the commands of this program hold reports against.
type trust struct {
	ekRoots, advisories *string
	blocklists          *[]string
	accept, policyFile  *string // nil for a command without the flag
	env                 check.Env
	roots               []*x509.Certificate
	accepted            []device.Acceptance
	boots               bootlog.Replayer
}

func trustFlags(f *flag.FlagSet) *trust {
	return &trust{
		ekRoots:    f.String("ek-roots", "", "the EK certificate must lead to a certificate in `DIR`, of its files *.pem, *.crt and *.cer, all in PEM; a TPM that is not shown is then undecided"),
		blocklists: cli.Files(f, "blocklist", "look the keys up in the list `F`, too; repeatable"),
		advisories: f.String("advisories", "", "hold the firmware against the advisories in `F`, too"),
	}
}

// acceptFlag has load read what the operator accepts.
func (t *trust) acceptFlag(f *flag.FlagSet) {
	t.accept = f.String("accept", "", "count the findings that `F` names as warnings (keyvet.toml(5), \"Accepting a finding\"); what a device accepts for itself counts in full")
}

// policyFlag has load read which boots are allowed.
func (t *trust) policyFlag(f *flag.FlagSet) {
	t.policyFile = f.String("policy", "", "the boot must be one that `F` allows, a Policy of go-tpm-tools in text (proto/attest.proto); one that is not shown is undecided")
}

// load reads what the flags name.
func (t *trust) load(f *flag.FlagSet) (err error) {
	given := make(map[string]bool) // even if empty, as an unset variable of a script is
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["ek-roots"] {
		if t.roots, err = readRoots(*t.ekRoots); err != nil {
			return errUsage{err}
		}
	}
	var lists blocklist.Lists
	list, err := blocklist.Embedded()
	switch {
	case err == nil:
		lists = append(lists, list)
	case !errors.Is(err, blocklist.ErrNotEmbedded):
		return err
	}
	for _, name := range *t.blocklists {
		list, err := blocklist.Open(name)
		if err == nil {
			err = list.Check()
		}
		if err != nil {
			return errUsage{fmt.Errorf("-blocklist: %w", err)}
		}
		lists = append(lists, list)
	}
	if len(lists) > 0 {
		t.env.Blocklist = lists
	}
	var further advisories
	if given["advisories"] {
		b, err := durable.ReadBounded(*t.advisories, 1<<20)
		if err != nil {
			return errUsage{fmt.Errorf("-advisories: %w", err)}
		}
		list, err := advisory.Load(bytes.NewReader(b))
		if err != nil {
			return errUsage{fmt.Errorf("-advisories: %s: %w", *t.advisories, err)}
		}
		further = append(further, list)
	}
	t.env.Advisories = further
	if given["policy"] {
		if t.boots.Policy, err = readPolicy(*t.policyFile); err != nil {
			return errUsage{fmt.Errorf("-policy: %w", err)}
		}
	}
	if given["accept"] {
		if t.accepted, err = accept.Load(*t.accept); err != nil {
			return errUsage{fmt.Errorf("-accept: %w", err)}
		}
	}
	return nil
}

// readPolicy reads a policy that asks for something.
func readPolicy(name string) (*attestpb.Policy, error) {
	b, err := durable.ReadBounded(name, 1<<20)
	if err != nil {
		return nil, err
	}
	p := new(attestpb.Policy)
	if err := prototext.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if proto.Size(p) == 0 {
		return nil, fmt.Errorf("%s: it asks for nothing", name)
	}
	return p, nil
}

// advisories are those of further files; the built-in ones always count.
type advisories []advisory.List

func (further advisories) Match(t device.TPM) []device.Advisory {
	return advisory.Match(t, further...)
}

// ofKeys are the checks that a public key alone is enough for, and that of the
// firmware.
var ofKeys = []string{"roca", "debian", "compromised", "firmware", "size", "exponent", "factors", "point"}

// check tests what a report shows.
func (t *trust) check(inv device.Inventory) []device.Finding {
	env := t.env
	env.Now = time.Now()
	return slices.DeleteFunc(check.Run(context.Background(), inv, &env), func(f device.Finding) bool {
		return !slices.Contains(ofKeys, f.Check)
	})
}

// vet returns why an endorsement key must not be challenged.
func (t *trust) vet(ek crypto.PublicKey) error {
	k := device.Key{ID: "ek", Role: device.RoleEK, Public: ek}
	for _, f := range t.check(device.Inventory{Keys: []device.Key{k}}) {
		if f.Status == device.Fail {
			return errFail{fmt.Errorf("%s: %s", cmp.Or(f.ReasonCode, f.Check), f.Message)}
		}
		if f.Status == device.Undecided {
			return fmt.Errorf("%s: %s", f.Check, f.Message)
		}
	}
	return nil
}

func (t *trust) policy() evidence.Policy {
	return evidence.Policy{Now: time.Now(), EKRoots: t.roots, Check: t.check, Replay: t.boots.Replay, Accept: t.accepted}
}
