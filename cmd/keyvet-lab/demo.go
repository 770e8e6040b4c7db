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

	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

//go:embed weak/debian-2048.key
var debianWeakKey []byte

// actTimeout bounds one act.
const actTimeout = time.Minute

// act is one part of the demonstration, and the device that it is about.
type act struct {
	thing, title string
	play         func(ctx context.Context, s *stage, thing string) error
}

var acts = []act{
	{"device-healthy", "A healthy device: P-256 key, clean TPM", vetting{}.play},
	{"device-roca", bad["roca"].title, bad["roca"].play},
	{"device-debian", bad["debian"].title, bad["debian"].play},
	{"device-firmware", bad["firmware"].title, bad["firmware"].play},
	{"device-debian", "Device 3 again: a job tells it to make a new key", rotation{}.play},
	{"device-healthy", "Device 1 again: the same job, but AWS IoT refuses to activate the new certificate", rotation{localiot.Faults{ProvisionRejected: true}, "KEYVET_ROTATE_NOT_ACTIVATED"}.play},
	{"device-new", "A new device, which has a claim certificate and nothing else", provision},
}

// bad has what can be wrong with a device.
var bad = map[string]vetting{
	"roca":     {"A ROCA key was imported into the TPM, persistent at 0x81000100", importROCAKey, "roca", device.ReasonROCA},
	"debian":   {"The device certificate is on a Debian-weak RSA-2048 key", enrolDebianKey, "debian", device.ReasonDebian},
	"firmware": {"The TPM is an Infineon SLB9670 with firmware 7.61", pretendInfineon, "firmware", device.ReasonROCA},
}

// stage is where all acts are played.
type stage struct {
	cloud        *localiot.Server
	dir, program string
	print        printer
}

// printer shows a text, in the style of what shows it.
type printer func(text func(terminal.Style) string)

func printerOn(out io.Writer) printer {
	style := terminal.Of(out)
	return func(text func(terminal.Style) string) { io.WriteString(out, text(style)) }
}

// device makes the device of that name, or starts it again.
func (s *stage) device(ctx context.Context, thing string, claim bool) (*labDevice, error) {
	return newDevice(ctx, s.cloud, filepath.Join(s.dir, thing), thing, claim)
}

func (s *stage) say(format string, args ...any) {
	s.print(func(t terminal.Style) string { return t.Under(fmt.Sprintf(format, args...)) })
}

// show shows how a device is by its report.
func (s *stage) show(d *labDevice, r *device.Report) {
	var found []device.Finding
	for _, f := range r.Findings {
		if f.Status == device.Fail {
			found = append(found, f)
		}
	}
	state := "gate " + d.gate() + "; " + describe(r)
	s.print(func(t terminal.Style) string { return t.Device(r.Verdict(), d.thing, state, found) })
}

// unexpected says what did not go as it must. What a program said follows as it is.
func (s *stage) unexpected(thing string, err error) {
	why, said, more := strings.Cut(err.Error(), "\n")
	if more {
		said += "\n"
	}
	s.print(func(t terminal.Style) string { return t.Device(device.Fail, thing, "UNEXPECTED: "+why, nil) + said })
}

// vetting is one run of the agent on a device that is as it must be, or is not.
type vetting struct {
	title  string
	spoil  func(*labDevice, *localiot.Server) (cleanup func(), err error) // nil: a healthy device
	fails  string                                                         // the check that has to fail; "" means all pass
	reason device.ReasonCode
}

func importROCAKey(d *labDevice, _ *localiot.Server) (func(), error) {
	if !d.fresh {
		return func() {}, nil
	}
	return func() {}, tpmtest.ImportRSA(d.tpm.Address(), tpmtest.ROCAKey("demo"), 0x81000100)
}

func enrolDebianKey(d *labDevice, cloud *localiot.Server) (func(), error) {
	if !d.fresh {
		return func() {}, nil
	}
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

// neighbour is a program of PATH, or else the one beside this one.
func neighbour(name string) (string, error) {
	path, err := exec.LookPath(name)
	if self, selfErr := os.Executable(); err != nil && selfErr == nil && filepath.Base(name) == name {
		if beside, besideErr := exec.LookPath(filepath.Join(filepath.Dir(self), name)); besideErr == nil {
			return beside, nil
		}
	}
	return path, err
}

// errUnexpected is of a demonstration that says itself what went wrong.
var errUnexpected = errors.New("not as expected")

// demo plays every act and fails unless each ended as it has to.
func demo(ctx context.Context, program string, print printer) error {
	program, err := neighbour(program)
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
	s := &stage{cloud, dir, program, print}
	print(func(t terminal.Style) string {
		return t.Text(fmt.Sprintf("A local AWS IoT endpoint listens at %s; every device has a TPM (swtpm) of its own.", cloud.Endpoint()))
	})
	var wrong []string
	for i, a := range acts {
		print(func(t terminal.Style) string { return "\n" + t.Text(fmt.Sprintf("%d. %s", i+1, a.title)) })
		if err := s.play(ctx, a); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			s.unexpected(a.thing, err)
			wrong = append(wrong, fmt.Sprintf("%d (%s)", i+1, a.thing))
		}
	}
	if len(wrong) > 0 {
		print(func(t terminal.Style) string {
			return "\n" + t.Verdict(device.Fail, fmt.Sprintf("%d of %d not as expected: %s", len(wrong), len(acts), strings.Join(wrong, ", ")))
		})
		return errUnexpected
	}
	took := time.Since(start).Seconds()
	print(func(t terminal.Style) string {
		return "\n" + t.Verdict(device.Pass, fmt.Sprintf("all %d as expected, in %.0f s: good keys are trusted, weak ones are not, and a device without a good key gets one", len(acts), took))
	})
	return nil
}

