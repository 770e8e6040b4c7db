package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func TestMain(m *testing.M) {
	config.Root = "/nonexistent" // the machine's own is none of a test's business
	// Scripts mostly wait, for a device that goes its own pace.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"keyvet": main, "keyvet-cut": cutMain, "keyvet-small": smallMain, "keyvet-below": belowMain})
}

// belowMain is keyvet on a machine whose root is the folder KEYVET_BELOW.
func belowMain() {
	config.Root = os.Getenv("KEYVET_BELOW")
	main()
}

// unshare are the words of a command that gives another mounts of its own.
func unshare() []string {
	if os.Getuid() == 0 {
		return []string{"unshare", "-m"}
	}
	return []string{"unshare", "-rm"}
}

// TestScripts runs the program, built as it is shipped, against a real TPM emulator and a real
// broker, as testdata/script tells.
func TestScripts(t *testing.T) {
	hosts := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", hosts, "../keyvet-fleet", "./internal/image").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shipped := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(shipped, "keyvet-blocklist"), "-tags", "keyvet_noblocklist", "../keyvet-blocklist").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	build(t, filepath.Join(shipped, "keyvet"), runtime.GOARCH, "-X github.com/keyvet/keyvet/cmd/keyvet/internal/config.Root="+config.Root)
	testscript.Run(t, testscript.Params{
		Dir: scripts,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", shipped+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("FLEET", filepath.Join(hosts, "keyvet-fleet"))
			env.Setenv("IMAGE", filepath.Join(hosts, "image"))
			env.Setenv("UNSHARE", unshare()[1])
			env.Values["desk"] = &desk{}
			lists, err := filepath.Abs("../../blocklist")
			env.Setenv("KVF", filepath.Join(lists, "embedded.kvf"))
			env.Setenv("FURTHER", filepath.Join(lists, "further.kvf"))
			env.Defer(func() { env.Values["desk"].(*desk).close() })
			return err
		},
		Condition: func(name string) (bool, error) {
			if name != "mounts" {
				return false, fmt.Errorf("no condition %s", name)
			}
			words := append(unshare(), "true")
			return exec.Command(words[0], words[1:]...).Run() == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit":   exitCommand,
			"tpm":    tpmCommand,
			"cloud":  cloudCommand,
			"fleet":  fleetCommand,
			"device": deviceCommand,
			"claim":  claimCommand,
			"flip":   flipCommand,
			"big":    bigCommand,
			"await":  awaitCommand,
			"screen": screenCommand,
		},
	})
}

// desk is what one script has put up.
type desk struct {
	tpm   *tpmtest.SWTPM
	proxy *tpmtest.Proxy
	cloud *localiot.Server
	port  *mqtttest.Port // of the cloud
}

func (d *desk) close() {
	if d.proxy != nil {
		d.proxy.Close()
	}
	if d.tpm != nil {
		d.tpm.Stop()
	}
	if d.cloud != nil {
		d.cloud.Close()
	}
	if d.port != nil {
		d.port.Release()
	}
}

func deskOf(ts *testscript.TestScript) *desk { return ts.Value("desk").(*desk) }

// exitCommand runs a command and holds it to its exit status: exit N COMMAND
// ARGS... Of keyvet check, one line on standard error is asked where it is
// undecided, or wrong usage.
func exitCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	// Wrong usage is one line; what could not be checked stands in the text.
	if lines := strings.Count(ts.ReadFile("stderr"), "\n"); args[2] == "check" && want >= cli.Usage && lines != map[bool]int{true: 1}[want == cli.Usage] {
		ts.Fatalf("%d lines on standard error", lines)
	}
}

