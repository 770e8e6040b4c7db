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
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/localiot"
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

// enrol puts a key and the cloud's certificate on it into the machine.
func (m *machine) enrol(cloud *localiot.Server, key crypto.Signer) {
	m.t.Helper()
	chain, err := cloud.IssueCertificate(m.name, key.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	m.put("/var/lib/keyvet/identity/certificate.pem", chain)
	m.put("/var/lib/keyvet/identity/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// report waits for the machine's next report to the cloud.
func (m *machine) report(cloud *localiot.Server) *device.Report {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	message, err := cloud.WaitMessage(ctx, "keyvet/"+m.name+"/report")
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.console.tail())
	}
	r := new(device.Report)
	if err := json.Unmarshal(message.Payload, r); err != nil {
		m.t.Fatal(err)
	}
	return r
}

func TestTrusted(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "gateway", "tpm-tis")
	m.configure(cloud, "")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m.enrol(cloud, key)
	m.on()
	m.trusted(cloud, device.TriggerFirstBoot)
	m.figures()
	m.reboot()
	m.trusted(cloud, device.TriggerBoot)
}

// trusted waits until the report is acknowledged and what depends on it runs.
func (m *machine) trusted(cloud *localiot.Server, trigger device.Trigger) {
	m.t.Helper()
	r := m.report(cloud)
	if r.Trigger != trigger || !r.Verdict().Opens() || r.Evidence == nil {
		m.t.Errorf("trigger %s, verdict %s, evidence %v, %v", r.Trigger, r.Verdict(), r.Evidence != nil, r.ReasonCodes())
	}
	m.says(`keyvet\[\d+\]: .*msg=gate open=true`)
	m.says(`Reached target keyvet-trusted\.target`)
	m.says(`the appliance runs`)
}

// figures logs what the README tells.
func (m *machine) figures() {
	m.t.Helper()
	started := m.says(`\[ *([0-9.]+)\] systemd\[1\]: Start(?:ed|ing) keyvet\.service`)[1]
	vetted := m.says(`\[ *([0-9.]+)\] keyvet\[\d+\]: .*msg=vetted`)[1]
	opened := m.says(`\[ *([0-9.]+)\] keyvet\[\d+\]: .*msg=gate open=true`)[1]
	m.t.Logf("%s: keyvet starts at %s s, verdict at %s s, gate open at %s s", m.name, started, vetted, opened)
	m.t.Logf("%s: idle: %s", m.name, m.shell(`sleep 20; grep -E "VmHWM|VmRSS|RssAnon|RssFile" /proc/$(systemctl show -P MainPID keyvet)/status | tr -s "\n\t " " "`))
}

func TestWeak(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "weak", "tpm-crb")
	m.configure(cloud, "")
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
	r := m.report(cloud)
	if r.Trigger != trigger || r.Verdict() != device.Fail {
		m.t.Errorf("trigger %s, verdict %s", r.Trigger, r.Verdict())
	}
	m.says(`keyvet\[\d+\]: .*msg=gate open=false`)
	m.says(`Reached target multi-user\.target`)
	if states := m.shell("systemctl is-active keyvet-trusted.target e2e-appliance.service"); states != "inactive\ninactive" {
		m.t.Errorf("target and appliance are %q", states)
	}
	if m.said(`Reached target keyvet-trusted\.target`) || m.said(`the appliance runs`) {
		m.t.Errorf("a device with a weak key was trusted:\n%s", m.console.tail())
	}
}
