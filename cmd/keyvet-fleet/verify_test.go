package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

// TestVerify asks for what verify is given by its flags.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const noLog = sampleDir + "/rhel8-uefi-ecc-no-log.json"
	policy := file("policy", "platform { minimum_gce_firmware_version: 1 }")
	rubbish := file("rubbish", "nothing")
	seen, moved := filepath.Join(dir, "seen"), filepath.Join(dir, "moved")
	for _, tt := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"-renew " + bootSample, cli.Usage, "", "-renew is for -baseline FILE"},
		{"-json -csv " + bootSample, cli.Usage, "", "-json or -csv"},
		{"-max-age -1h " + bootSample, cli.Usage, "", "-max-age is negative"},
		{"-policy " + rubbish + " " + bootSample, cli.Usage, "", "-policy: "},
		{"-require nothing " + bootSample, cli.Usage, "", `no level "nothing"`},
		{"-policy " + policy + " " + noLog, cli.Undecided, "required, but not shown", ""},
		{"-baseline " + rubbish + " " + bootSample, cli.Usage, "", "-baseline: "},
		{filepath.Join(dir, "none.json"), cli.Undecided, "", "no such file"},
		{"-", cli.Undecided, "", "the line is dead"},
		{"-nonce 00 " + bootSample + " " + noLog, cli.Usage, "", "-nonce is that of one report"},
		{"-baseline " + seen + " " + bootSample, cli.Pass, "boot-log", ""},
		{"-baseline " + moved + " " + bootSample, cli.Fail, "other values: sha256:7", ""},
		{"-baseline " + filepath.Join(dir, "none", "x") + " " + bootSample, cli.Undecided, "", "-baseline: "},
		{"-csv " + bootSample, cli.Pass, "file,thingName,", ""},
		{"-json " + bootSample, cli.Pass, "{\n  \"verdict\": \"WARN\",\n  \"evidence\"", ""},
		{"-json " + bootSample + " " + noLog, cli.Pass, "{\n  \"verdict\": \"WARN\",\n  \"reports\"", ""},
		{bootSample + " " + noLog, cli.Pass, "WARN: 2 reports", ""},
	} {
		if strings.Contains(tt.args, moved) {
			file("moved", strings.Replace(read(seen), `"sha256:7": "`, `"sha256:7": "00`, 1))
		}
		var out, said bytes.Buffer
		in := iotest.ErrReader(errors.New("the line is dead"))
		status := program.Run(t.Context(), cli.IO{In: in, Out: &out, Err: &said}, append([]string{"verify"}, strings.Fields(tt.args)...))
		if status != tt.status || !strings.Contains(out.String(), tt.stdout) || !strings.Contains(said.String(), tt.stderr) || (tt.stdout == "") != (out.Len() == 0) {
			t.Errorf("verify %s: %d, %.300s %s", tt.args, status, &out, &said)
		}
	}
}
