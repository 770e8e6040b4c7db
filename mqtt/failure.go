package mqtt

import (
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strings"
)

// failure is why there is no session, in words for a person: what is wrong, and
// then what to do. It wraps what a caller may test for, and the cause.
type failure struct {
	kind   error
	what   string // went wrong; "": cause says it
	cause  error  // nil: none is known
	advice string // "": none
}

func (f failure) Error() string {
	parts := []string{f.kind.Error(), f.what, "", f.advice}
	if f.cause != nil {
		parts[2] = plain(f.cause)
	}
	if f.kind == ErrUnreachable && f.what+parts[2] != "" { // which says it better
		parts[0] = ""
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

func (f failure) Unwrap() []error { return []error{f.kind, f.cause} }

// notReached is why there is no TCP connection: of that the service has nothing.
type notReached struct{ error }

func (e notReached) Unwrap() error { return e.error }

// plain is an error without what the standard library puts before its cause: the
// operation, the address and names of packages.
func plain(err error) string {
	switch e := err.(type) {
	case notReached:
		return plain(e.error)
	case *net.OpError:
		if e.Err != nil {
			return plain(e.Err)
		}
	case *os.SyscallError:
		return plain(e.Err)
	case *tls.CertificateVerificationError:
		return plain(e.Err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "tls: "), "x509: ")
}
