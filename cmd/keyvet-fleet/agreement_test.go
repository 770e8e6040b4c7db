package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"github.com/google/go-tpm/tpm2"
	"google.golang.org/protobuf/proto"

	"github.com/keyvet/keyvet/cmd/keyvet-fleet/internal/bootlog"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var (
	record   = flag.Bool("record", false, "make the samples of "+sampleDir+" again")
	whole    = flag.Bool("agreement.whole", false, "flip each byte, not one of many")
	errPanic = errors.New("panic")
)

// sampleDir holds reports of two TPMs that were measured into as those of two real
// machines were: by an ECC and an RSA key, with and without a nonce and a log, over
// eight PCRs and one.
const sampleDir = "testdata/agreement"

// sample is one of these reports.
type sample struct {
	name     string
	encoded  []byte
	evidence *device.Evidence
	digest   [32]byte
	akName   []byte
	log      []byte // nil: none
	message  *attestpb.Attestation
}

func samples(t testing.TB) (all []sample) {
	files, err := filepath.Glob(filepath.Join(sampleDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := new(device.Report)
		if err := json.Unmarshal(b, r); err != nil {
			t.Fatal(err)
		}
		s := sample{name: filepath.Base(file), encoded: b, evidence: r.Evidence}
		if s.digest, err = device.Digest(b); err != nil {
			t.Fatal(err)
		}
		s.message, _ = exported(t, b)
		s.log = s.message.EventLog
		s.akName = evidence.Verify(b, evidence.Policy{}).Statement.AKName
		all = append(all, s)
	}
	return all
}

// parts are what of a sample can be flipped: the evidence, decoded.
func (s sample) parts(t testing.TB) map[string][]byte {
	e := s.evidence
	m := map[string]string{
		"attestation key": e.AKPublic, "quote": e.Quote, "signature": e.Signature, "PCR values": e.PCRValues, "nonce": e.Nonce, "EK certificate": e.EKCertificate,
	}
	for i, issuer := range e.EKIssuers {
		m["EK issuer "+string(rune('1'+i))] = issuer
	}
	all := map[string][]byte{"log": s.log}
	for name, text := range m {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

// verdicts are what the two verifiers say of a sample with these parts: ours of the
// report, theirs of the message that export makes of the parts.
func (s sample) verdicts(t testing.TB, parts map[string][]byte) (ours, theirs error) {
	text := base64.StdEncoding.EncodeToString
	e := *s.evidence
	e.AKPublic, e.Quote, e.Signature, e.PCRValues = text(parts["attestation key"]), text(parts["quote"]), text(parts["signature"]), text(parts["PCR values"])
	e.Nonce, e.EKCertificate, e.EKIssuers = text(parts["nonce"]), text(parts["EK certificate"]), nil
	certificates := [][]byte{parts["EK certificate"]}
	for i := range s.evidence.EKIssuers {
		issuer := parts["EK issuer "+string(rune('1'+i))]
		e.EKIssuers, certificates = append(e.EKIssuers, text(issuer)), append(certificates, issuer)
	}
	var packed []byte
	var err error
	if s.log != nil {
		packed, err = base64.StdEncoding.DecodeString(e.BootLog)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(parts["log"], s.log) {
			packed = zipped(t, parts["log"])
			e.BootLog = text(packed)
		}
	}
	report, err := evidence.Replace(s.encoded, &e)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range evidence.Verify(report, evidence.Policy{Now: time.Now(), AKName: s.akName, Replay: bootlog.Replayer{}.Replay}).Levels {
		switch l.Name {
		case evidence.LevelSchema, evidence.LevelAttestationKey, evidence.LevelSignature, evidence.LevelHierarchy, evidence.LevelReport, evidence.LevelPCRs, evidence.LevelBootLog:
			if l.Status != device.Pass && l.Status != device.NotApplicable && ours == nil {
				ours = errors.New(l.Name + ": " + l.Reason)
			}
		}
	}
	m := proto.Clone(s.message).(*attestpb.Attestation)
	m.AkPub, m.EventLog = parts["attestation key"], parts["log"]
	q := m.Quotes[0]
	q.Quote, q.RawSig = parts["quote"], parts["signature"]
	q.Pcrs = &tpmpb.PCRs{Hash: q.Pcrs.Hash, Pcrs: make(map[uint32][]byte)}
	values := parts["PCR values"]
	for i := range uint32(24) {
		if s.message.Quotes[0].Pcrs.Pcrs[i] != nil {
			q.Pcrs.Pcrs[i], values = values[:32], values[32:]
		}
	}
	nonce := evidence.QualifyingData(s.digest, parts["nonce"], packed, certificates...)
	return ours, opinion(m, nonce[:])
}

// Our verifier and that of go-tpm-tools say the same of good samples, and of those
// with one byte flipped. docs/security.md explains where they do not.
func TestAgreement(t *testing.T) {
	type flipped struct {
		s    sample
		part string
		i    int
	}
	var cases []flipped
	for _, s := range samples(t) {
		parts := s.parts(t)
		ours, theirs := s.verdicts(t, parts)
		if s.log == nil && theirs != nil {
			t.Logf("%s: %v", s.name, theirs)
		} else if ours != nil || theirs != nil {
			t.Errorf("%s: we say %v, go-tpm-tools %v", s.name, ours, theirs)
		}
		for part, b := range parts {
			step := 1 + len(b)/7
			if *whole {
				step = 1
			}
			for i := 0; i < len(b); i += step {
				cases = append(cases, flipped{s, part, i})
			}
		}
	}
	var mu sync.Mutex
	count := make(map[string]int)
	verdict := func(c flipped) {
		parts := c.s.parts(t)
		b := append([]byte(nil), parts[c.part]...)
		b[c.i] ^= 1 << (c.i % 8)
		parts[c.part] = b
		ours, theirs := c.s.verdicts(t, parts)
		mu.Lock()
		defer mu.Unlock()
		count[c.part]++
		if c.part == "attestation key" && ours != nil && theirs == nil {
			return // they are given the key to trust, and look at no attribute of it
		}
		if (ours == nil) != (theirs == nil) || ours == nil {
			t.Errorf("%s, bit %d of byte %d of the %s: we say %v, go-tpm-tools %v", c.s.name, c.i%8, c.i, c.part, ours, theirs)
		}
	}
	var workers sync.WaitGroup
	next := make(chan flipped)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for c := range next {
				verdict(c)
			}
		})
	}
	for _, c := range cases {
		next <- c
	}
	close(next)
	workers.Wait()
	t.Logf("flipped: %v", count)
}

