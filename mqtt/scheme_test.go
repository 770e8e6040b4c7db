package mqtt

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

// A key that signs by PKCS #1 v1.5 alone connects by TLS 1.2, whatever the
// server would like best.
func TestVersionOfScheme(t *testing.T) {
	ours := newAuthority(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "gw"}, NotAfter: time.Now().Add(time.Hour),
	}, ours.cert, key.Public(), ours.key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{ours.issue(t, time.Now().Add(time.Hour), "localhost")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ours.pool(),
	}
	for _, tt := range []struct {
		schemes []tls.SignatureScheme
		want    uint16
	}{
		{nil, tls.VersionTLS13},
		{[]tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}, tls.VersionTLS13},
		{[]tls.SignatureScheme{tls.PKCS1WithSHA256}, tls.VersionTLS12},
	} {
		version := make(chan uint16, 1)
		port := listen(t, func(conn net.Conn) {
			c := tls.Server(conn, config)
			c.Handshake()
			version <- c.ConnectionState().Version
			server{}.serve(c)
		})
		s, err := Dial(t.Context(), Config{
			Endpoints: []string{"localhost:" + port}, ClientID: "gw", Roots: ours.pool(), Attempts: 1,
			Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, SupportedSignatureAlgorithms: tt.schemes},
		}, nil)
		if err != nil {
			t.Errorf("%v: %v", tt.schemes, err)
			continue
		}
		s.Close()
		if got := <-version; got != tt.want {
			t.Errorf("%v: %s", tt.schemes, tls.VersionName(got))
		}
	}
}
