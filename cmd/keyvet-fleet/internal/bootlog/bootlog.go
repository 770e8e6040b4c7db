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
	gepb "github.com/google/go-eventlog/proto/state"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm-tools/server"

	"github.com/keyvet/keyvet/tpm/evidence"
)

// firstOfSystem is the first PCR that the operating system extends on its own, with
// measurements that no log of the firmware has: IMA, systemd.
const firstOfSystem = 10

// banks are those that can be replayed.
var banks = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384}

// Replayer replays logs. The zero value has no policy.
type Replayer struct {
	Policy *attestpb.Policy // of go-tpm-tools, on what boots to allow; nil: all
}

// Replay returns what a log in gzip shows, held against the values of PCRs that a
// TPM signed. The error says why the log cannot be read.
func (r Replayer) Replay(packed []byte, pcrs []evidence.PCR) (evidence.Boot, error) {
	log, err := Unpack(packed)
	if err != nil {
		return evidence.Boot{}, err
	}
	return r.replay(log, pcrs)
}

func (r Replayer) replay(log []byte, pcrs []evidence.PCR) (evidence.Boot, error) {
	var boot evidence.Boot
	log, err := framed(log)
	if err != nil {
		return boot, err
	}
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		return boot, err
	}
	if r.Policy != nil {
		boot.Policy.Unjudged = "PCR 0, which has the firmware's version, is not quoted or not explained"
	}
	quoted := make(map[string][]evidence.PCR)
	for _, p := range pcrs {
		quoted[p.Bank] = append(quoted[p.Bank], p)
	}
	for _, bank := range slices.Sorted(maps.Keys(quoted)) {
		r.replayBank(&boot, parsed, bank, quoted[bank])
	}
	for _, sorted := range []*[]int{&boot.Explained, &boot.Differ, &boot.Unexplained} {
		slices.Sort(*sorted)
		*sorted = slices.Compact(*sorted)
	}
	return boot, nil
}

// replayBank adds what the log shows by the PCRs of one bank.
func (r Replayer) replayBank(boot *evidence.Boot, log *tcg.EventLog, bank string, pcrs []evidence.PCR) {
	hash, known := banks[bank]
	if !known || !slices.ContainsFunc(log.Algs, func(a register.HashAlg) bool { return a.CryptoHash() == hash }) {
		boot.NotRead = append(boot.NotRead, "the log has no digests of the bank "+bank)
		for _, p := range pcrs {
			boot.Unexplained = append(boot.Unexplained, p.Index)
		}
		return
	}
	c := confirmed{hash: hash}
	for _, p := range pcrs {
		events, err := log.Verify([]register.MR{register.PCR{Index: p.Index, Digest: p.Value, DigestAlg: hash}})
		switch {
		case err == nil && (len(events) > 0 || untouched(p)):
			c.pcrs, c.events = append(c.pcrs, p.Index), append(c.events, events...)
			boot.Explained = append(boot.Explained, p.Index)
		case p.Index < firstOfSystem:
			boot.Differ = append(boot.Differ, p.Index)
		default:
			boot.Unexplained = append(boot.Unexplained, p.Index)
		}
	}
	slices.SortStableFunc(c.events, func(a, b tcg.Event) int { return int(a.Num()) - int(b.Num()) })
	r.addFirmware(boot, c)
	addSecureBoot(boot, c)
	addLoaders(boot, c)
	addUBoot(boot, c)
	addAfter(boot, c)
}

// confirmed are the PCRs of a bank that a log explains, and its events that they
// confirm.
type confirmed struct {
	hash   crypto.Hash
	pcrs   []int
	events []tcg.Event
}

// has reports whether all these PCRs are among them.
func (c confirmed) has(pcrs ...int) bool {
	return !slices.ContainsFunc(pcrs, func(pcr int) bool { return !slices.Contains(c.pcrs, pcr) })
}

// untouched reports whether a PCR has the value of one that nobody extended.
func untouched(p evidence.PCR) bool {
	start := byte(0)
	if p.Index >= 17 && p.Index <= 22 { // of the dynamic root of trust, which none has started
		start = 0xff
	}
	return bytes.Equal(p.Value, bytes.Repeat([]byte{start}, len(p.Value)))
}

