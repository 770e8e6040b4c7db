package main

import (
	"os"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/tpm"
)

// TestAddressForms holds what people read to the ways there are to a TPM.
func TestAddressForms(t *testing.T) {
	docs, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := keyvet(t, "", "help", "check")
	for _, form := range tpm.AddressForms() {
		if !strings.Contains(text, form) {
			t.Errorf("keyvet help check does not show %s", form)
		}
		if !strings.Contains(string(docs), form) {
			t.Errorf("docs/configuration.md does not show %s", form)
		}
	}
}
