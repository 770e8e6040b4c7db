package localiot_test

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		names []string
		good  bool
	}{
		{[]string{"iot.keyvet.test"}, true},
		{nil, false},
	} {
		s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Names: tt.names})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		config := tlsConfig(s, enrol(t, s, "gw"))
		config.ServerName = "iot.keyvet.test"
		_, port, err := net.SplitHostPort(s.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", "localhost:"+port, config)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != tt.good {
			t.Errorf("a server with the names %q: %v", tt.names, err)
		}
	}
}
