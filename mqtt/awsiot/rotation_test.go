package awsiot_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// testRotation has the program that ships rotate against the functions of the
// stack, its policies, its job and its rules, before an ACM Private CA that is
// stood in for. At the end the new certificate is the only active one.
func testRotation(t *testing.T, program string) {
	for _, issuer := range []string{"topics", "fleet-provisioning"} {
		a := newAccount(t)
		stack := template(t)
		issuerEnv := []string{program, "CERTIFICATE_AUTHORITY=arn:aws-cn:acm-pca:eu-west-1:123456789012:certificate-authority/1", "CERTIFICATE_DAYS=30"}
		function := func(name string, env []string, event any) returned {
			all, err := a.invoke(name, env, event)
			if err != nil {
				t.Error(err)
				return returned{}
			}
			if all[0].Error != "" {
				t.Errorf("%s: %s", name, all[0].Error)
			}
			return all[0]
		}
		rotatePolicy := map[string]string{"topics": "rotate-by-topics-policy.json", "fleet-provisioning": "rotate-by-provisioning-policy.json"}[issuer]
		cloud, err := localiot.Start(localiot.Options{
			Dir: t.TempDir(), DevicePolicies: [][]byte{readDoc(t, "device-policy.json"), readDoc(t, rotatePolicy), readDoc(t, "challenge-policy.json")},
			Provider: func(csr *x509.CertificateRequest) ([][]byte, error) {
				block, _ := pem.Decode([]byte(a.sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}), thing)))
				return [][]byte{block.Bytes, a.root.Raw}, nil
			},
			Hook: func(q localiot.Asked) bool {
				r := function("hook", hookEnv("new", 1, 1, true), asking(q.Template, q.Parameters["ThingName"], q.ClaimCertificateID, q.CertificateID))
				said, _ := r.Result.(map[string]any)
				return said["allowProvisioning"] == true
			},
			Issuer: func(m localiot.Message) {
				rule := map[string]string{"create": "CreateRule", "commit": "CommitRule"}[m.Topic[strings.LastIndex(m.Topic, "/")+1:]]
				if event := selected(t, stack, rule, m); event == nil {
					t.Errorf("%s has nothing of %s", rule, m.Payload)
				} else {
					function("issuer", issuerEnv, event)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		a.cloud = cloud
		if err := cloud.AddTemplate("keyvet-rotate", readDoc(t, "provisioning-template.json")); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		old := enrolledIn(t, a, cloud, dir, issuer)
		var log bytes.Buffer
		device := exec.Command(filepath.Clean(strings.TrimPrefix(program, "KEYVET=")), "run", "-config", filepath.Join(dir, "keyvet.toml"))
		device.Stderr = &log
		if err := device.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		// The rule of the reports, for the first and for the one under the new certificate.
		retire := func() (under string) {
			m, err := cloud.WaitMessage(ctx, "keyvet/"+thing+"/report")
			if err != nil {
				t.Fatalf("%s: %v\n%s", issuer, err, &log)
			}
			event := selected(t, stack, "RetireRule", m)
			if event == nil {
				t.Fatalf("%s: the report does not pass: %s", issuer, m.Payload)
			}
			function("retire", nil, event)
			return m.CertificateID
		}
		if under := retire(); under != old {
			t.Errorf("%s: the first report came under %s", issuer, under)
		}
		if err := cloud.CreateJob(localiot.Job{ID: "r1", Things: []string{thing}, Document: readDoc(t, "jobs/rotate.json")}); err != nil {
			t.Fatal(err)
		}
		current := retire()
		e, err := cloud.WaitExecution(ctx, "r1", thing, localiot.Execution.Ended)
		if err != nil || e.Status != "SUCCEEDED" || e.StatusDetails["oldCertificateId"] != old || e.StatusDetails["newCertificateId"] != current {
			t.Errorf("%s: %v, %+v\n%s", issuer, err, e, &log)
		}
		cancel()
		if err := device.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = device.Wait() // the signal ends it
		var active []string
		for _, c := range cloud.Certificates(thing) {
			if c.Status == localiot.Active {
				active = append(active, c.ID)
				leaf, err := x509.ParseCertificate(c.DER)
				if err != nil {
					t.Fatal(err)
				}
				if leaf.CheckSignatureFrom(a.root) != nil || leaf.Subject.CommonName != thing {
					t.Errorf("%s: the active certificate is of %s by %s", issuer, leaf.Subject, leaf.Issuer)
				}
			} else if c.ID == old && c.Status != localiot.Inactive {
				t.Errorf("%s: the old certificate is %s", issuer, c.Status)
			}
		}
		if len(active) != 1 || active[0] != current || current == old {
			t.Errorf("%s: active %v, the device had %s and has %s", issuer, active, old, current)
		}
		if got := len(cloud.Messages("keyvet/" + thing + "/certificate/commit")); got != map[string]int{"topics": 1}[issuer] {
			t.Errorf("%s: %d commits", issuer, got)
		}
		if err := cloud.Close(); err != nil {
			t.Error(err)
		}
	}
}

// enrolledIn writes a device without a TPM into a folder, with a certificate of
// the cloud's, and returns that one's id.
func enrolledIn(t *testing.T, a *account, cloud *localiot.Server, dir, issuer string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := cloud.IssueCertificate(thing, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("state/identity/certificate.pem", chain)
	write("state/identity/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write("pca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
	write("keyvet.toml", fmt.Appendf(nil, `state_dir = %q
run_dir = %q
thing.name = %q
tpm.address = ""
identity.ca = [%q, %q]
mqtt.endpoints = [%q]
mqtt.ca_file = %q
rotate.issuer = %q
rotate.template = "keyvet-rotate"
`, dir+"/state", dir+"/run", thing, cloud.CAFile(), dir+"/pca.pem", cloud.Endpoint(), cloud.CAFile(), issuer))
	block, _ := pem.Decode(chain)
	return localiot.CertificateID(block.Bytes)
}

// selected is what a rule of the stack makes of a message, or nil if the rule does
// not take it. Of AWS IoT SQL it knows what the stack's rules use.
func selected(t *testing.T, stack map[string]any, rule string, m localiot.Message) map[string]any {
	sql := resource(t, stack, rule, "AWS::IoT::TopicRule")["TopicRulePayload"].(map[string]any)["Sql"].(string)
	parts := regexp.MustCompile(`^SELECT (.*) FROM '(.*?)'(?: WHERE (.*))?$`).FindStringSubmatch(sql)
	var doc map[string]any
	if parts == nil || json.Unmarshal(m.Payload, &doc) != nil {
		t.Errorf("%s, %s", sql, m.Payload)
		return nil
	}
	filter, topic := strings.Split(parts[2], "/"), strings.Split(m.Topic, "/")
	if len(filter) != len(topic) {
		return nil
	}
	for i, level := range filter {
		if level != "+" && level != topic[i] {
			return nil
		}
	}
	taken := parts[3] == ""
	for condition := range strings.SplitSeq(parts[3], " OR ") {
		name, want, _ := strings.Cut(condition, " = ")
		taken = taken || want != "" && doc[name] == strings.Trim(want, "'")
	}
	if !taken {
		return nil
	}
	event := make(map[string]any)
	for _, member := range strings.Split(parts[1], ", ") {
		expression, name, renamed := strings.Cut(member, " AS ")
		switch level, isTopic := strings.CutPrefix(expression, "topic("); {
		case !renamed:
			if value, there := doc[expression]; there {
				event[expression] = value
			}
		case expression == "principal()":
			event[name] = m.CertificateID
		case isTopic:
			n, err := strconv.Atoi(strings.TrimSuffix(level, ")"))
			if err != nil || n > len(topic) {
				t.Errorf("%s: %v", sql, err)
				return nil
			}
			event[name] = topic[n-1]
		default:
			t.Errorf("%s is not known here: %s", expression, sql)
		}
	}
	return event
}
