package localiot_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// sdk installs what testdata/sdk/package-lock.json pins, once, into a folder of
// the user's cache, and returns that folder.
func sdk(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("testdata/sdk/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "keyvet", "sdk-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("testdata/sdk", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(temp, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// The native library comes inside the package: no script has to run.
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = temp
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci (Debian packages nodejs, npm): %v\n%s", err, out)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test run was faster
			t.Fatal(err)
		}
	}
	return dir
}

// AWS's own client code, aws-iot-device-sdk-v2, takes localiot for AWS IoT.
func TestSDK(t *testing.T) {
	modules := filepath.Join(sdk(t), "node_modules")
	for name, mqtt5 := range map[string]bool{"MQTT 3.1.1": false, "MQTT 5": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSDK(t, modules, mqtt5)
		})
	}
}

func testSDK(t *testing.T, modules string, mqtt5 bool) {
	s := start(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyPEM := func(cert tls.Certificate) string {
		t.Helper()
		der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	claimKey, key := newKey(t), newKey(t)
	claimChain, err := s.IssueClaim(claimKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "testdata/sdk/peer.js", object(t, map[string]any{
		"host": host, "port": number, "ca": s.CAFile(), "mqtt5": mqtt5, "template": localiot.Template, "thing": "gw",
		"claimCertificate": write("claim.pem", string(claimChain)), "claimKey": write("claim-key.pem", keyPEM(tls.Certificate{PrivateKey: claimKey})),
		"csr": write("gw.csr", csr(t, key)), "key": write("key.pem", keyPEM(tls.Certificate{PrivateKey: key})), "certificate": filepath.Join(dir, "gw.pem"),
	}))
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("node (Debian package nodejs): %v", err)
	}
	done := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case "ready":
			createJob(t, s, "by-sdk", "gw")
		case "done":
			done = true
		default:
			t.Errorf("it says %q", lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil || !done {
		t.Fatalf("%v\n%s", err, &complaints)
	}
	// And the other side agrees.
	if e := s.Executions("by-sdk"); len(e) != 1 || e[0].Status != localiot.Succeeded || e[0].StatusDetails["step"] != "end" {
		t.Errorf("%+v", e)
	}
	version := "3.1.1"
	if mqtt5 {
		version = "5"
	}
	if got, want := string(s.Shadow("gw", "")), `{"reported":{"sdk":"`+version+`"}}`; got != want {
		t.Errorf("shadow %s, want %s", got, want)
	}
	if c := s.Certificates("gw"); len(c) != 1 || c[0].Status != localiot.Active {
		t.Errorf("%+v", c)
	}
}
