// Package mqtttest starts the broker mosquitto for tests: one that is neither
// AWS's nor ours.
package mqtttest

import (
	"bytes"
	"context"
	"fmt"
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
	for {
		endpoint, said := start(t, program, append([]string{
			"cafile " + ca, "certfile " + server.Certificate, "keyfile " + server.Key,
			"require_certificate true", "use_identity_as_username true",
			"user root", // or it would become another user who cannot read these files
		}, more...))
		if endpoint != "" {
			return endpoint
		}
		if !strings.Contains(said, "Address already in use") { // by who was faster to take the free port
			t.Fatalf("mosquitto ended: %s", said)
		}
	}
}

// Files are a certificate and its key, in PEM.
type Files struct{ Certificate, Key string }

// start starts the broker on a port that was free a moment ago. Where it ends
// instead of taking connections, said is why.
func start(t *testing.T, program string, config []string) (endpoint, said string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\n%s\n", port, strings.Join(config, "\n"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
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
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			break
		}
		select {
		case <-ended.Done():
			return "", output.String()
		case <-time.After(pause):
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("mosquitto: %s", output.Bytes())
		}
	})
	return "localhost:" + port, ""
}
