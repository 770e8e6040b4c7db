// Package bootlog says what a TCG log of measurements shows of a boot, by the
// replay of github.com/google/go-tpm-tools, which is that of go-eventlog.
//
// What these libraries do not bound themselves, this package refuses first: they
// allocate by lengths that a log states, and panic on types that they do not know.
package bootlog

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-eventlog/extract"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"github.com/keyvet/keyvet/tpm/evidence"
)

// firstOfSystem is the first PCR that the operating system extends on its own, with
// measurements that no log of the firmware has: IMA, systemd.
const firstOfSystem = 10

// banks are those that can be replayed.
var banks = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384}

// Replay returns what a log in gzip shows, held against the values of PCRs that a
// TPM signed. The error says why the log cannot be read.
func Replay(packed []byte, pcrs []evidence.PCR) (evidence.Boot, error) {
	log, err := unpack(packed)
	if err != nil {
		return evidence.Boot{}, err
	}
	return replay(log, pcrs)
}

func replay(log []byte, pcrs []evidence.PCR) (evidence.Boot, error) {
	var boot evidence.Boot
	if err := bounded(log); err != nil {
		return boot, err
	}
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		return boot, err
	}
	quoted := make(map[string][]evidence.PCR)
	for _, p := range pcrs {
		quoted[p.Bank] = append(quoted[p.Bank], p)
	}
	for _, bank := range slices.Sorted(maps.Keys(quoted)) {
		replayBank(&boot, parsed, bank, quoted[bank])
	}
	for _, sorted := range []*[]int{&boot.Explained, &boot.Differ, &boot.Unexplained} {
		slices.Sort(*sorted)
		*sorted = slices.Compact(*sorted)
	}
	return boot, nil
}

// replayBank adds what the log shows by the PCRs of one bank.
func replayBank(boot *evidence.Boot, log *tcg.EventLog, bank string, pcrs []evidence.PCR) {
	hash, known := banks[bank]
	if !known || !slices.ContainsFunc(log.Algs, func(a register.HashAlg) bool { return a.CryptoHash() == hash }) {
		boot.NotRead = append(boot.NotRead, "the log has no digests of the bank "+bank)
		for _, p := range pcrs {
			boot.Unexplained = append(boot.Unexplained, p.Index)
		}
		return
	}
	var explained []register.MR
	var confirmed []tcg.Event
	for _, p := range pcrs {
		mr := register.PCR{Index: p.Index, Digest: p.Value, DigestAlg: hash}
		events, err := log.Verify([]register.MR{mr})
		switch {
		case err == nil && (len(events) > 0 || untouched(p)):
			explained, confirmed = append(explained, mr), append(confirmed, events...)
			boot.Explained = append(boot.Explained, p.Index)
		case p.Index < firstOfSystem:
			boot.Differ = append(boot.Differ, p.Index)
		default:
			boot.Unexplained = append(boot.Unexplained, p.Index)
		}
	}
	slices.SortStableFunc(confirmed, func(a, b tcg.Event) int { return int(a.Num()) - int(b.Num()) })
	quoted := func(pcr int) bool {
		return slices.ContainsFunc(explained, func(mr register.MR) bool { return mr.Idx() == pcr })
	}
	addSecureBoot(boot, confirmed, quoted)
	addLoaders(boot, hash, confirmed, quoted)
}

// untouched reports whether a PCR has the value of one that nobody extended.
func untouched(p evidence.PCR) bool {
	start := byte(0)
	if p.Index >= 17 && p.Index <= 22 { // of the dynamic root of trust, which none has started
		start = 0xff
	}
	return bytes.Equal(p.Value, bytes.Repeat([]byte{start}, len(p.Value)))
}