// tpmCommand: tpm start [1.2] | pause | resume | stop | reset | clear | import-roca HANDLE |
// pretend-infineon | cancel-rsa | without ecc | without rsa | interpose [hide-ak | hide-all-keys | COMMAND RESPONSE] | create-key ALGORITHM FILE. The address is in $TPM, and
// where openssl and tpm2-tools look for it.
func tpmCommand(ts *testscript.TestScript, _ bool, args []string) {
	d := deskOf(ts)
	var err error
	switch args[0] {
	case "start":
		d.tpm, err = tpmtest.Start(context.Background(), tpmtest.Options{TPM12: slices.Contains(args, "1.2")})
		ts.Check(err)
		ts.Setenv("TPM", d.tpm.Address())
		roots := ts.MkAbs("ek-roots")
		ts.Check(os.MkdirAll(roots, 0o700))
		for i, file := range d.tpm.CAFiles() {
			b, readErr := os.ReadFile(file)
			ts.Check(readErr)
			ts.Check(os.WriteFile(filepath.Join(roots, strconv.Itoa(i)+".pem"), b, 0o600))
		}
		ts.Setenv("TPM2TOOLS_TCTI", d.tpm.TCTI())
		ts.Setenv("TPM2OPENSSL_TCTI", d.tpm.TCTI())
	case "create-key":
		c, openErr := tpm.Open(d.tpm.Address(), tpm.Options{})
		ts.Check(openErr)
		defer c.Close()
		blob, createErr := c.CreateKey(args[1])
		ts.Check(createErr)
		err = os.WriteFile(ts.MkAbs(args[2]), blob.PEM(), 0o600)
	case "reset":
		ts.Check(ts.Exec("swtpm_ioctl", "--unix", strings.TrimPrefix(d.tpm.Address(), "unix:")+".ctrl", "-i"))
		err = ts.Exec("tpm2_startup", "-c")
	case "clear":
		err = ts.Exec("tpm2_clear", "-c", "platform")
	case "pause":
		err = d.tpm.Pause()
	case "resume":
		err = d.tpm.Resume()
	case "stop":
		err = d.tpm.Stop()
	case "import-roca":
		handle, parseErr := strconv.ParseUint(args[1], 0, 32)
		ts.Check(parseErr)
		err = tpmtest.ImportRSA(d.tpm.Address(), tpmtest.ROCAKey("script"), uint32(handle))
	case "pretend-infineon":
		pretend := tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}
		d.proxy, err = tpmtest.NewProxy(d.tpm.Address(), pretend.Rewrite)
		ts.Check(err)
		ts.Setenv("TPM", d.proxy.Address())
	case "cancel-rsa": // this time
		d.proxy, err = tpmtest.NewInterposer(d.tpm.Address(), tpmtest.CancelRSA, func(_, response []byte) []byte { return response })
		ts.Check(err)
		ts.Setenv("TPM", d.proxy.Address())
	case "without": // an algorithm: one that it neither makes keys of nor lists
		lacks := tpmtest.Lacks{Algorithm: tpmtest.ECC, Code: 0x2ca}
		if args[1] == "rsa" {
			lacks = tpmtest.Lacks{Algorithm: tpmtest.RSA, Code: 0x2c1}
		}
		d.proxy, err = tpmtest.NewInterposer(d.tpm.Address(), lacks.Refuse, lacks.Rewrite)
		ts.Check(err)
		ts.Setenv("TPM", d.proxy.Address())
	case "interpose": // somebody on the bus, who states a version that no advisory affects
		if d.proxy != nil {
			ts.Check(d.proxy.Close())
		}
		d.proxy, err = interpose(d.tpm.Address(), args[1:])
		ts.Check(err)
		ts.Setenv("TPM", d.proxy.Address())
	default:
		ts.Fatalf("tpm %s?", args[0])
	}
	ts.Check(err)
}

// interpose is a proxy that states a false firmware version and refuses what
// words say: commands by their code, with a response code.
func interpose(backend string, words []string) (*tpmtest.Proxy, error) {
	lie := tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x00070055_0011cb00}
	var refuse tpmtest.Refuse
	switch strings.Join(words, " ") {
	case "":
	case "hide-ak":
		refuse = tpmtest.HideAK
	case "hide-all-keys":
		refuse = tpmtest.HideAllKeys
	default:
		command, err := strconv.ParseUint(words[0], 0, 32)
		if err != nil {
			return nil, err
		}
		response, err := strconv.ParseUint(words[1], 0, 32)
		if err != nil {
			return nil, err
		}
		refuse = tpmtest.RefuseCommand(uint32(command), uint32(response))
	}
	return tpmtest.NewInterposer(backend, refuse, lie.Rewrite)
}

