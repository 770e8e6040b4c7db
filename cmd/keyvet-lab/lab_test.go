package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
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
	screens := make(map[terminal.Style]*strings.Builder)
	for _, columns := range clitest.Columns {
		for _, color := range []bool{false, true} {
			screens[terminal.Style{Width: columns, Color: color, Marks: true}] = new(strings.Builder)
		}
	}
	err := demo(t.Context(), program, func(text func(terminal.Style) string) {
		out.WriteString(text(terminal.Style{}))
		for style, screen := range screens {
			screen.WriteString(text(style))
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for style, screen := range screens {
		if err := clitest.Hold("demo", style.Width, style.Color, screen.String()); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{
		"PASS  device-healthy  gate open; 8 keys, ", "signed by the TPM", device.ReasonROCA, device.ReasonDebian, "TPM IFX 7.61.2785.0",
		"      job keyvet.rotate SUCCEEDED\n", "      job keyvet.rotate FAILED\n", "      KEYVET_ROTATE_NOT_ACTIVATED\n", "thing device-new, one active",
		"\nPASS: all 7 as expected",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demonstration does not say %q:\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "gate shut"); n != 3 {
		t.Errorf("%d gates shut, want three", n)
	}
	if n := strings.Count(out.String(), "ECDSA-P256, made in the TPM"); n != 2 {
		t.Errorf("%d new keys in a TPM, want two", n)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "keyvet-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDemoTellsFailure runs an agent that passes everything: the lab must not
// be content with it.
func TestDemoTellsFailure(t *testing.T) {
	var out strings.Builder
	if status := command(t.Context(), []string{"demo", "-keyvet", "/bin/true"}, nil, &out, &out); status != 1 || strings.Count(out.String(), "UNEXPECTED") != len(acts) {
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
		status := command(ctx, []string{"up", "-thing", "gw"}, nil, w, w)
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
	run := exec.Command(filepath.Join(filepath.Dir(config), "keyvet-run"), "-once")
	run.Env = append(os.Environ(), "KEYVET="+program)
	out, err := run.CombinedOutput()
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

// TestBoot has a TPM measured into as that of a machine was whose PCRs are published.
func TestBoot(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	if err := measure(emulator.Address(), bootLog); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../keyvet-fleet/internal/bootlog/testdata/logs/rhel8-uefi.json")
	if err != nil {
		t.Fatal(err)
	}
	var published map[string]map[int]string
	if err := json.Unmarshal(b, &published); err != nil {
		t.Fatal(err)
	}
	answer, hangUp, err := tpmtest.Dial(emulator.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp()
	for pcr := range 8 {
		// TPM2_PCR_Read: one selection, of SHA-256.
		response, err := answer([]byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 1 << pcr, 0, 0})
		if err != nil {
			t.Fatal(err)
		}
		if value := response[len(response)-32:]; hex.EncodeToString(value) != published["sha256"][pcr] {
			t.Errorf("PCR %d is %x, want %s", pcr, value, published["sha256"][pcr])
		}
	}
	if err := measure(emulator.Address(), bootLog[:100]); err == nil {
		t.Error("half a log is measured")
	}
}

// keepUp runs "up" until the test ends and returns its directory and what it
// said at first.
func keepUp(t *testing.T, args ...string) (dir, said string) {
	t.Helper()
	dir, said, _ = keepUpTelling(t, args...)
	return dir, said
}

// keepUpTelling does, too, and passes on what it says of each report.
func keepUpTelling(t *testing.T, args ...string) (dir, said string, arrived <-chan string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	dir = filepath.Join(shortDir(t), "lab")
	r, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		status := command(ctx, append([]string{"up", "-dir", dir}, args...), nil, w, w)
		w.Close()
		ended <- status
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		said += lines.Text() + "\n"
	}
	reports := make(chan string, 100)
	go func() {
		for lines.Scan() {
			reports <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("up: exit %d", status)
		}
	})
	return dir, said, reports
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestRemote(t *testing.T) {
	dir, _ := keepUp(t, "-thing", "gw")
	t.Setenv("KEYVET_LAB", dir)
	info, err := os.Stat(controlPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	document := filepath.Join(dir, "document.json")
	if err := os.WriteFile(document, []byte(`{"own":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   string // parted by spaces
		stdin  string
		status int
		says   string
	}{
		{args: "things", says: "ACTIVE"},
		{args: "job list"},
		{args: "job create -id one gw other", says: "one\n"},
		{args: "job create -id one gw", status: 1, says: "already"},
		{args: "job create -id two -operation keyvet.rotate gw", says: "two\n"},
		{args: "job create -id three -string -retries 1 -document " + document + " gw", says: "three\n"},
		{args: "job create -id four -document - gw", stdin: `{"from":"stdin"}`, says: "four\n"},
		{args: "job create -id five -document - gw", stdin: `{`, status: 1, says: "JSON"},
		{args: "job create -document /nowhere gw", status: 1, says: "/nowhere"},
		{args: "job create gw", says: "job-"},
		{args: "job create", status: 2, says: "job create needs THING"},
		{args: "job list", says: "QUEUED"},
		{args: "job cancel one"},
		{args: "job cancel -force none", status: 1, says: "none"},
		{args: "job cancel one two", status: 2, says: "two"},
		{args: "job list", says: "CANCELED"},
		{args: "things", says: "other"},
		{args: "fault set -times 2 throttle slow=2s"},
		{args: "fault list", says: "throttle\nslow=2s\n"},
		{args: "fault clear"},
		{args: "fault list"},
		{args: "fault set thrttle", status: 1, says: "no fault"},
		{args: "shadow gw", status: 1, says: "no shadow"},
		{args: `shadow -update {"state":{"reported":{"a":1}}} gw`, says: `{"reported":{"a":1}}`},
		{args: `shadow -update {} gw`, status: 1, says: "400"},
		{args: "report gw", status: 1, says: "gw has sent no report"},
		{args: "report", status: 2, says: "report needs THING"},
		{args: "challenge gw /nowhere", status: 1, says: "/nowhere"},
		{args: "challenge gw", status: 2, says: "FILE"},
		{args: "check gw"},
		{args: "shadow gw", says: `"desired":{"check":"`},
		{args: "check a/b", status: 1, says: "a/b"},
		{args: "things -dir /nowhere", status: 1, says: "no lab is up in /nowhere"},
		{args: "things x", status: 2, says: "x"},
		{args: "things -dir=", status: 1, says: "KEYVET_LAB"},
		{args: "job", status: 2, says: "needs a second word"},
		{args: "job drop", status: 2, says: "unknown command"},
		{args: "job list -json", says: `"job": "one"`},
		{args: "things -json", says: `"name": "other"`},
		{args: "fault list -json", says: "["},
	} {
		var out strings.Builder
		if status := command(t.Context(), strings.Fields(tt.args), strings.NewReader(tt.stdin), &out, &out); status != tt.status || !strings.Contains(out.String(), tt.says) {
			t.Errorf("keyvet-lab %s: exit %d, want %d with %q\n%s", tt.args, status, tt.status, tt.says, &out)
		}
		if tt.says == "" && tt.args != "check gw" && out.String() != "" {
			t.Errorf("keyvet-lab %s says %q", tt.args, &out)
		}
	}
	clitest.Commands(t, program, [][2]string{
		{"things", "things"},
		{"job-list", "job list"},
		{"job-create", "job create gw"}, // four in a second
		{"job-create-exists", "job create -id two gw"},
		{"job-cancel", "job cancel -force none"},
		{"fault-list", "fault list"},
		{"fault-set", "fault set thrttle"},
		{"fault-clear", "fault clear"},
		{"shadow", "shadow gw"},
		{"shadow-none", "shadow other"},
		{"check", "check gw"},
		{"report-none", "report gw"},
		{"challenge-missing", "challenge gw none.json"},
		{"things-no-lab", "things -dir /nowhere"},
		{"version", "version"},
	})
}

// TestUpBad has a device that fails and stays up, its report, and its TPM's answer
// to a challenge of the fleet's.
func TestUpBad(t *testing.T) {
	keyvet, fleet := buildKeyvet(t), filepath.Join(t.TempDir(), "keyvet-fleet")
	if out, err := exec.Command("go", "build", "-o", fleet, "../keyvet-fleet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir, said, arrived := keepUpTelling(t, "-thing", "gw", "-bad", "roca")
	t.Setenv("KEYVET_LAB", dir)
	if !strings.Contains(said, "state     a ROCA key was imported") {
		t.Errorf("it says:\n%s", said)
	}
	config := filepath.Join(dir, "gw", "keyvet.toml")
	service := exec.Command(keyvet, "run", "-config", config)
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer service.Wait()
	defer service.Process.Signal(os.Interrupt)
	if said := <-arrived; !strings.Contains(said, "FAIL") {
		t.Errorf("the report that arrived: %s", said)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	lab := func(args ...string) {
		t.Helper()
		var out strings.Builder
		if status := command(t.Context(), args, nil, &out, &out); status != 0 {
			t.Fatalf("keyvet-lab %q: exit %d\n%s", args, status, &out)
		}
	}
	lab("report", "gw", "-out", file("report.json"))
	r := new(device.Report)
	if b, err := os.ReadFile(file("report.json")); err != nil || json.Unmarshal(b, r) != nil || r.Verdict() != device.Fail || r.Evidence == nil {
		t.Errorf("the report: %v, %+v", err, r)
	}
	challenge, err := exec.Command(fleet, "challenge", "-keep", file("kept"), file("report.json")).Output()
	if err == nil {
		err = os.WriteFile(file("challenge.json"), challenge, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	lab("challenge", "gw", file("challenge.json"), "-out", file("answer.json"))
	other := regexp.MustCompile(`"ekSpkiSha256":"\w+"`).ReplaceAll(challenge, []byte(`"ekSpkiSha256":"`+strings.Repeat("0f", 32)+`"`))
	if err := os.WriteFile(file("other.json"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	clitest.Commands(t, program, [][2]string{
		{"report", "report gw"},
		{"challenge", "challenge gw " + file("challenge.json")},
		{"challenge-other", "challenge gw " + file("other.json")},
	})
	out, err := exec.Command(fleet, "answer", "-kept", file("kept"), file("report.json"), file("answer.json")).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "roca on tpm-0x81000100") {
		t.Errorf("keyvet-fleet answer: %v\n%s", err, out)
	}
}

// TestBad puts each kind up; what is there already is left as it is.
func TestBad(t *testing.T) {
	program := buildKeyvet(t)
	for kind, v := range bad {
		t.Run(kind, func(t *testing.T) {
			dir, _ := keepUp(t, "-thing", "gw", "-bad", kind)
			r := new(device.Report)
			out, err := exec.Command(program, "check", "-json", "-config", filepath.Join(dir, "gw", "keyvet.toml")).Output()
			if jsonErr := json.Unmarshal(out, r); jsonErr != nil || err == nil || !slices.Contains(r.ReasonCodes(), string(v.reason)) {
				t.Errorf("%v, %v, %v", err, jsonErr, r.ReasonCodes())
			}
		})
	}
}

func TestUpClaim(t *testing.T) {
	dir, said := keepUp(t, "-thing", "gw", "-claim", "-addr", "127.0.0.1:0", "-quotas", "-jitr")
	config, err := os.ReadFile(filepath.Join(dir, "gw", "keyvet.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[rotate]\nissuer = \"fleet-provisioning\"\ntemplate = \"keyvet\"\n", `template = "keyvet"`, `parameters = { ThingName = "gw" }`, `claim_key = "` + dir, `endpoints = ["127.0.0.1:`} {
		if !strings.Contains(string(config), want) {
			t.Errorf("the configuration does not say %s:\n%s", want, config)
		}
	}
	if !strings.Contains(said, "endpoint  127.0.0.1:") {
		t.Errorf("it says:\n%s", said)
	}
	if _, err := os.Stat(filepath.Join(dir, "gw", "state", "identity")); !os.IsNotExist(err) {
		t.Errorf("an identity beside the claim: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "gw", "claim", "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestUpRefuses has each thing that cannot be up refused at once, with what to do.
func TestUpRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"-thing a/b": "-thing: thing name \"a/b\" is not 1 to 128",
		"-thing=":    "-thing: thing name \"\" is not 1 to 128",
		"-bad luck":  "give roca, debian or firmware",
		"-addr x":    "not host:port",
		"-dir " + filepath.Join(t.TempDir(), strings.Repeat("a", 100)): "too long for a socket, which has at most 107 bytes: give a shorter -dir",
	} {
		var out strings.Builder
		if status := command(t.Context(), append([]string{"up"}, strings.Fields(args)...), nil, &out, &out); status != 1 || !strings.Contains(out.String(), want) {
			t.Errorf("up %s: exit %d, want %q\n%s", args, status, want, &out)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if status := command(ctx, []string{"up"}, nil, &out, &out); status != 1 || out.String() != "keyvet-lab: interrupted\n" {
		t.Errorf("interrupted: exit %d\n%s", status, &out)
	}
}

// TestUpScreen keeps what up shows, until a report arrives.
func TestUpScreen(t *testing.T) {
	dir, program := clitest.Folder(t), buildKeyvet(t)
	for name, args := range map[string][]string{"up": {"-thing", "gw"}, "up-bad": {"-thing", "bad", "-bad", "roca"}, "up-wrong": {"-bad", "luck"}} {
		err := clitest.Screens(name, func(tty *clitest.Terminal) {
			for name, value := range tty.Env {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan int)
			go func() {
				ended <- command(ctx, append([]string{"up", "-dir", dir}, args...), nil, tty.File, tty.File)
			}()
			if name != "up-wrong" {
				tty.Wait("Ctrl-C")
				run := exec.Command(program, "run", "-once", "-config", filepath.Join(dir, args[1], "keyvet.toml"))
				if out, err := run.CombinedOutput(); (err == nil) != (name == "up") {
					t.Errorf("%v\n%s", err, out)
				}
				tty.Wait(" " + args[1] + ": ")
				cancel()
			}
			<-ended
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// What was up once is up again with the same things, identity and TPM.
func TestUpAgain(t *testing.T) {
	program := buildKeyvet(t)
	dir := filepath.Join(shortDir(t), "lab")
	var before []byte
	var tpmBefore string
	for i := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		var keys *device.Report
		go func() {
			for lines := bufio.NewScanner(r); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "Ctrl-C") {
					keys = checked(t, program, filepath.Join(dir, "gw", "keyvet.toml"))
					cancel()
				}
			}
		}()
		if status := command(ctx, []string{"up", "-dir", dir, "-thing", "gw"}, nil, w, w); status != 0 {
			t.Fatalf("exit %d", status)
		}
		w.Close()
		cancel()
		now, err := os.ReadFile(filepath.Join(dir, "gw", "state", "identity", "certificate.pem"))
		if err != nil || i > 0 && string(now) != string(before) {
			t.Errorf("another certificate: %v", err)
		}
		ek := endorsementKeys(keys)
		if ek == "" || i > 0 && ek != tpmBefore {
			t.Errorf("another TPM: %q, before %q", ek, tpmBefore)
		}
		before, tpmBefore = now, ek
	}
}

// checked is what the program reports of a device.
func checked(t *testing.T, program, config string) *device.Report {
	r := new(device.Report)
	out, err := exec.Command(program, "check", "-json", "-config", config).Output()
	if err == nil {
		err = json.Unmarshal(out, r)
	}
	if err != nil {
		t.Errorf("keyvet check: %v", err)
	}
	return r
}

func endorsementKeys(r *device.Report) string {
	var all string
	for _, k := range r.Keys {
		if k.Role == device.RoleEK {
			all += k.SPKISHA256 + " "
		}
	}
	return all
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
		{[]string{"demo", "x"}, 2, "takes no arguments"},
		{[]string{"--version"}, 0, "keyvet-lab "},
		{[]string{"up", "-addr", "nowhere"}, 1, "host:port"},
		{[]string{"up", "-bad", "luck"}, 1, "give roca, debian or firmware"},
		{[]string{"up", "-bad", "debian", "-claim"}, 1, "leave out -claim"},
		{[]string{"help", "fault", "set"}, 0, "deactivated-at-use"},
		{[]string{"demo", "-x"}, 2, "-x"},
		{[]string{"demo", "-keyvet", "/nowhere/keyvet"}, 1, "-keyvet"},
	} {
		var out strings.Builder
		if status := command(t.Context(), tt.args, nil, &out, &out); status != tt.status || !strings.Contains(out.String(), tt.says) {
			t.Errorf("keyvet-lab %q: exit %d, want %d with %q\n%s", tt.args, status, tt.status, tt.says, &out)
		}
	}
}