// addSecureBoot adds what PCR 7 confirms.
func addSecureBoot(boot *evidence.Boot, events []tcg.Event, quoted func(int) bool) {
	notRead := func(err error) {
		boot.NotRead = append(boot.NotRead, "Secure Boot is not shown: "+err.Error())
	}
	if boot.SecureBoot != "" || !quoted(7) {
		return
	}
	if err := readable(events, 2, 7); err != nil {
		notRead(err)
		return
	}
	if !slices.ContainsFunc(events, isSecureBoot) {
		notRead(errors.New("the firmware did not measure it"))
		return
	}
	state, err := extract.ParseSecurebootState(events, extract.TPMRegisterConfig, extract.Opts{AllowEmptySBVar: true}) // an empty variable is off
	if err != nil {
		notRead(err)
		return
	}
	boot.SecureBoot = "off"
	if state.Enabled {
		boot.SecureBoot = "on"
	}
	add := func(variable string, certs []x509.Certificate) {
		for i := range certs {
			c := &certs[i]
			sum := sha256.Sum256(c.Raw)
			boot.Keys = append(boot.Keys, evidence.Anchor{
				Variable: variable, Subject: short(c.Subject.String()), SHA256: hex.EncodeToString(sum[:]), Certificate: c,
			})
		}
	}
	add("PK", state.PlatformKeys)
	add("KEK", state.ExchangeKeys)
	add("db", state.PermittedKeys)
	add("dbx", state.ForbiddenKeys)
	boot.Hashes = evidence.Hashes{Allowed: len(state.PermittedHashes), Forbidden: len(state.ForbiddenHashes)}
}

func isSecureBoot(e tcg.Event) bool {
	if e.MRIndex() != 7 || e.Type != tcg.EFIVariableDriverConfig {
		return false
	}
	v, err := tcg.ParseUEFIVariableData(bytes.NewReader(e.Data))
	return err == nil && v.VarName() == "SecureBoot"
}

// addLoaders adds the programs that PCR 4 confirms, up to the end of the boot
// services in PCR 5, and the command line that PCR 8 does.
func addLoaders(boot *evidence.Boot, hash crypto.Hash, events []tcg.Event, quoted func(int) bool) {
	if quoted(4) && quoted(5) && len(boot.Loaders) == 0 {
		err := readable(events, 2, 4, 5)
		if err == nil {
			state, failed := extract.EfiState(hash, events, extract.TPMRegisterConfig, extract.Opts{AllowEFIAppBeforeCallingEvent: true})
			err = failed
			for _, app := range state.GetApps() {
				boot.Loaders = append(boot.Loaders, app.GetDigest())
			}
		}
		if err != nil {
			boot.NotRead = append(boot.NotRead, "the boot loader is not shown: "+err.Error())
		}
	}
	if quoted(8) && boot.CommandLine == "" && readable(events, 8, 9) == nil {
		// An error says that it was not GRUB that measured.
		if grub, err := extract.GrubStateFromTPMLog(hash, events); err == nil {
			if kernel, err := extract.LinuxKernelStateFromGRUB(grub); err == nil {
				boot.CommandLine = strings.TrimRight(kernel.GetCommandLine(), "\x00")
			}
		}
	}
}

// short is a name of bounded length.
func short(name string) string {
	const most = 256
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}

// readable returns an error unless the events of these PCRs are such as go-eventlog
// reads within bounds.
func readable(events []tcg.Event, pcrs ...uint32) error {
	for _, e := range events {
		if !slices.Contains(pcrs, e.MRIndex()) {
			continue
		}
		if _, known := e.Type.KnownName(); !known {
			return fmt.Errorf("event %d of PCR %d is of the unknown type %#x", e.Num(), e.MRIndex(), uint32(e.Type))
		}
		var err error
		switch e.Type {
		case tcg.EFIVariableDriverConfig, tcg.EFIVariableAuthority:
			err = boundedVariable(e.Data, e.Type == tcg.EFIVariableDriverConfig)
		case tcg.EFIBootServicesDriver, tcg.EFIRuntimeServicesDriver:
			if len(e.Data) < 32 {
				err = errors.New("is too short")
			}
		}
		if err != nil {
			return fmt.Errorf("event %d of PCR %d %w", e.Num(), e.MRIndex(), err)
		}
	}
	return nil
}
