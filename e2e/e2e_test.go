//go:build e2e

package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// startCloud starts an AWS IoT endpoint that machines reach by the name host.
func startCloud(t *testing.T) *localiot.Server {
	t.Helper()
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Names: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// configure puts the configuration and the CA of the cloud into the machine.
func (m *machine) configure(cloud *localiot.Server, more string) {
	m.t.Helper()
	m.put("/etc/keyvet/ca.pem", cloud.CAPEM())
	m.put("/etc/keyvet/keyvet.toml", fmt.Appendf(nil, `[thing]
name = %q
[identity]
ca = ["/etc/keyvet/ca.pem"]
[mqtt]
endpoints = [%q]
ca_file = "/etc/keyvet/ca.pem"
%s`, m.name, cloud.Endpoint(), more))
}

// claim puts a claim certificate of the fleet into the machine, which has no
// certificate of its own, and tells it to take one by the template that the
// cloud has.
func (m *machine) claim(cloud *localiot.Server) {
	m.t.Helper()
	key := newKey(m.t)
	chain, err := cloud.IssueClaim(key.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	m.pair("/var/lib/keyvet/claim/", chain, key)
	m.configure(cloud, fmt.Sprintf(`[provision]
claim_certificate = "/var/lib/keyvet/claim/certificate.pem"
claim_key = "/var/lib/keyvet/claim/key.pem"
template = %q
parameters = {ThingName = %q}
delete_claim = true
[rotate]
template = %[1]q
grace = "1s"
min_interval = "0s"
`, localiot.Template, m.name))
}

// enrol puts a key and the cloud's certificate on it into the machine.
func (m *machine) enrol(cloud *localiot.Server, key crypto.Signer) {
	m.t.Helper()
	chain, err := cloud.IssueCertificate(m.name, key.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	m.pair("/var/lib/keyvet/identity/", chain, key)
}

func (m *machine) pair(dir string, chain []byte, key crypto.Signer) {
	m.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	m.put(dir+"certificate.pem", chain)
	m.put(dir+"key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// report waits for the machine's next report, to the cloud, that has the trigger.
func (m *machine) report(cloud *localiot.Server, trigger device.Trigger) *device.Report {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	for {
		message, err := cloud.WaitMessage(ctx, "keyvet/"+m.name+"/report")
		if err != nil {
			m.t.Fatalf("trigger %s: %v\n%s", trigger, err, m.console.tail())
		}
		r := new(device.Report)
		if err := json.Unmarshal(message.Payload, r); err != nil {
			m.t.Fatal(err)
		}
		if r.Trigger == trigger {
			return r
		}
	}
}

// TestTrusted is the life of a good machine: made with a claim and no key of
// its own, switched on, rebooted, told to take a new key, and twice robbed of
// its power while it does.
func TestTrusted(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "gateway", tis)
	m.claim(cloud)

	m.on()
	m.trusted(cloud, device.TriggerFirstBoot)
	m.bootTable()
	first := m.credential(cloud)
	m.figures()
	m.shell("mv /run/keyvet/trusted /run/keyvet/shut") // as the agent shuts it
	m.says(`Stopped target keyvet-trusted\.target`)
	m.says(`Stopped e2e-appliance\.service`)

	m.reboot()
	m.trusted(cloud, device.TriggerBoot)
	m.bootTable()
	if again := m.credential(cloud); again != first {
		t.Errorf("a boot changed the credential from %s to %s", first, again)
	}

	m.rotate(cloud, "rotate-1")
	second := m.rotated(cloud, "rotate-1", first)
	if left := m.shell("ls /var/lib/keyvet/claim"); left != "" { // it goes after the grace
		t.Errorf("the claim is still there: %q", left)
	}

	for i, step := range []string{"enrol", "commit"} {
		job := "rotate-cut-at-" + step
		m.rotate(cloud, job)
		m.says(`msg=rotation step=` + step)
		m.cut()
		t.Logf("%s: power cut in step %s", m.name, step)
		m.on()
		m.trusted(cloud, device.TriggerBoot)
		third := m.rotated(cloud, job, second)
		t.Logf("%s: cut %d: %s, then %s", m.name, i+1, second, third)
		second = third
	}
}

// TestClock is a machine whose clock is set after keyvet has looked: 90 days back,
// before its certificate, and then right again, as by NTP.
func TestClock(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "clock", tis)
	m.enrol(cloud, newKey(t))
	m.configure(cloud, "")
	m.on()
	m.trusted(cloud, device.TriggerFirstBoot)
	trusted := "test -e /run/keyvet/trusted && echo open || echo shut"
	for _, step := range []struct{ set, want string }{
		{"date -s @$(($(date +%s) - 90*86400))", "shut"}, {"date -s @$(($(date +%s) + 90*86400))", "open"},
	} {
		m.shell(step.set)
		within := time.After(10 * time.Second)
		for state := ""; state != step.want; {
			select {
			case <-within:
				t.Fatalf("10 s after %q the gate is %s:\n%s", step.set, state, m.console.tail())
			case <-time.After(time.Second):
				state = m.shell(trusted)
			}
		}
	}
}

// rotate gives the machine the job to take a new key.
func (m *machine) rotate(cloud *localiot.Server, job string) {
	m.t.Helper()
	document := json.RawMessage(`{"operation":"keyvet.rotate","version":"1.0"}`)
	if err := cloud.CreateJob(localiot.Job{ID: job, Things: []string{m.name}, Document: document}); err != nil {
		m.t.Fatal(err)
	}
}

// rotated waits for the job's end and returns the credential, which is another
// than the old one.
func (m *machine) rotated(cloud *localiot.Server, job, old string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	ended, err := cloud.WaitExecution(ctx, job, m.name, localiot.Execution.Ended)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.console.tail())
	}
	if ended.Status != "SUCCEEDED" {
		m.t.Errorf("job %s: %s %v", job, ended.Status, ended.StatusDetails)
	}
	current := m.credential(cloud)
	if current == old {
		m.t.Errorf("job %s: the credential is the old one", job)
	}
	if active := m.shell("systemctl is-active keyvet-trusted.target e2e-appliance.service"); active != "active\nactive" {
		m.t.Errorf("job %s: target and appliance are %q", job, active)
	}
	return current
}

// credential is the cloud's id of the certificate that is in use in the
// machine. Its key is the TPM's, and the only one.
func (m *machine) credential(cloud *localiot.Server) string {
	m.t.Helper()
	key := m.shell("cat /var/lib/keyvet/identity/key.pem")
	if block, _ := pem.Decode([]byte(key)); block == nil || block.Type != "TSS2 PRIVATE KEY" {
		m.t.Errorf("the key is not the TPM's: %.40q", key)
	}
	block, _ := pem.Decode([]byte(m.shell("cat /var/lib/keyvet/identity/certificate.pem")))
	if block == nil {
		m.t.Fatal("the machine has no certificate")
	}
	id := localiot.CertificateID(block.Bytes)
	certificates := cloud.Certificates(m.name)
	if !slices.ContainsFunc(certificates, func(c localiot.Certificate) bool { return c.ID == id && c.Status == localiot.Active }) {
		m.t.Errorf("the certificate in use, %s, is not active: %v", id, certificates)
	}
	const alone = "for i in $(seq 90); do set -- $(ls /var/lib/keyvet/credentials); [ $# != 1 ] || break; sleep 1; done; echo $*"
	if left := m.shell(alone); len(strings.Fields(left)) != 1 { // the old one has its grace
		m.t.Errorf("not one credential, but %q", left)
	}
	return id
}

// trusted waits until the report is acknowledged and what depends on it runs.
func (m *machine) trusted(cloud *localiot.Server, trigger device.Trigger) {
	m.t.Helper()
	if r := m.report(cloud, trigger); !r.Verdict().Opens() || r.Evidence == nil {
		m.t.Errorf("trigger %s, verdict %s, evidence %v, %v", trigger, r.Verdict(), r.Evidence != nil, r.ReasonCodes())
	}
	m.says(`Reached target keyvet-trusted\.target`)
	m.says(`the appliance runs`)
	m.says(`Reached target multi-user\.target`)
	if n := strings.Count(m.console.String(), "the appliance runs"); n != 1 {
		m.t.Errorf("the appliance was started %d times", n)
	}
}

// TestArm is the first boot of a good machine of another architecture.
func TestArm(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "arm", arm)
	m.claim(cloud)
	m.on()
	m.trusted(cloud, device.TriggerFirstBoot)
	m.credential(cloud)
	m.figures()
}