// Both replay a log with one byte flipped alike, although another log than the one
// that was signed: what the PCRs do not cover, both take.
func TestAgreementOnLogs(t *testing.T) {
	taken, refused := 0, 0
	for _, s := range samples(t) {
		if s.log == nil {
			continue
		}
		_, nonce := exported(t, s.encoded)
		signed, err := evidence.SignedOver(s.encoded)
		if err != nil {
			t.Fatal(err)
		}
		step := 1 + len(s.log)/60
		if *whole {
			step = 1
		}
		m := proto.Clone(s.message).(*attestpb.Attestation)
		m.EventLog = bytes.Clone(s.log)
		for i := 0; i < len(s.log); i += step {
			m.EventLog[i] ^= 1 << (i % 8)
			boot, err := bootlog.Replayer{}.Replay(stored(t, m.EventLog), signed.PCRs)
			ours := err == nil && len(boot.Explained) == len(signed.PCRs) && len(boot.NotRead) == 0
			theirs := opinion(m, nonce)
			if theirs == nil && err == nil && emptied(t, m.EventLog, boot.Differ) {
				ours = true // they take any value of a PCR of which the log has no event
			}
			if errors.Is(theirs, errPanic) {
				ours = false // they end at an event of an unknown type, also in a PCR of which they say nothing
			}
			if ours != (theirs == nil) {
				t.Errorf("%s, bit %d of byte %d: we say %v %+v, go-tpm-tools %v", s.name, i%8, i, err, boot.NotRead, theirs)
			}
			if ours {
				taken++
			} else {
				refused++
			}
			m.EventLog[i] ^= 1 << (i % 8)
		}
	}
	t.Logf("%d taken, %d refused", taken, refused)
	if taken == 0 || refused == 0 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
}

// emptied reports whether a log has no event of these PCRs, of which there are some.
func emptied(t testing.TB, log []byte, pcrs []int) bool {
	t.Helper()
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		t.Fatal(err)
	}
	return len(pcrs) > 0 && !slices.ContainsFunc(parsed.Events(register.HashSHA256), func(e tcg.Event) bool {
		return e.Type != tcg.NoAction && slices.Contains(pcrs, e.Index)
	})
}

// stored is what is in gzip without compression, which takes no time.
func stored(t testing.TB, log []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(log)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRecord makes the samples, where -record asks for it, and otherwise holds the
// recorded ones to be what it would make.
func TestRecord(t *testing.T) {
	recorded := samples(t)
	if !*record {
		if len(recorded) != 6 {
			t.Errorf("%d samples", len(recorded))
		}
		return
	}
	for i, machine := range []struct {
		log   string
		lacks tpmtest.Lacks
	}{{"rhel8-uefi", tpmtest.Lacks{}}, {"ubuntu-2104-no-secure-boot", tpmtest.Lacks{Algorithm: tpmtest.ECC, Code: 0x2ca}}} {
		emulator := tpmtest.Run(t, tpmtest.Options{})
		c, err := tpm.Open(tpmtest.RunInterposer(t, emulator.Address(), machine.lacks.Refuse, machine.lacks.Rewrite).Address(), tpm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if machine.lacks.Algorithm == tpmtest.ECC { // such a TPM has no ECC key either
			if _, err := (tpm2.EvictControl{
				Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: 0x81010016, Name: nameOf(t, c, 0x81010016)}, PersistentHandle: 0x81010016,
			}).Execute(c); err != nil {
				t.Fatal(err)
			}
		}
		log := publishedLog(t, machine.log)
		extend(t, c, log)
		for j, ask := range []tpm.AttestRequest{
			{BootLog: zipped(t, log)},
			{BootLog: zipped(t, log), PCRs: []uint{7}, Nonce: []byte("sixteen bytes of")},
			{Nonce: []byte("nonce")},
		} {
			r := reportOf(t, c)
			if ask.Digest, err = device.Digest(r.Encode()); err != nil {
				t.Fatal(err)
			}
			if r.Evidence, err = c.Attest(ask); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s-%s-%s.json", machine.log, []string{"ecc", "rsa"}[i], []string{"boot", "nonce", "no-log"}[j])
			if err := os.WriteFile(filepath.Join(sampleDir, name), r.Encode(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func nameOf(t *testing.T, c *tpm.TPM, handle tpm2.TPMHandle) tpm2.TPM2BName {
	t.Helper()
	read, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	return read.Name
}

// reportOf is the report on a boot of a TPM's keys.
func reportOf(t testing.TB, c *tpm.TPM) *device.Report {
	t.Helper()
	info, keys, _ := c.Inventory()
	var findings []device.Finding
	for _, k := range keys {
		findings = append(findings, device.Finding{Check: "size", Key: k.ID, Status: device.Pass})
	}
	r := device.NewReport(device.Inventory{TPM: &info, Keys: keys, ReadAt: time.Now()}, findings)
	r.Trigger = device.TriggerBoot
	return r
}
