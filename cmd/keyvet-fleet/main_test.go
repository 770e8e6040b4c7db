package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyvet-fleet": main})
}

func TestScripts(t *testing.T) {
	recorded, err := filepath.Abs("../../tpm/evidence/testdata")
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := filepath.Abs(sampleDir)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("RECORDED", recorded)
			env.Setenv("AGREEMENT", agreement)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitCode,
			"flip":     flip,
			"change":   change,
			"pad":      pad,
			"tpm":      startTPM,
			"attest":   attest,
			"akname":   akName,
		},
	})
}

// exitCode runs a command and holds it to its exit status: exitcode N COMMAND ARGS...
// It must say something, and on standard error one line and a hint at most.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if lines := strings.Count(stderr, "\n"); lines > 2 || stdout == "" && lines == 0 {
		ts.Fatalf("%d lines on standard error", lines)
	}
}

// flip inverts a bit of the first byte of some text: flip FILE TEXT
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	at := bytes.Index(b, []byte(args[1]))
	if at < 0 {
		ts.Fatalf("no %q in it", args[1])
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o644))
}

// change puts another text in the place of some text: change FILE TEXT OTHER
func change(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	if !bytes.Contains(b, []byte(args[1])) {
		ts.Fatalf("no %q in it", args[1])
	}
	ts.Check(os.WriteFile(path, bytes.ReplaceAll(b, []byte(args[1]), []byte(args[2])), 0o644))
}

// akName puts the name of a report's attestation key into a variable: akname FILE NAME
func akName(ts *testscript.TestScript, _ bool, args []string) {
	r := evidence.Verify([]byte(ts.ReadFile(args[0])), evidence.Policy{})
	ts.Setenv(args[1], hex.EncodeToString(r.Statement.AKName))
}

// pad appends N spaces to a file: pad FILE N
func pad(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteString(strings.Repeat(" ", n))
	ts.Check(err)
}

// startTPM starts a TPM and puts the certificates of its CA into a directory: tpm NAME [bare]
// Its address goes into the variable NAME, the certificates into NAME-roots.
func startTPM(ts *testscript.TestScript, _ bool, args []string) {
	emulator, err := tpmtest.Start(context.Background(), tpmtest.Options{NoEKCertificates: len(args) > 1})
	ts.Check(err)
	ts.Defer(func() { emulator.Stop() })
	ts.Setenv(args[0], emulator.Address())
	if len(args) > 1 {
		return
	}
	roots := ts.MkAbs(args[0] + "-roots")
	ts.Check(os.Mkdir(roots, 0o755))
	for _, file := range emulator.CAFiles() {
		b, err := os.ReadFile(file)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(roots, filepath.Base(file)), b, 0o644))
	}
}

// attest writes a report of the TPM at ADDRESS with evidence over a nonce:
// attest ADDRESS NONCE FILE [owner|unrestricted|QUOTER]
// The evidence is by an attestation key in the owner hierarchy, by one that is
// not restricted, or by the TPM at another address.
func attest(ts *testscript.TestScript, _ bool, args []string) {
	c, err := tpm.Open(args[0], tpm.Options{})
	ts.Check(err)
	defer c.Close()
	nonce, err := hex.DecodeString(args[1])
	ts.Check(err)
	info, keys, gaps := c.Inventory()
	var findings []device.Finding
	for _, k := range keys {
		findings = append(findings, device.Finding{Check: "size", Key: k.ID, Status: device.Pass})
	}
	r := device.NewReport(device.Inventory{TPM: &info, Keys: keys, Gaps: gaps, ReadAt: time.Now()}, findings)
	r.ThingName = "gateway-0042"
	digest, err := device.Digest(r.Encode())
	ts.Check(err)

	quoter, by := c, ""
	if len(args) > 3 {
		by = args[3]
	}
	if strings.HasPrefix(by, "unix:") {
		quoter, err = tpm.Open(by, tpm.Options{})
		ts.Check(err)
		defer quoter.Close()
	}
	r.Evidence, err = quoter.Attest(tpm.AttestRequest{Digest: digest, Nonce: nonce})
	ts.Check(err)
	switch by {
	case "owner":
		ts.Check(quote(c, r.Evidence, digest, tpm2.TPMRHOwner, true))
	case "unrestricted":
		ts.Check(quote(c, r.Evidence, digest, tpm2.TPMRHEndorsement, false))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), r.Encode(), 0o644))
}