// cloudCommand: cloud start [1.2] [jitr] | stop | tls VERSION | drop-accepted | answer | deactivate DIR |
// fault NAME ... | no-fault | certificates THING STATUS ... | things NAME ... | apart THINGS | reports THING [VERDICT ...] | last THING FILE | shadow THING NAME=VALUE ... |
// await-shadow THING NAME=VALUE ... | desire THING UPDATE | job ID THING DOCUMENT | cancel ID | forget ID |
// await-job ID THING STATUS [step=STEP] [NAME=PART ...]. Endpoint and CA file are in $ENDPOINT and
// $CLOUD_CA; a stopped cloud starts again where it was.
func cloudCommand(ts *testscript.TestScript, _ bool, args []string) {
	d := deskOf(ts)
	switch args[0] {
	case "start":
		var err error
		if d.port == nil {
			d.port, err = mqtttest.HoldPort()
			ts.Check(err)
		}
		options := localiot.Options{Dir: ts.MkAbs("cloud"), Addr: d.port.Addr}
		for _, option := range args[1:] {
			switch option {
			case "1.2":
				options.MaxVersion = tls.VersionTLS12
			case "jitr":
				options.JITR = true
			}
		}
		d.cloud, err = localiot.Start(options)
		ts.Check(err)
		ts.Setenv("ENDPOINT", d.cloud.Endpoint())
		ts.Setenv("CLOUD_CA", d.cloud.CAFile())
	case "stop":
		ts.Check(d.cloud.Close())
		d.cloud = nil
	case "tls":
		seen := d.cloud.Connections()
		if last := seen[len(seen)-1]; tls.VersionName(last.TLSVersion) != "TLS "+args[1] || last.Refused != "" {
			ts.Fatalf("the last connection was by %s, refused: %q", tls.VersionName(last.TLSVersion), last.Refused)
		}
	case "drop-accepted":
		d.cloud.SetFaults(localiot.Faults{DropAccepted: true})
	case "answer":
		d.cloud.SetFaults(localiot.Faults{})
	case "deactivate":
		block, _ := pem.Decode([]byte(ts.ReadFile(args[1] + "/state/identity/certificate.pem")))
		ts.Check(d.cloud.Deactivate(localiot.CertificateID(block.Bytes)))
	case "reports":
		var got []string
		for _, m := range d.cloud.Messages("keyvet/" + args[1] + "/report") {
			r := new(device.Report)
			ts.Check(json.Unmarshal(m.Payload, r))
			got = append(got, r.Verdict().String())
		}
		if want := strings.Join(args[2:], " "); strings.Join(got, " ") != want {
			ts.Fatalf("the cloud got reports %v, want %s", got, want)
		}
	case "shadow":
		if !shadowReports(d.cloud.Shadow(args[1], "keyvet"), args[2:]) {
			ts.Fatalf("the shadow is %s, want %v", d.cloud.Shadow(args[1], "keyvet"), args[2:])
		}
	case "last":
		sent := d.cloud.Messages("keyvet/" + args[1] + "/report")
		if len(sent) == 0 {
			ts.Fatalf("the cloud got no report")
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[2]), sent[len(sent)-1].Payload, 0o600))
	case "await-shadow":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ts.Check(d.cloud.WaitShadow(ctx, args[1], "keyvet", func(state []byte) bool { return shadowReports(state, args[2:]) }))
	case "desire":
		ts.Check(d.cloud.UpdateShadow(args[1], "keyvet", []byte(args[2])))
	case "fault":
		faults := d.cloud.Faults()
		for _, name := range args[1:] {
			ts.Check(faults.Set(name))
		}
		d.cloud.SetFaults(faults)
	case "no-fault":
		d.cloud.SetFaults(localiot.Faults{})
	case "certificates": // of a thing, by status
		var got []string
		for _, c := range d.cloud.Certificates(args[1]) {
			got = append(got, string(c.Status))
		}
		if want := strings.Join(args[2:], " "); strings.Join(got, " ") != want {
			ts.Fatalf("%s has certificates %v, want %s", args[1], got, want)
		}
	case "things":
		if got, want := strings.Join(d.cloud.Things(), " "), strings.Join(args[1:], " "); got != want {
			ts.Fatalf("things %s, want %s", got, want)
		}
	case "apart": // so many things, each of which has one certificate
		things := d.cloud.Things()
		if got := strconv.Itoa(len(things)); got != args[1] {
			ts.Fatalf("%s things, %v, want %s", got, things, args[1])
		}
		for _, thing := range things {
			if c := d.cloud.Certificates(thing); len(c) != 1 || c[0].Status != localiot.Active {
				ts.Fatalf("%s has certificates %v, want an active one", thing, c)
			}
		}
	case "job":
		ts.Check(d.cloud.CreateJob(localiot.Job{ID: args[1], Things: []string{args[2]}, Document: json.RawMessage(args[3])}))
	case "await-job":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e, err := d.cloud.WaitExecution(ctx, args[1], args[2], func(e localiot.Execution) bool {
			return e.Ended() || e.Status == args[3] && e.StatusDetails["step"] == step(args[4:])
		})
		if err != nil || e.Status != args[3] {
			ts.Fatalf("job %s is %+v: %v", args[1], e, err)
		}
		for _, pair := range args[4:] {
			name, want, _ := strings.Cut(pair, "=")
			if got := e.StatusDetails[name]; !strings.Contains(got, want) {
				ts.Fatalf("job %s: %s is %q, want %q", args[1], name, got, want)
			}
		}
	case "cancel":
		ts.Check(d.cloud.CancelJob(args[1], true))
	case "forget":
		ts.Check(d.cloud.DeleteJob(args[1]))
	default:
		ts.Fatalf("cloud %s?", args[0])
	}
}

