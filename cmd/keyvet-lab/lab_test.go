package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// buildKeyvet builds the device binary that the lab is about.
func buildKeyvet(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyvet")
	if out, err := exec.Command("go", "build", "-o", path, "../keyvet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	program := buildKeyvet(t)
	var out strings.Builder
	if status := command(t.Context(), []string{"demo", "-keyvet", program}, &out, &out); status != 0 {
		t.Fatalf("exit %d\n%s", status, &out)
	}
	for _, want := range []string{
		"exit 0, gate open", "PASS, ", "signed by the TPM", device.ReasonROCA, device.ReasonDebian, "TPM IFX 7.61.2785.0", "All 4 ended as they have to",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demonstration does not say %q:\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "gate shut"); n != 3 {
		t.Errorf("%d gates shut, want three", n)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "keyvet-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDemoTellsFailure runs an agent that passes everything: the lab must not
// be content with it.
func TestDemoTellsFailure(t *testing.T) {
	var out strings.Builder
	if status := command(t.Context(), []string{"demo", "-keyvet", "/bin/true"}, &out, &out); status != 1 || !strings.Contains(out.String(), "NOT AS IT HAS TO BE") {
		t.Errorf("exit %d\n%s", status, &out)
	}
}

func TestUp(t *testing.T) {
	program := buildKeyvet(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan int)
	go func() {
		status := command(ctx, []string{"up", "-thing", "gw"}, w, w)
		w.Close()
		ended <- status
	}()
	config, said := "", ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		said += lines.Text() + "\n"
		if path, ok := strings.CutPrefix(lines.Text(), "config    "); ok {
			config = path
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	out, err := exec.Command(program, "run", "-once", "-config", config).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "gw: ") {
		t.Errorf("the report was not told: %q", lines.Text())
	}
	cancel()
	go io.Copy(io.Discard, r)
	if status := <-ended; status != 0 {
		t.Errorf("exit %d", status)
	}
	if _, err := os.Stat(config); err == nil {
		t.Errorf("%s is left behind", config)
	}
}

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{nil, 2, "usage:"},
		{[]string{"help"}, 0, "usage:"},
		{[]string{"dmo"}, 2, "unknown command"},
		{[]string{"demo", "x"}, 2, "no arguments"},
		{[]string{"demo", "-x"}, 2, "-x"},
		{[]string{"demo", "-keyvet", "/nowhere/keyvet"}, 1, "-keyvet"},
	} {
		var out strings.Builder
		if status := command(t.Context(), tt.args, &out, &out); status != tt.status || !strings.Contains(out.String(), tt.says) {
			t.Errorf("keyvet-lab %q: exit %d, want %d with %q\n%s", tt.args, status, tt.status, tt.says, &out)
		}
	}
}
