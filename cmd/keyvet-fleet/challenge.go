package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// kept is what the fleet keeps of a challenge until it is answered.
type kept struct {
	ID       string `json:"id"`
	Nonce    []byte `json:"nonce"`
	ReportID string `json:"reportId"`
	evidence.Expected
}

const maxFileBytes = 64 << 10

// challengeCommand makes a challenge to the TPM that signed a report: what to
// publish on standard output, and the secret in a file.
func challengeCommand(f *flag.FlagSet) cli.Action {
	t := trustFlags(f)
	keep := f.String("keep", "", "keep the secret in `FILE`, which must not be there yet")
	return action(func(s cli.IO, args []string) (device.Status, error) {
		if *keep == "" {
			return 0, errUsage{errors.New("challenge: -keep FILE is missing: the secret is kept there")}
		}
		if err := t.load(f); err != nil {
			return 0, err
		}
		report, _, err := readReport(args[0], s.In)
		if err != nil {
			return 0, err
		}
		r := evidence.Verify(report, t.policy())
		if err := mayChallenge(r); err != nil {
			return 0, err
		}
		message, k, err := newChallenge(report, r, t)
		if err != nil {
			return 0, err
		}
		if err := writeKept(*keep, k); err != nil {
			return 0, err
		}
		return device.Pass, json.NewEncoder(s.Out).Encode(message)
	})
}

// mayChallenge returns why a report must not lead to a challenge: what it says
// of keys and certificates has to hold, but for what only the challenge shows.
// That the device itself fails is no reason.
func mayChallenge(r *evidence.Result) error {
	needed := []string{evidence.LevelSchema, evidence.LevelSignature, evidence.LevelReport}
	for _, l := range r.Levels {
		err := fmt.Errorf("challenge: %s: %s", l.Name, l.Reason)
		if l.Name == evidence.LevelKeys { // the EK is vetted before it is challenged
			continue
		}
		if l.Status == device.Fail || slices.Contains(needed, l.Name) && l.Status != device.Pass {
			return errFail{err}
		}
		if l.Name == evidence.LevelEKCertificate && l.Status == device.Undecided {
			return err
		}
	}
	return nil
}

func newChallenge(report []byte, r *evidence.Result, t *trust) (awsiot.Challenge, kept, error) {
	var parsed device.Report
	if err := json.Unmarshal(report, &parsed); err != nil {
		return awsiot.Challenge{}, kept{}, err
	}
	der, err := base64.StdEncoding.DecodeString(parsed.Evidence.EKCertificate)
	if err != nil || len(der) == 0 {
		return awsiot.Challenge{}, kept{}, errors.New("challenge: the evidence has no EK certificate: no key to challenge")
	}
	cert, _, err := keyfile.ParseCertificate(der)
	if err != nil {
		return awsiot.Challenge{}, kept{}, fmt.Errorf("challenge: EK certificate: %w", err)
	}
	made, expected, err := evidence.NewChallenge(cert.PublicKey, r.Statement.AKName, t.vet)
	if err != nil {
		return awsiot.Challenge{}, kept{}, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	k := kept{ID: rand.Text(), Nonce: nonce, ReportID: parsed.ID, Expected: expected}
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
	b, err := durable.ReadBounded(name, maxFileBytes)
	if err != nil {
		return k, err
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(b, &members)                                 // what is no JSON is refused below
	if members["akName"] != nil && members["ekSpkiSha256"] == nil { // of the first version
		return k, fmt.Errorf("%s: it does not say which EK was challenged: make the challenge again", name)
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, fmt.Errorf("%s: not the file of a challenge: %w", name, err)
	}
	if k.ID == "" || len(k.Secret) == 0 || len(k.Nonce) == 0 || len(k.AKName) == 0 || k.EKSPKISHA256 == "" || k.ReportID == "" {
		return k, fmt.Errorf("%s: not the file of a challenge", name)
	}
	return k, nil
}

// answerCommand verifies a report with the evidence of a device's answer. The
// file of a challenge that was answered rightly is removed: it counts once.
func answerCommand(f *flag.FlagSet) cli.Action {
	t := trustFlags(f)
	t.acceptFlag(f)
	name := f.String("kept", "", "the `FILE` that \"challenge\" wrote")
	asJSON := f.Bool("json", false, "one JSON document on standard output")
	return action(func(s cli.IO, args []string) (device.Status, error) {
		if *name == "" {
			return 0, errUsage{errors.New("answer: -kept FILE is missing: the file that \"challenge -keep\" wrote")}
		}
		k, err := readKept(*name)
		if err != nil {
			return 0, errUsage{fmt.Errorf("answer: -kept: %w", err)}
		}
		if err := t.load(f); err != nil {
			return 0, err
		}
		report, _, err := readReport(args[0], s.In)
		if err != nil {
			return 0, err
		}
		b, err := durable.ReadBounded(args[1], maxFileBytes)
		if err != nil {
			return 0, err
		}
		policy := t.policy()
		if report, policy.Activated, err = answered(report, b, k); err != nil {
			return 0, err
		}
		policy.Nonce = k.Nonce
		write := textOf(terminal.Of(s.Out))
		if *asJSON {
			write = func(w io.Writer, all []verified) error { return indented(w, all[0].Result) }
		}
		status, err := show(s.Out, []verified{{args[0], evidence.Verify(report, policy)}}, write)
		if err != nil {
			return 0, err
		}
		return status, os.Remove(*name)
	})
}

// answered returns the report with the evidence of an answer, and the pair of
// keys that the answer shows to be in one TPM.
func answered(report, answer []byte, k kept) ([]byte, evidence.Activated, error) {
	var none evidence.Activated
	a, err := awsiot.ParseChallengeAnswer(answer)
	if err != nil {
		return nil, none, err
	}
	if a.ID != k.ID {
		return nil, none, errors.New("answer: it is to another challenge")
	}
	if a.Error != "" {
		return nil, none, fmt.Errorf("answer: the device says: %s", a.Error)
	}
	pair, err := k.Answered(a.Secret)
	if err != nil {
		return nil, none, errFail{fmt.Errorf("answer: %w", err)}
	}
	var parsed device.Report
	if err := json.Unmarshal(report, &parsed); err != nil {
		return nil, none, err
	}
	if parsed.ID != k.ReportID {
		return nil, none, fmt.Errorf("answer: the challenge was made for report %s: give that one", k.ReportID)
	}
	if a.ReportID != k.ReportID {
		return nil, none, fmt.Errorf("answer: its evidence is over report %s, the challenge was made for report %s: make a challenge for the device's last report", a.ReportID, k.ReportID)
	}
	report, err = evidence.Replace(report, a.Evidence)
	return report, pair, err
}
