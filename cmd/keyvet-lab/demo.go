package main

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

//go:embed weak/debian-2048.key
var debianWeakKey []byte

// runTimeout bounds one run of the agent.
const runTimeout = time.Minute

// scenario is one device of the demonstration.
type scenario struct {
	thing  string
	title  string
	spoil  func(*labDevice, *localiot.Server) (cleanup func(), err error) // nil: a healthy device
	fails  string                                                         // the check that has to fail; "" means all pass
	reason device.ReasonCode
}

var scenarios = []scenario{
	{"device-healthy", "A healthy device: P-256 key, clean TPM", nil, "", ""},
	{"device-roca", "A ROCA key was imported into the TPM, persistent at 0x81000100", importROCAKey, "roca", device.ReasonROCA},
	{"device-debian", "The device certificate is on a Debian-weak RSA-2048 key", enrolDebianKey, "debian", device.ReasonDebian},
	{"device-firmware", "The TPM is an Infineon SLB9670 with firmware 7.61", pretendInfineon, "firmware", device.ReasonROCA},
}

func importROCAKey(d *labDevice, _ *localiot.Server) (func(), error) {
	return func() {}, tpmtest.ImportRSA(d.tpm.Address(), tpmtest.ROCAKey("demo"), 0x81000100)
}

func enrolDebianKey(d *labDevice, cloud *localiot.Server) (func(), error) {
	block, _ := pem.Decode(debianWeakKey)
	if block == nil {
		return nil, errors.New("the weak key is not PEM")
	}
	var key *rsa.PrivateKey
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return func() {}, d.enrol(cloud, key)
}

// pretendInfineon puts a proxy before the TPM that rewrites what
// TPM2_GetCapability answers.
func pretendInfineon(d *labDevice, cloud *localiot.Server) (func(), error) {
	pretend := tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}
	proxy, err := tpmtest.NewProxy(d.tpm.Address(), pretend.Rewrite)
	if err != nil {
		return nil, err
	}
	return func() { proxy.Close() }, d.writeConfig(cloud, proxy.Address())
}

// demo runs every scenario and fails unless each ended as it has to.
func demo(ctx context.Context, program string, out io.Writer) error {
	program, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%w (name the program with -keyvet)", err)
	}
	dir, err := os.MkdirTemp("", "keyvet-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cloud, err := localiot.Start(localiot.Options{Dir: filepath.Join(dir, "cloud")})
	if err != nil {
		return err
	}
	defer cloud.Close()
	start := time.Now()
	fmt.Fprintf(out, "A local AWS IoT endpoint listens at %s; every device has a TPM (swtpm) of its own.\n", cloud.Endpoint())

	var wrong []string
	for i, sc := range scenarios {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, sc.title)
		if err := sc.run(ctx, cloud, dir, program, out); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			fmt.Fprintf(out, "   NOT AS IT HAS TO BE: %v\n", err)
			wrong = append(wrong, sc.thing)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as it has to be: %s", strings.Join(wrong, ", "))
	}
	fmt.Fprintf(out, "\nAll %d ended as they have to, in %.0f s: the healthy device is trusted, no weak one is.\n", len(scenarios), time.Since(start).Seconds())
	return nil
}

func (sc scenario) run(ctx context.Context, cloud *localiot.Server, dir, program string, out io.Writer) error {
	d, err := newDevice(ctx, cloud, filepath.Join(dir, sc.thing), sc.thing, false)
	if err != nil {
		return err
	}
	defer d.tpm.Stop()
	if sc.spoil != nil {
		cleanup, err := sc.spoil(d, cloud)
		if err != nil {
			return err
		}
		defer cleanup()
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "run", "-once", "-config", d.config)
	said, err := cmd.CombinedOutput()
	exit := cmd.ProcessState.ExitCode()
	if exit < 0 {
		return fmt.Errorf("keyvet run: %w", err)
	}
	report, err := sc.delivered(cloud)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, indent(string(said)))
	}
	gate := map[bool]string{true: "open", false: "shut"}[d.trusted()]
	fmt.Fprintf(out, "   keyvet run -once: exit %d, gate %s\n", exit, gate)
	fmt.Fprintf(out, "   AWS IoT got:      %s\n", describe(report))
	for _, f := range report.Findings {
		if f.Status == device.Fail {
			fmt.Fprintf(out, "   %s %s: %s\n      %s\n      %s\n", f.Status, f.Check, f.Key, f.ReasonCode, f.Message)
		}
	}
	if err := sc.asItHasToBe(report, exit, d.trusted()); err != nil {
		return fmt.Errorf("%w\n%s", err, indent(string(said)))
	}
	return nil
}

// delivered is the report that the endpoint got from the device.
func (sc scenario) delivered(cloud *localiot.Server) (*device.Report, error) {
	messages := cloud.Messages("keyvet/" + sc.thing + "/report")
	if len(messages) != 1 {
		return nil, fmt.Errorf("the endpoint got %d reports, not one", len(messages))
	}
	r := new(device.Report)
	if err := json.Unmarshal(messages[0].Payload, r); err != nil {
		return nil, err
	}
	return r, nil
}

func (sc scenario) asItHasToBe(r *device.Report, exit int, trusted bool) error {
	if r.Evidence == nil {
		return errors.New("the TPM did not sign the report")
	}
	if sc.fails == "" {
		if !r.Verdict().Opens() || exit != 0 || !trusted {
			return fmt.Errorf("verdict %s, exit %d, trusted %v", r.Verdict(), exit, trusted)
		}
		return nil
	}
	failed := slices.ContainsFunc(r.Findings, func(f device.Finding) bool {
		return f.Status == device.Fail && f.Check == sc.fails && f.ReasonCode == sc.reason
	})
	if !failed || r.Verdict() != device.Fail || exit != 1 || trusted {
		return fmt.Errorf("%s failed: %v, verdict %s, exit %d, trusted %v", sc.fails, failed, r.Verdict(), exit, trusted)
	}
	return nil
}

// describe is a report in one line.
func describe(r *device.Report) string {
	text := fmt.Sprintf("%s, %d keys", r.Verdict(), len(r.Keys))
	if r.TPM != nil {
		text += fmt.Sprintf(", TPM %s %s", r.TPM.Manufacturer, r.TPM.FirmwareVersion)
	}
	if r.Evidence != nil {
		text += ", signed by the TPM"
	}
	return text
}

// summary is a report, as it came over the wire, in one line.
func summary(payload []byte) string {
	r := new(device.Report)
	if err := json.Unmarshal(payload, r); err != nil {
		return err.Error()
	}
	return r.ThingName + ": " + describe(r) + " " + strings.Join(r.ReasonCodes(), " ")
}

func indent(text string) string {
	return "   | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n   | ")
}