func (s *stage) play(ctx context.Context, a act) error {
	ctx, cancel := context.WithTimeout(ctx, actTimeout)
	defer cancel()
	return a.play(ctx, s, a.thing)
}

func (v vetting) play(ctx context.Context, s *stage, thing string) error {
	d, err := s.device(ctx, thing, false)
	if err != nil {
		return err
	}
	defer d.tpm.Stop()
	if v.spoil != nil {
		cleanup, err := v.spoil(d, s.cloud)
		if err != nil {
			return err
		}
		defer cleanup()
	}
	report, exit, err := s.runOnce(ctx, d)
	if err != nil {
		return err
	}
	return v.asItHasToBe(report, exit, d.trusted())
}

// runOnce runs the agent until its gate is decided, and returns the report that
// the endpoint got.
func (s *stage) runOnce(ctx context.Context, d *labDevice) (*device.Report, int, error) {
	cmd := exec.CommandContext(ctx, s.program, "run", "-once", "-config", d.config)
	said, err := cmd.CombinedOutput()
	exit := cmd.ProcessState.ExitCode()
	if exit < 0 {
		return nil, exit, fmt.Errorf("keyvet run: %w", err)
	}
	report, err := s.delivered(d.thing)
	if err != nil {
		return nil, exit, fmt.Errorf("%w\n%s", err, indent(string(said)))
	}
	s.show(d, report)
	if report.Evidence == nil {
		return nil, exit, fmt.Errorf("the TPM did not sign the report\n%s", indent(string(said)))
	}
	return report, exit, nil
}

// delivered is the report that the thing's shadow names. An earlier one, which
// waited for a connection, may have come after it.
func (s *stage) delivered(thing string) (*device.Report, error) {
	var state struct {
		Reported struct {
			ReportID string `json:"reportId"`
		} `json:"reported"`
	}
	if err := json.Unmarshal(s.cloud.Shadow(thing, "keyvet"), &state); err != nil {
		return nil, fmt.Errorf("the shadow of %s: %w", thing, err)
	}
	for _, m := range s.cloud.Messages("keyvet/" + thing + "/report") {
		r := new(device.Report)
		if err := json.Unmarshal(m.Payload, r); err != nil {
			return nil, err
		}
		if r.ID == state.Reported.ReportID {
			return r, nil
		}
	}
	return nil, errors.New("the endpoint got no report that the shadow names")
}

func (v vetting) asItHasToBe(r *device.Report, exit int, trusted bool) error {
	if v.fails == "" {
		if !r.Verdict().Opens() || exit != 0 || !trusted {
			return fmt.Errorf("verdict %s, exit %d, trusted %v", r.Verdict(), exit, trusted)
		}
		return nil
	}
	failed := slices.ContainsFunc(r.Findings, func(f device.Finding) bool {
		return f.Status == device.Fail && f.Check == v.fails && f.ReasonCode == v.reason
	})
	if !failed || r.Verdict() != device.Fail || exit != 1 || trusted {
		return fmt.Errorf("%s failed: %v, verdict %s, exit %d, trusted %v", v.fails, failed, r.Verdict(), exit, trusted)
	}
	return nil
}

// describe is a report in one line.
func describe(r *device.Report) string {
	text := terminal.Count(len(r.Keys), "key", "keys")
	if r.TPM != nil {
		text += fmt.Sprintf(", TPM %s %s", r.TPM.Manufacturer, r.TPM.FirmwareVersion)
	}
	if r.Evidence != nil {
		text += ", the report is signed by the TPM"
	}
	return text
}

// summary is a report, as it came over the wire, in one line.
func summary(payload []byte) string {
	r := new(device.Report)
	if err := json.Unmarshal(payload, r); err != nil {
		return err.Error()
	}
	return r.Verdict().String() + "  " + r.ThingName + ": " + describe(r) + " " + strings.Join(r.ReasonCodes(), " ")
}

func indent(text string) string {
	return "   | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n   | ")
}
