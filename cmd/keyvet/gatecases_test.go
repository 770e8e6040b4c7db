package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// asDevice are the exit statuses of cases that mean something else in the hand of
// a device: AWS IoT does not take a CA of ML-DSA.
var asDevice = map[string]int{"chain-mldsa-ca.pem": 1}

// logged are words that the device's log must have.
var logged = map[string]string{
	"dice-critical-tcbinfo-chain.pem": "2.23.133.5.4.1 (DICE TcbInfo)",
	"chain-mldsa-ca.pem":              "ML-DSA-65 (2.16.840.1.101.3.4.3.18)",
	"chain-wrong-intermediate.pem":    "the CA certificate of that name which is there did not sign it",
	"critical-private-oid.pem":        "1.3.6.1.4.1.99999.7",
	"ca-ed448.pem":                    "Ed448 (1.3.101.113)",
	"root-rekeyed.pem":                "does not verify",
}

// TestGateCases puts each certificate and chain of the cases in place as the
// device's own credential, with the CA that it leads to in identity.ca, and holds
// exit status and gate of keyvet run -once to the table: what passes opens it, and
// nothing else does.
//
// The cloud is the local endpoint; where Go's TLS refuses the certificate in the
// hand of a client, it is Mosquitto, whose TLS is OpenSSL's.
func TestGateCases(t *testing.T) {
	cloud, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	for _, c := range keyCases(t) {
		text, err := os.ReadFile(filepath.Join(c.dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("-----BEGIN CERTIFICATE-----")) || bytes.Contains(text, []byte("PRIVATE KEY")) {
			continue // not a certificate in PEM, or one with a key of its own
		}
		if c.dir == furtherDir && c.asDevice == nil {
			continue // not of one device
		}
		t.Run(c.file, func(t *testing.T) {
			given, err := os.ReadFile(filepath.Join(casesDir, strings.Replace(c.file, "-valid.pem", "-identity-ca.pem", 1)))
			if errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(c.file, "-valid.pem") {
				given = nil
			}
			var certificates, key, ca, leaf []byte
			if c.asDevice != nil {
				certificates, key, ca, leaf = c.device(t, text)
			} else {
				certificates, key, ca, leaf = (&remaker{t: t}).device(text, given)
			}
			dir, thing := t.TempDir(), strings.TrimSuffix(c.file, ".pem")
			identity := filepath.Join(dir, "state", "identity")
			if err := os.MkdirAll(identity, 0o700); err != nil {
				t.Fatal(err)
			}
			endpoint, cloudCA := cloud.Endpoint(), cloud.CAFile()
			if _, err := x509.ParseCertificate(leaf); err != nil {
				endpoint, cloudCA = opensslCloud(t, thing, ca)
			} else if err := cloud.RegisterCertificate(thing, leaf); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(dir, "keyvet.toml")
			for name, data := range map[string][]byte{
				filepath.Join(identity, "certificate.pem"): certificates,
				filepath.Join(identity, "key.pem"):         key,
				filepath.Join(dir, "ca.pem"):               ca,
				config: fmt.Appendf(nil, "state_dir = %q\nrun_dir = %q\nthing.name = %q\ntpm.address = \"\"\nidentity.ca = [%q]\nmqtt.endpoints = [%q]\nmqtt.ca_file = %q\ndefender.enabled = false\n",
					filepath.Join(dir, "state"), filepath.Join(dir, "run"), thing, filepath.Join(dir, "ca.pem"), endpoint, cloudCA),
			} {
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			status, out, errs := keyvet(t, "", "run", "-once", "-config", config)
			_, err = os.Stat(gate.Path(filepath.Join(dir, "run")))
			if other, ok := asDevice[c.file]; ok {
				c.want = []int{other}
			}
			if c.asDevice != nil {
				c.want = c.asDevice
			}
			if said := out + errs; !strings.Contains(said, logged[c.file]) {
				t.Errorf("nothing is said of %q\n%s", logged[c.file], said)
			}
			if !slices.Contains(c.want, status) || (err == nil) != (status == 0) {
				t.Errorf("exit %d, open %v, want %d\n%s%s", status, err == nil, c.want, out, errs)
			}
		})
	}
}

// device returns what makes a case that has a private key the credential of a device.
func (c keyCase) device(t *testing.T, text []byte) (certificates, key, ca, leaf []byte) {
	t.Helper()
	read := func(suffix string) []byte {
		b, err := os.ReadFile(filepath.Join(c.dir, "device", strings.TrimSuffix(c.file, ".pem")+suffix))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block, _ := pem.Decode(text)
	return text, read(".key"), read(".ca"), block.Bytes
}

// opensslCloud is Mosquitto with what answers behind it, for clients under a CA.
func opensslCloud(t *testing.T, thing string, ca []byte) (endpoint, cloudCA string) {
	t.Helper()
	dir := t.TempDir()
	o := newOperator(t)
	own := o.issue(t, filepath.Join(dir, "mosquitto"), "localhost")
	cloudCA = filepath.Join(dir, "cloud-ca.pem")
	writePEM(t, cloudCA, "CERTIFICATE", o.cert.Raw)
	operatorPEM, err := os.ReadFile(cloudCA)
	if err != nil {
		t.Fatal(err)
	}
	clients := filepath.Join(dir, "clients.pem")
	if err := os.WriteFile(clients, append(operatorPEM, ca...), 0o600); err != nil {
		t.Fatal(err)
	}
	server := mqtttest.Files{Certificate: filepath.Join(dir, "mosquitto", "certificate.pem"), Key: filepath.Join(dir, "mosquitto", "key.pem")}
	endpoint = mqtttest.Mosquitto(t, server, clients)
	roots := x509.NewCertPool()
	roots.AddCert(o.cert)
	respond(t, mqtt.Config{Endpoints: []string{endpoint}, ClientID: "cloud", Roots: roots, Certificate: tls.Certificate{Certificate: own.Certificate, PrivateKey: own.PrivateKey}})
	return endpoint, cloudCA
}