// figures logs when the boot reached what.
func (m *machine) figures() {
	m.t.Helper()
	started := m.says(`\[ *([0-9.]+)\] systemd\[1\]: Start(?:ed|ing) keyvet\.service`)[1]
	vetted := m.says(`\[ *([0-9.]+)\] keyvet\[\d+\]: .*msg=vetted`)[1]
	opened := m.says(`\[ *([0-9.]+)\] systemd\[1\]: Reached target keyvet-trusted\.target`)[1]
	m.t.Logf("%s: keyvet starts at %s s, verdict at %s s, gate open at %s s", m.name, started, vetted, opened)
	m.t.Logf("%s: idle: %s", m.name, m.shell(`sleep 20; grep -E "VmHWM|VmRSS|RssAnon|RssFile" /proc/$(systemctl show -P MainPID keyvet)/status | tr -s "\n\t " " "`))
}

func TestWeak(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "weak", crb)
	weak, err := os.ReadFile("../cmd/keyvet-lab/weak/debian-2048.key")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(weak)
	if block == nil {
		t.Fatal("the weak key is not PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	m.configure(cloud, "")
	m.enrol(cloud, key)
	m.on()
	m.refused(cloud, device.TriggerFirstBoot)
	m.reboot()
	m.refused(cloud, device.TriggerBoot)
}

// refused waits until the report is acknowledged and sees that nothing that
// depends on trust runs.
func (m *machine) refused(cloud *localiot.Server, trigger device.Trigger) {
	m.t.Helper()
	if r := m.report(cloud, trigger); r.Verdict() != device.Fail {
		m.t.Errorf("trigger %s, verdict %s", trigger, r.Verdict())
	}
	m.says(`keyvet\[\d+\]: .*msg=gate state=shut`)
	m.says(`Reached target multi-user\.target`)
	if states := m.shell("systemctl is-active keyvet-trusted.target e2e-appliance.service"); states != "inactive\ninactive" {
		m.t.Errorf("target and appliance are %q", states)
	}
	if m.said(`Reached target keyvet-trusted\.target`) || m.said(`the appliance runs`) {
		m.t.Errorf("a device with a weak key was trusted:\n%s", m.console.tail())
	}
}
