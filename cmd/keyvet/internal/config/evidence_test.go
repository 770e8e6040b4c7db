package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A TPM that does not sign is accepted by the operator's word, and only if it
// never signed.
func TestNeedsEvidence(t *testing.T) {
	const report = `"schema":"keyvet.report/1","reportId":"r","time":"2026-01-02T03:04:05Z","trigger":"boot","agent":{"version":"1"},"keys":[],"findings":[],"gaps":[],"verdict":"PASS"`
	for name, tt := range map[string]struct {
		required bool
		ak       string
		files    map[string]string
		reason   string
	}{
		"accepted":             {false, "", nil, ""},
		"required":             {true, "", nil, "evidence.required = false"},
		"a key is named":       {false, "0x81010002", nil, "tpm.ak names a key"},
		"a key is kept":        {false, "", map[string]string{"ak.pem": ""}, "this TPM has signed before"},
		"not signed before":    {false, "", map[string]string{"last.json": `{"report":{` + report + `}}`}, ""},
		"signed before":        {false, "", map[string]string{"last.json": `{"report":{` + report + `,"evidence":{}}}`}, "the last report was signed"},
		"unreadable":           {false, "", map[string]string{"last.json": `{`}, "is not known"},
		"a state of no report": {false, "", map[string]string{"last.json": `{}`}, "is not known"},
	} {
		c := new(Config)
		c.StateDir, c.Evidence.Required, c.TPM.AK = t.TempDir(), tt.required, tt.ak
		for name, content := range tt.files {
			if err := os.WriteFile(filepath.Join(c.StateDir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		reason := c.NeedsEvidence()
		if (reason == "") != (tt.reason == "") || !strings.Contains(reason, tt.reason) {
			t.Errorf("%s: %q", name, reason)
		}
		if optional := c.TPMOptions().AKOptional; optional != (tt.reason == "") {
			t.Errorf("%s: the key is optional: %v", name, optional)
		}
	}
}