// addFirmware adds the version of the firmware, of PCR 0, and what the policy says
// of it.
func (r Replayer) addFirmware(boot *evidence.Boot, c confirmed) {
	if !c.has(0) || boot.Firmware != "" {
		return
	}
	err := readable(c.events, 0)
	var state *gepb.PlatformState
	if err == nil {
		state, err = extract.PlatformState(c.hash, c.events)
	}
	if err != nil {
		boot.NotRead = append(boot.NotRead, "the firmware's version is not shown: "+err.Error())
		if r.Policy != nil {
			boot.Policy.Unjudged = err.Error()
		}
		return
	}
	boot.Firmware = version(state)
	if r.Policy != nil {
		boot.Policy = r.judge(state)
	}
}

// judge holds the firmware against the policy.
func (r Replayer) judge(state *gepb.PlatformState) evidence.Policied {
	machine, err := server.ConvertToMachineState(&gepb.FirmwareLogState{Platform: state})
	if err != nil {
		return evidence.Policied{Unjudged: err.Error()}
	}
	if err := server.EvaluatePolicy(machine, r.Policy); err != nil {
		return evidence.Policied{Refused: err.Error()}
	}
	return evidence.Policied{}
}

// version is what the firmware measured as its version, as text where it is one.
func version(state *gepb.PlatformState) string {
	if v := state.GetGceVersion(); v != 0 {
		return fmt.Sprintf("Google Compute Engine %d", v)
	}
	raw := state.GetScrtmVersionId()
	if text := printable(raw); text != "" {
		return text
	}
	return hex.EncodeToString(raw[:min(len(raw), 32)])
}

const maxText = 1024 // bytes of what a log says, in a result

// printable is text of bounded length, in ASCII or UTF-16; "" for what is none.
func printable(raw []byte) string {
	if len(raw) >= 4 && len(raw)%2 == 0 && raw[1] == 0 {
		raw = []byte(ascii(raw))
	}
	text := strings.TrimRight(string(raw[:min(len(raw), maxText)]), "\x00")
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return text
}

// addSecureBoot adds what PCR 7 confirms.
func addSecureBoot(boot *evidence.Boot, c confirmed) {
	notRead := func(err error) {
		boot.NotRead = append(boot.NotRead, "Secure Boot is not shown: "+err.Error())
	}
	if boot.SecureBoot != "" || !c.has(7) {
		return
	}
	if err := readable(c.events, 2, 7); err != nil {
		notRead(err)
		return
	}
	if !slices.ContainsFunc(c.events, isSecureBoot) {
		notRead(errors.New("the firmware did not measure it"))
		return
	}
	state, err := extract.ParseSecurebootState(c.events, extract.TPMRegisterConfig, extract.Opts{AllowEmptySBVar: true}) // an empty variable is off
	if err != nil {
		notRead(err)
		return
	}
	boot.SecureBoot = "off"
	if state.Enabled {
		boot.SecureBoot = "on"
	}
	boot.Keys = slices.Concat(
		anchors("PK", state.PlatformKeys), anchors("KEK", state.ExchangeKeys), anchors("db", state.PermittedKeys), anchors("dbx", state.ForbiddenKeys))
	vouched := anchors(evidence.Authority, slices.Concat(state.PreSeparatorAuthority, state.PostSeparatorAuthority))
	for i, a := range vouched {
		if !slices.ContainsFunc(vouched[:i], func(o evidence.Anchor) bool { return o.SHA256 == a.SHA256 }) {
			boot.Authorities = append(boot.Authorities, a)
		}
	}
	boot.Hashes = evidence.Hashes{Allowed: len(state.PermittedHashes), Forbidden: len(state.ForbiddenHashes)}
	forbid(boot, c, state)
}

// anchors are the certificates of a variable.
func anchors(variable string, certs []x509.Certificate) (all []evidence.Anchor) {
	for i := range certs {
		c := &certs[i]
		sum := sha256.Sum256(c.Raw)
		all = append(all, evidence.Anchor{Variable: variable, Subject: short(c.Subject.String()), SHA256: hex.EncodeToString(sum[:]), Certificate: c})
	}
	return all
}

