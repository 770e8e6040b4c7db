package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm/ekcert"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// kept is what the fleet keeps of a challenge until it is answered.
type kept struct {
	ID       string `json:"id"`
	Secret   []byte `json:"secret"`
	Nonce    []byte `json:"nonce"`
	AKName   []byte `json:"akName"`
	ReportID string `json:"reportId"`
}

const maxFileBytes = 64 << 10

// challenge makes a challenge to the TPM that signed a report: what to publish
// on standard output, and the secret in a file.
func (c *commandLine) challenge(args []string) (int, error) {
	flags := flag.NewFlagSet("challenge", flag.ContinueOnError)
	keep := flags.String("keep", "", "")
	if err := c.parse(flags, args, 1); err != nil {
		return exitUsage, err
	}
	if *keep == "" {
		return exitUsage, errors.New("challenge: -keep FILE is missing: the secret is kept there")
	}
	report, err := readReport(flags.Arg(0), c.in)
	if err != nil {
		return exitUndecided, err
	}
	r := evidence.Verify(report, evidence.Policy{Now: time.Now(), EKRoots: c.roots})
	for _, l := range r.Levels {
		needed := []string{evidence.LevelSchema, evidence.LevelSignature, evidence.LevelHierarchy, evidence.LevelReport}
		if l.Status != device.Pass && slices.Contains(needed, l.Name) || l.Status == device.Fail {
			return exitFail, fmt.Errorf("challenge: %s: %s", l.Name, l.Reason)
		}
		if l.Name == evidence.LevelEKCertificate && l.Status == device.Undecided {
			return exitUndecided, fmt.Errorf("challenge: %s: %s", l.Name, l.Reason)
		}
	}
	message, k, err := newChallenge(report, r)
	if err != nil {
		return exitUndecided, err
	}
	if err := writeKept(*keep, k); err != nil {
		return exitUndecided, err
	}
	return exitPass, json.NewEncoder(c.out).Encode(message)
}

func newChallenge(report []byte, r *evidence.Result) (awsiot.Challenge, kept, error) {
	var parsed device.Report
	if err := json.Unmarshal(report, &parsed); err != nil {
		return awsiot.Challenge{}, kept{}, err
	}
	der, err := base64.StdEncoding.DecodeString(parsed.Evidence.EKCertificate)
	if err != nil || len(der) == 0 {
		return awsiot.Challenge{}, kept{}, errors.New("challenge: the evidence has no EK certificate: no key to challenge")
	}
	cert, err := ekcert.Parse(der)
	if err != nil {
		return awsiot.Challenge{}, kept{}, fmt.Errorf("challenge: EK certificate: %w", err)
	}
	made, secret, err := evidence.NewChallenge(cert.PublicKey, r.Statement.AKName)
	if err != nil {
		return awsiot.Challenge{}, kept{}, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	k := kept{ID: rand.Text(), Secret: secret, Nonce: nonce, AKName: r.Statement.AKName, ReportID: parsed.ID}
	return awsiot.Challenge{
		ID: k.ID, EKAlgorithm: made.EKAlgorithm, EKSPKISHA256: made.EKSPKISHA256, CredentialBlob: made.CredentialBlob, Secret: made.Secret, Nonce: nonce,
	}, k, nil
}

// writeKept writes a file that nobody else can read, and was not there before.
func writeKept(name string, k kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func readKept(name string) (k kept, err error) {
	b, err := readBounded(name, maxFileBytes)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	if len(k.Secret) == 0 || len(k.Nonce) == 0 || len(k.AKName) == 0 {
		return k, fmt.Errorf("%s: not the file of a challenge", name)
	}
	return k, nil
}

// answer verifies a report with the evidence of a device's answer. The file of
// a challenge that was answered rightly is removed: it counts once.
func (c *commandLine) answer(args []string) (int, error) {
	flags := flag.NewFlagSet("answer", flag.ContinueOnError)
	name := flags.String("kept", "", "")
	if err := c.parse(flags, args, 2); err != nil {
		return exitUsage, err
	}
	k, err := readKept(*name)
	if err != nil {
		return exitUsage, fmt.Errorf("answer: -kept: %w", err)
	}
	report, err := readReport(flags.Arg(0), c.in)
	if err != nil {
		return exitUndecided, err
	}
	b, err := readBounded(flags.Arg(1), maxFileBytes)
	if err != nil {
		return exitUndecided, err
	}
	a, err := awsiot.ParseChallengeAnswer(b)
	switch {
	case err != nil:
		return exitUndecided, err
	case a.ID != k.ID:
		return exitUndecided, errors.New("answer: it is to another challenge")
	case a.Error != "":
		return exitUndecided, fmt.Errorf("answer: the device says: %s", a.Error)
	case subtle.ConstantTimeCompare(a.Secret, k.Secret) != 1:
		return exitFail, errors.New("answer: not the secret: the TPM that answered is not the one of the EK certificate and the attestation key")
	}
	var head struct{ ReportID string }
	if err := json.Unmarshal(report, &head); err != nil {
		return exitUndecided, err
	}
	if head.ReportID != a.ReportID {
		return exitUndecided, fmt.Errorf("answer: its evidence is over report %s: give that one", a.ReportID)
	}
	if report, err = evidence.Replace(report, a.Evidence); err != nil {
		return exitUndecided, err
	}
	status, err := show(c.out, evidence.Verify(report, evidence.Policy{Now: time.Now(), Nonce: k.Nonce, EKRoots: c.roots, ActivatedAK: k.AKName}), c.asJSON)
	if err != nil {
		return exitUndecided, err
	}
	return status, os.Remove(*name)
}