// quote has the TPM sign the same as in the evidence, by another key.
func quote(c *tpm.TPM, e *device.Evidence, digest [32]byte, hierarchy tpm2.TPMHandle, restricted bool) error {
	public, err := base64.StdEncoding.DecodeString(e.AKPublic)
	if err != nil {
		return err
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return err
	}
	area.ObjectAttributes.Restricted = restricted
	point := tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: point, Y: point})
	ak, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(*area)}.Execute(c)
	if err != nil {
		return err
	}
	defer tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(c)
	nonce, err := base64.StdEncoding.DecodeString(e.Nonce)
	if err != nil {
		return err
	}
	certificate, err := base64.StdEncoding.DecodeString(e.EKCertificate)
	if err != nil {
		return err
	}
	qualifying := evidence.QualifyingData(digest, nonce, nil, certificate)
	rsp, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 1, 2, 3, 4, 5, 6, 7)},
		}},
	}.Execute(c)
	if err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString
	e.AKPublic, e.Quote, e.Signature = text(ak.OutPublic.Bytes()), text(rsp.Quoted.Bytes()), text(tpm2.Marshal(rsp.Signature))
	return nil
}

// Each byte of the report and its evidence counts, whatever is asked for.
func TestFlippedBytes(t *testing.T) {
	report, err := os.ReadFile("../../tpm/evidence/testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	tests := trustFlags(flags)
	if err := tests.load(flags); err != nil {
		t.Fatal(err)
	}
	if r := evidence.Verify(report, tests.policy()); r.Verdict != device.Warn {
		t.Fatalf("unchanged: %v %+v", r.Verdict, r.Levels)
	}
	step := 5 // each bit of a byte is among those that are flipped
	if *whole {
		step = 1
	}
	for i := 0; i < len(report); i += step {
		report[i] ^= 1 << (i % 8)
		r := evidence.Verify(report, tests.policy())
		newer := strings.Contains(r.Levels[0].Reason, "a newer verifier is needed")
		if r.Verdict != device.Fail && !(newer && r.Verdict == device.Undecided) {
			t.Errorf("bit %d of byte %d: %v %+v", i%8, i, r.Verdict, r.Levels)
		}
		report[i] ^= 1 << (i % 8)
	}
}

// One TPM answers the challenge, and the evidence shows the EK certificate of
// another, which the report lists, too. Roots are given for both.
func TestImpersonation(t *testing.T) {
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots")
	if err := os.Mkdir(roots, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(name string) *tpm.TPM {
		emulator, err := tpmtest.Start(t.Context(), tpmtest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { emulator.Stop() })
		for i, file := range emulator.CAFiles() {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(roots, fmt.Sprint(name, i, ".pem")), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := tpm.Open(emulator.Address(), tpm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	attacker, victim := open("attacker"), open("victim")
	info, keys, _ := attacker.Inventory()
	_, victims, _ := victim.Inventory()
	var copied []byte // the victim's EK certificate, as its own reports show it
	for _, k := range victims {
		if k.Leaf() != nil && copied == nil {
			k.ID, copied = "tpm-ek-copied", k.Leaf().Raw
			keys = append(keys, k)
		}
	}
	var findings []device.Finding
	for _, k := range keys {
		findings = append(findings, device.Finding{Check: "size", Key: k.ID, Status: device.Pass})
	}
	r := device.NewReport(device.Inventory{TPM: &info, Keys: keys, ReadAt: time.Now()}, findings)
	digest, err := device.Digest(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	attest := func(nonce []byte) *device.Evidence {
		e, err := attacker.Attest(tpm.AttestRequest{Digest: digest, Nonce: nonce})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	r.Evidence = attest(nil)
	report, kept := write("report.json", r.Encode()), filepath.Join(dir, "kept.json")
	run := func(args ...string) (int, string, string) {
		var out, said bytes.Buffer
		status := program.Run(t.Context(), cli.IO{Out: &out, Err: &said}, args)
		return status, out.String(), said.String()
	}
	status, message, said := run("challenge", "-ek-roots", roots, "-keep", kept, report)
	if status != cli.Pass {
		t.Fatalf("challenge: %d %s", status, said)
	}
	challenge, err := awsiot.ParseChallenge([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := attacker.Activate(&evidence.Challenge{
		EKAlgorithm: challenge.EKAlgorithm, EKSPKISHA256: challenge.EKSPKISHA256, CredentialBlob: challenge.CredentialBlob, Secret: challenge.Secret,
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(name string, e *device.Evidence, reportID string) string {
		b, err := json.Marshal(awsiot.ChallengeAnswer{ID: challenge.ID, Secret: secret, ReportID: reportID, Evidence: e})
		if err != nil {
			t.Fatal(err)
		}
		return write(name, b)
	}
	own := attest(challenge.Nonce)
	forged := *own
	forged.EKCertificate, forged.EKIssuers = base64.StdEncoding.EncodeToString(copied), nil
	if err := quote(attacker, &forged, digest, tpm2.TPMRHEndorsement, true); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}

	status, out, said := run("answer", "-ek-roots", roots, "-kept", kept, report, answer("forged.json", &forged, r.ID))
	if status != cli.Fail || !strings.Contains(out, "the challenge was to another EK than the one of this EK certificate: two TPMs") {
		t.Errorf("the victim's certificate: %d\n%s%s", status, out, said)
	}
	for _, level := range []string{evidence.LevelEKCertificate, evidence.LevelSignature, evidence.LevelReport, evidence.LevelFreshness} {
		if !regexp.MustCompile(`(?m)^PASS +` + level + ` `).MatchString(out) {
			t.Errorf("refused for another reason than the one: %s", out)
		}
	}
	write("kept.json", saved)
	status, _, said = run("answer", "-ek-roots", roots, "-kept", kept, report, answer("elsewhere.json", own, "another"))
	if status != cli.Undecided || !strings.Contains(said, "its evidence is over report another") {
		t.Errorf("another report: %d %s", status, said)
	}
	var other device.Report
	if err := json.Unmarshal(bytes.ReplaceAll(r.Encode(), []byte(r.ID), []byte("another")), &other); err != nil {
		t.Fatal(err)
	}
	status, _, said = run("answer", "-ek-roots", roots, "-kept", kept, write("other.json", other.Encode()), answer("elsewhere.json", own, "another"))
	if status != cli.Undecided || !strings.Contains(said, "the challenge was made for report "+r.ID) {
		t.Errorf("another report, twice: %d %s", status, said)
	}
	status, out, said = run("answer", "-ek-roots", roots, "-kept", kept, report, answer("own.json", own, r.ID))
	if status != cli.Pass || !strings.Contains(out, "answered the challenge to the EK of this EK certificate") {
		t.Errorf("its own certificate: %d\n%s%s", status, out, said)
	}
	clitest.Commands(t, program, [][2]string{
		{"answer", "answer -ek-roots " + roots + " -kept " + kept + " " + report + " " + filepath.Join(dir, "own.json")},
		{"answer-forged", "answer -ek-roots " + roots + " -kept " + kept + " " + report + " " + filepath.Join(dir, "forged.json")},
	}, func() { write("kept.json", saved) })
}

// brokenWriter is a standard output that is full.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputIsLost(t *testing.T) {
	var stderr strings.Builder
	if status := program.Run(t.Context(), cli.IO{Out: brokenWriter{}, Err: &stderr}, []string{"verify", "../../tpm/evidence/testdata/report.json"}); status != cli.Undecided || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("exit %d: %s", status, &stderr)
	}
}

func TestTooManyRoots(t *testing.T) {
	dir := t.TempDir()
	ca, err := os.ReadFile("../../tpm/evidence/testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxRootFiles + 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pem", i)), ca, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readRoots(dir); err == nil || !strings.Contains(err.Error(), "more than 1000 files") {
		t.Errorf("%v", err)
	}
}

func FuzzRoots(f *testing.F) {
	ca, err := os.ReadFile("../../tpm/evidence/testdata/ca.pem")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X-----\n-----END X-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := parseRoots(b)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates, %v", len(certs), err)
		}
		pool := x509.NewCertPool()
		for _, c := range certs {
			pool.AddCert(c)
		}
	})
}
