package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadPolicy(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy")
	for text, reason := range map[string]string{
		"": "asks for nothing", "platform { what: 1 }": "unknown field", "platform { minimum_gce_firmware_version: 1 }": "",
		strings.Repeat("#", 1<<20+1): "more than",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := readPolicy(name)
		if (p == nil) != (reason != "") || (err != nil) != (reason != "") || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%.40q: %v, %v", text, p, err)
		}
	}
	if p, err := readPolicy(name + ".none"); p != nil || err == nil {
		t.Errorf("a policy that is not there: %v, %v", p, err)
	}
}