// forbid adds what dbx forbids and was started nevertheless, or vouched for it.
func forbid(boot *evidence.Boot, c confirmed, state *extract.SecurebootState) {
	for _, vouched := range slices.Concat(state.PreSeparatorAuthority, state.PostSeparatorAuthority) {
		for _, f := range state.ForbiddenKeys {
			if bytes.Equal(f.Raw, vouched.Raw) {
				boot.Forbidden = append(boot.Forbidden, "dbx has the certificate that vouched for a program: "+short(f.Subject.String()))
			}
		}
	}
	if c.hash != crypto.SHA256 { // as the digests in dbx
		return
	}
	for _, e := range c.events {
		if e.MRIndex() == 4 && e.Type == tcg.EFIBootServicesApplication && slices.ContainsFunc(state.ForbiddenHashes, func(h []byte) bool { return bytes.Equal(h, e.Digest) }) {
			boot.Forbidden = append(boot.Forbidden, fmt.Sprintf("dbx has the program that was started: %x %s", e.Digest, pathOf(e.Data)))
		}
	}
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
func addLoaders(boot *evidence.Boot, c confirmed) {
	if c.has(4, 5) && len(boot.Loaders) == 0 {
		err := readable(c.events, 2, 4, 5)
		if err == nil {
			state, failed := extract.EfiState(c.hash, c.events, extract.TPMRegisterConfig, extract.Opts{AllowEFIAppBeforeCallingEvent: true})
			err = failed
			for _, app := range state.GetApps() {
				boot.Loaders = append(boot.Loaders, evidence.Loader{Digest: app.GetDigest(), Path: c.path(app.GetDigest())})
			}
		}
		if err != nil {
			boot.NotRead = append(boot.NotRead, "the boot loader is not shown: "+err.Error())
		}
	}
	if c.has(8) && boot.CommandLine == "" && readable(c.events, 8, 9) == nil {
		// An error says that it was not GRUB that measured.
		if grub, err := extract.GrubStateFromTPMLog(c.hash, c.events); err == nil {
			if kernel, err := extract.LinuxKernelStateFromGRUB(grub); err == nil {
				boot.CommandLine = clip(strings.TrimRight(kernel.GetCommandLine(), "\x00"))
			}
		}
	}
}

// path is the file that the log names for the program of a digest in PCR 4.
func (c confirmed) path(digest []byte) string {
	for _, e := range c.events {
		if e.MRIndex() == 4 && e.Type == tcg.EFIBootServicesApplication && bytes.Equal(e.Digest, digest) {
			return pathOf(e.Data)
		}
	}
	return ""
}

// addUBoot adds what U-Boot measures where it starts a kernel without UEFI, by
// bootm_measure of its boot/bootm.c: images into PCRs 8 and 9, the command line
// into PCR 1, after its own version into PCR 0.
func addUBoot(boot *evidence.Boot, c confirmed) {
	if !c.has(0) || !strings.HasPrefix(boot.Firmware, "U-Boot ") {
		return
	}
	for _, e := range c.events {
		what := printable(e.Data)
		switch {
		case e.Type == tcg.CompactHash && (e.MRIndex() == 8 && what == "linux" || e.MRIndex() == 9 && what == "initrd"):
			boot.Loaders = append(boot.Loaders, evidence.Loader{Digest: e.Digest, Path: what})
		case e.Type == tcg.PlatformConfigFlags && e.MRIndex() == 1 && e.DigestVerified() && boot.CommandLine == "":
			boot.CommandLine = clip(what)
		}
	}
}

// maxAfter bounds what is said of what came after the separators.
const maxAfter = 128

// addAfter adds what PCRs 0 to 7 were given after their separator.
func addAfter(boot *evidence.Boot, c confirmed) {
	if len(boot.After) > 0 {
		return
	}
	over := make(map[uint32]bool)
	for _, e := range c.events {
		pcr := e.MRIndex()
		switch {
		case pcr > 7:
		case e.Type == tcg.Separator:
			over[pcr] = true
		case over[pcr] && len(boot.After) == maxAfter:
			boot.NotRead = append(boot.NotRead, fmt.Sprintf("after the separators came more than the %d measurements that are shown", maxAfter))
			return
		case over[pcr]:
			m := evidence.Measured{PCR: int(pcr), Type: e.Type.TCGString(), Digest: e.Digest}
			switch e.Type {
			case tcg.EFIAction, tcg.Action, tcg.Ipl, tcg.CompactHash:
				m.What = printable(e.Data)
			case tcg.EFIBootServicesApplication, tcg.EFIBootServicesDriver, tcg.EFIRuntimeServicesDriver:
				m.What = pathOf(e.Data)
			case tcg.EFIVariableAuthority, tcg.EFIVariableDriverConfig, tcg.EFIVariableBoot:
				m.What = variableName(e.Data)
			}
			boot.After = append(boot.After, m)
		}
	}
}

// clip is text of bounded length.
func clip(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
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
