// Package mqtttest starts the broker mosquitto for tests, one that is neither
// AWS's nor ours, and holds ports for servers that come and go.
package mqtttest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Mosquitto starts the broker for the length of a test, with TLS by the files of
// server, for clients with a certificate of the CA in ca, who are called by the
// name in it. It returns the endpoint once that takes connections. more are
// further lines of its configuration.
func Mosquitto(t *testing.T, server Files, ca string, more ...string) (endpoint string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Fatalf("install mosquitto (Debian package mosquitto): %v", err)
		}
	}
	held, err := HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Release)
	_, port, _ := net.SplitHostPort(held.Addr)
	config := append([]string{
		"listener " + port + " 127.0.0.1",
		"cafile " + ca, "certfile " + server.Certificate, "keyfile " + server.Key,
		"require_certificate true", "use_identity_as_username true",
		"user root", // or it would become another user who cannot read these files
	}, more...)
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(path, []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(program, "-c", path)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.Background())
	go func() {
		_ = cmd.Wait()
		end()
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-ended.Done()
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if c, err := net.Dial("tcp", held.Addr); err == nil {
			c.Close()
			break
		}
		select {
		case <-ended.Done():
			t.Fatalf("mosquitto ended: %s", output.String())
		case <-time.After(pause):
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("mosquitto: %s", output.Bytes())
		}
	})
	return "localhost:" + port
}

// Files are a certificate and its key, in PEM.
type Files struct{ Certificate, Key string }
