package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// An error for a person has the cause and then what to do, without the names of
// packages; a program still finds in it what it may test for.
func TestFailureTexts(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unknown := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	other := &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"b"}}, Host: "a"}}
	late := &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Cert: &x509.Certificate{NotAfter: time.Unix(0, 0)}, Reason: x509.Expired, Detail: "it ended in 1970"}}
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	foreign := tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}
	cut := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, tt := range []struct {
		err, kind, cause error
		want             string
	}{
		{failure{ErrUnreachable, "", notReached{refused}, "check network and endpoint"}, ErrUnreachable, syscall.ECONNREFUSED, "connection refused: check network and endpoint"},
		{handshakeError(unknown, time.Now()), ErrServerUntrusted, unknown, "server is not trusted: certificate signed by unknown authority: check the CA file"},
		{handshakeError(other, time.Now()), ErrServerUntrusted, other, "server is not trusted: certificate is valid for b, not a: check the endpoint"},
		{handshakeError(late, time.Unix(1, 0)), ErrServerUntrusted, late, "server is not trusted: certificate has expired or is not yet valid: it ended in 1970: check the clock and the server's certificate"},
		{handshakeError(alert, time.Now()), ErrRefused, alert, "refused by the server: TLS alert: bad certificate: check that the client certificate is registered and active"},
		{handshakeError(foreign, time.Now()), ErrUnreachable, foreign, "it does not speak TLS: first record does not look like a TLS handshake: check the port"},
		{handshakeError(cut, time.Now()), ErrUnreachable, syscall.ECONNRESET, "TLS handshake: connection reset by peer: check network and endpoint"},
		{connectError(cut, 30*time.Second), ErrRefused, syscall.ECONNRESET, "refused by the server: closed before the CONNACK: connection reset by peer: check that the client certificate is registered, active and has a policy"},
		{connectError(os.ErrDeadlineExceeded, 30*time.Second), ErrUnreachable, nil, "no CONNACK within 30s: check network and endpoint"},
		{failure{ErrLost, "", cut, ""}, ErrLost, syscall.ECONNRESET, "connection is lost: connection reset by peer"},
		{failure{kind: ErrUnreachable}, ErrUnreachable, nil, "server is unreachable"},
	} {
		if tt.err.Error() != tt.want || !errors.Is(tt.err, tt.kind) || tt.cause != nil && !is(tt.err, tt.cause) {
			t.Errorf("%q, want %q; %v is in it: %v", tt.err, tt.want, tt.cause, is(tt.err, tt.cause))
		}
	}
}

// is reports whether an error has a cause in it; those of crypto/tls cannot be compared.
func is(err, cause error) bool {
	switch cause.(type) {
	case tls.RecordHeaderError:
		return errors.As(err, new(tls.RecordHeaderError))
	}
	return errors.Is(err, cause)
}