// step is the STEP of step=STEP, if that is the first of the pairs.
func step(pairs []string) string {
	if len(pairs) == 0 {
		return ""
	}
	name, _ := strings.CutPrefix(pairs[0], "step=")
	return name
}

// patience ends a script whose device hangs. It is no measure of the device: one
// that gives up on a silent cloud tries five times, which takes two minutes on
// an idle machine, after a pause of up to another for the failure before.
const patience = 10 * time.Minute

// shadowReports reports whether a shadow reports each NAME=VALUE.
func shadowReports(shadow []byte, pairs []string) bool {
	var doc struct{ Reported map[string]any }
	if json.Unmarshal(shadow, &doc) != nil {
		return false
	}
	for _, pair := range pairs {
		name, want, _ := strings.Cut(pair, "=")
		if fmt.Sprint(doc.Reported[name]) != want {
			return false
		}
	}
	return true
}

// fleetCommand is the fleet's side of a challenge, under the certificate of the
// thing itself: fleet THING CHALLENGE ANSWER publishes the one file and writes
// the answer to the other.
func fleetCommand(ts *testscript.TestScript, _ bool, args []string) {
	d, thing := deskOf(ts), args[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	chain, err := d.cloud.IssueCertificate(thing, key.Public())
	ts.Check(err)
	block, _ := pem.Decode(chain)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.cloud.CAPEM())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := mqtt.Dial(ctx, mqtt.Config{
		Endpoints: []string{d.cloud.Endpoint()}, ClientID: "fleet", Roots: roots, Attempts: 1,
		Certificate: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key},
	}, nil)
	ts.Check(err)
	defer s.Close()
	answer := make(chan []byte, 1)
	ts.Check(s.Subscribe(ctx, "keyvet/"+thing+"/challenge/answer", func(_ string, payload []byte) { answer <- payload }))
	ts.Check(d.cloud.WaitSubscriber(ctx, "keyvet/"+thing+"/challenge")) // a device shows its gate before it listens
	ts.Check(s.Publish(ctx, "keyvet/"+thing+"/challenge", []byte(ts.ReadFile(args[1]))))
	select {
	case payload := <-answer:
		ts.Check(os.WriteFile(ts.MkAbs(args[2]), payload, 0o600))
	case <-ctx.Done():
		ts.Fatalf("no answer to the challenge")
	}
}

