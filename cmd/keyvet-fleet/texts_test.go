package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program, "../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program) }

func TestScreens(t *testing.T) {
	const report, bad = "../../tpm/evidence/testdata/report.json", "../../tpm/evidence/testdata/security/roca-ek"
	export := filepath.Join(t.TempDir(), "message")
	clitest.Commands(t, program, [][2]string{
		{"verify", "verify " + report},
		{"verify-fails", "verify " + bad + "/report.json"},
		{"verify-missing", "verify none.json"},
		{"verify-several", "verify " + report + " " + bad},
		{"challenge-no-keep", "challenge " + report},
		{"challenge-missing", "challenge -keep " + export + " none.json"},
		{"answer-missing", "answer -kept none.secret report.json answer.json"},
		{"answer-no-kept", "answer report.json answer.json"},
		{"export", "export -out " + export + " " + report},
		{"version", "version"},
	})
	kept := filepath.Join(t.TempDir(), "gw.secret")
	clitest.Commands(t, program, [][2]string{{"challenge", "challenge -keep " + kept + " " + report}}, func() { os.Remove(kept) })
}