// deviceCommand enrols a device in the directory of its name: device THING
// [KEYFILE | unregistered]. Its configuration is THING/keyvet.toml, to which more may be added.
// Of a public key alone it gets the certificate.
func deviceCommand(ts *testscript.TestScript, _ bool, args []string) {
	d, thing := deskOf(ts), args[0]
	dir := ts.MkAbs(thing)
	identity := filepath.Join(dir, "state", "identity")
	ts.Check(os.MkdirAll(identity, 0o700))
	issue := d.cloud.IssueCertificate
	if len(args) > 1 && args[1] == "unregistered" {
		issue, args = d.cloud.IssueUnregistered, args[:1]
	}
	public, private := deviceKey(ts, args[1:])
	chain, err := issue(thing, public)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(identity, "certificate.pem"), chain, 0o600))
	if private != nil {
		ts.Check(os.WriteFile(filepath.Join(identity, "key.pem"), private, 0o600))
	}
	ts.Check(os.WriteFile(filepath.Join(dir, "keyvet.toml"), d.configuration(ts, thing), 0o600))
}

// configuration is that of a device in the directory of its name.
func (d *desk) configuration(ts *testscript.TestScript, thing string) []byte {
	dir := ts.MkAbs(thing)
	return fmt.Appendf(nil, `state_dir = %q
run_dir = %q
thing.name = %q
tpm.address = %q
tpm.timeout = "10s"
identity.ca = [%q]
mqtt.endpoints = [%q]
mqtt.ca_file = %q
rotate.template = %q
`, filepath.Join(dir, "state"), filepath.Join(dir, "run"), thing, ts.Getenv("TPM"), d.cloud.CAFile(), d.cloud.Endpoint(), d.cloud.CAFile(), localiot.Template)
}

// claimCommand makes a device that has a claim alone: claim THING [stays]. That
// of a claim that stays cannot be removed, not even by root: it is a name that
// the kernel gives to an open file.
func claimCommand(ts *testscript.TestScript, _ bool, args []string) {
	d, thing := deskOf(ts), args[0]
	dir := ts.MkAbs(thing)
	ts.Check(os.MkdirAll(dir, 0o700))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	chain, err := d.cloud.IssueClaim(key.Public())
	ts.Check(err)
	claim, claimKey := filepath.Join(dir, "claim.pem"), filepath.Join(dir, "claim.key")
	ts.Check(os.WriteFile(claim, chain, 0o600))
	ts.Check(os.WriteFile(claimKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	if len(args) > 1 {
		f, err := os.Open(claimKey)
		ts.Check(err)
		ts.Defer(func() { f.Close() })
		claimKey = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	}
	ts.Check(os.WriteFile(filepath.Join(dir, "keyvet.toml"), fmt.Appendf(d.configuration(ts, thing), `[provision]
claim_certificate = %q
claim_key = %q
template = %q
`, claim, claimKey, localiot.Template), 0o600))
}

// deviceKey is the key of a file, or a new one: its public half, and what to
// put into the device's key file.
func deviceKey(ts *testscript.TestScript, files []string) (public crypto.PublicKey, private []byte) {
	if len(files) == 0 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		ts.Check(err)
		return key.Public(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	text := []byte(ts.ReadFile(files[0]))
	block, _ := pem.Decode(text)
	switch block.Type {
	case "TSS2 PRIVATE KEY":
		blob, err := tpm.ParseKeyBlob(text)
		ts.Check(err)
		return blob.Public(), text
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		ts.Check(err)
		return key, nil
	}
	weak, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	ts.Check(err)
	return weak.Public(), text
}

// flipCommand inverts a bit of the byte in the middle: flip FROM TO
func flipCommand(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// bigCommand writes a file of so many bytes: big FILE BYTES
func bigCommand(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	rand.Read(b)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// awaitCommand waits for what a device does to its files: await gone FILE |
// await grep PART FILE
func awaitCommand(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[len(args)-1])
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for end := time.Now().Add(patience); ; <-t.C {
		b, err := os.ReadFile(name)
		if args[0] == "gone" && errors.Is(err, os.ErrNotExist) || args[0] == "grep" && err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("await %v: %v\n%s", args, err, b)
		}
	}
}
