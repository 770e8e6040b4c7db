package mqtt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Proxy is an HTTP proxy that connections go through, by CONNECT (RFC 9110, section
// 9.3.6). The zero value is no proxy. It does not print its password.
type Proxy struct {
	address  string // host:port
	secured  bool   // TLS to the proxy itself
	user     string
	password string
	named    bool // there is a user, be it an empty one
}

// UnmarshalText takes "http://user:password@host:3128". Without a scheme it is http,
// without a port 80, or 443 of https. The errors do not repeat the text, which may
// hold a password.
func (p *Proxy) UnmarshalText(b []byte) error {
	text := string(b)
	*p = Proxy{}
	if text == "" {
		return nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be http://USER:PASSWORD@HOST:PORT, with other characters than letters and digits in user and password as %XX, such as %40 for @")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("must be a proxy of http or https, not of %.20q", u.Scheme)
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("must have a port from 1 to 65535")
	}
	*p = Proxy{address: net.JoinHostPort(u.Hostname(), port), secured: u.Scheme == "https", named: u.User != nil}
	if p.named {
		p.user = u.User.Username()
		p.password, _ = u.User.Password()
	}
	if strings.Contains(p.user, ":") {
		return errors.New("must have a user without a colon (RFC 7617, section 2)")
	}
	return nil
}

// String returns the address, without user and password.
func (p Proxy) String() string {
	switch {
	case p.address == "":
		return ""
	case p.secured:
		return "https://" + p.address
	}
	return "http://" + p.address
}

// For returns p, or for the zero Proxy what the environment has.
func (p Proxy) For(endpoint string) (Proxy, error) {
	if p != (Proxy{}) {
		return p, nil
	}
	return EnvironmentProxy(endpoint, os.Getenv)
}

// Format prints p as String does, whatever the verb.
func (p Proxy) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.String()) }

// EnvironmentProxy returns the proxy that the environment has for an endpoint:
// HTTPS_PROXY unless NO_PROXY names the endpoint, or both in small letters. The
// rules are those of golang.org/x/net/http/httpproxy: NO_PROXY is a list, separated
// by commas, of addresses, prefixes of addresses, names, which stand for the names
// below them too, names that begin with a dot, which stand for these only, each
// but the prefixes with a port or without; or "*". localhost never has a proxy.
func EnvironmentProxy(endpoint string, getenv func(string) string) (Proxy, error) {
	var p Proxy
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil || !proxied(strings.ToLower(host), port, cmp.Or(getenv("NO_PROXY"), getenv("no_proxy"))) {
		return p, nil
	}
	if err := p.UnmarshalText([]byte(cmp.Or(getenv("HTTPS_PROXY"), getenv("https_proxy")))); err != nil {
		return Proxy{}, fmt.Errorf("HTTPS_PROXY %w", err)
	}
	return p, nil
}

func proxied(host, port, except string) bool {
	ip, err := netip.ParseAddr(host)
	isIP := err == nil
	if host == "localhost" || isIP && ip.Unmap().IsLoopback() {
		return false
	}
	for entry := range strings.SplitSeq(strings.ToLower(except), ",") {
		entry = strings.TrimSpace(entry)
		if entry == "*" {
			return false
		}
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			if isIP && prefix.Masked().Contains(ip.Unmap().WithZone("")) {
				return false
			}
			continue
		}
		name, only, err := net.SplitHostPort(entry)
		if err != nil {
			name, only = entry, ""
		}
		if name == "" || only != "" && only != port {
			continue
		}
		if other, err := netip.ParseAddr(name); err == nil {
			if isIP && other.Unmap() == ip.Unmap() {
				return false
			}
			continue
		}
		name = strings.TrimPrefix(name, "*")
		if strings.HasSuffix(host, "."+strings.TrimPrefix(name, ".")) || host == name {
			return false
		}
	}
	return true
}

// dialFunc is that of [net.Dialer].
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// throughProxy returns a dial that goes through the proxy which choose has for an
// address, and has the proxy look up its name; without one it is direct.
func throughProxy(direct dialFunc, choose func(address string) (Proxy, error)) dialFunc {
	if choose == nil {
		return direct
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		p, err := choose(address)
		if err != nil {
			return nil, failure{ErrUnreachable, "", err, ""}
		}
		if p.address == "" {
			return direct(ctx, network, address)
		}
		conn, err := direct(ctx, network, p.address)
		if err != nil {
			return nil, failure{ErrUnreachable, "proxy " + p.String(), err, "check the network and mqtt.proxy or HTTPS_PROXY"}
		}
		if p.secured {
			host, _, _ := net.SplitHostPort(p.address)
			conn = tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host})
		}
		// Whatever ends ctx ends the question, too.
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		err = p.connect(conn, address)
		if !stop() {
			err = fmt.Errorf("no answer in time: %w", context.Cause(ctx))
		}
		if err != nil {
			conn.Close()
			return nil, failure{ErrUnreachable, "proxy " + p.String(), err, ""}
		}
		return conn, nil
	}
}

// connect asks the proxy at the other end of conn for a tunnel to address.
func (p Proxy) connect(conn io.ReadWriter, address string) error {
	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if p.named {
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	a, err := readAnswer(conn)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closed the connection without an answer")
	case err != nil:
		return err
	case a.code/100 == 2:
		return nil
	}
	return a.refusal(p.named)
}

// proxyAnswer is what a proxy says to CONNECT.
type proxyAnswer struct {
	code    int
	reason  string   // in printable ASCII; may be ""
	schemes []string // of authentication that it offers
}

// unknownUser is a proxy's refusal of user and password. It comes again, and a
// directory may lock a user who is refused too often.
type unknownUser struct{ error }

func (a proxyAnswer) refusal(named bool) error {
	said := strings.TrimSpace("it answered " + strconv.Itoa(a.code) + " " + a.reason)
	basic := len(a.schemes) == 0
	for _, scheme := range a.schemes {
		basic = basic || strings.EqualFold(scheme, "basic")
	}
	unknown := a.code == 407 || a.code == 401 // the second is tinyproxy's for a wrong password
	switch {
	case unknown && !basic:
		return unknownUser{fmt.Errorf("%s: it wants %s, keyvet has Basic: have the endpoint excepted, or Basic allowed", said, strings.Join(a.schemes, " or "))}
	case unknown && named:
		return unknownUser{fmt.Errorf("%s: check user and password in mqtt.proxy or HTTPS_PROXY", said)}
	case unknown:
		return unknownUser{fmt.Errorf("%s: set user and password in mqtt.proxy or HTTPS_PROXY", said)}
	case a.code == 403 || a.code == 405:
		return fmt.Errorf("%s: it must allow CONNECT to the endpoint and its port", said)
	case a.code/100 == 5:
		return fmt.Errorf("%s: it does not reach the endpoint", said)
	}
	return fmt.Errorf("%s: check mqtt.proxy or HTTPS_PROXY", said)
}

// What an answer may have.
const (
	maxAnswer = 16 << 10 // bytes, with those of interim answers
	// What is shown of it.
	maxReason  = 100
	maxSchemes = 8
	maxScheme  = 20
)

// errNoHTTP is a proxy that is none.
var errNoHTTP = errors.New("it does not speak HTTP: check mqtt.proxy or HTTPS_PROXY")

// readAnswer reads the head of the final answer and not a byte more: what follows is
// the tunnel's.
func readAnswer(r io.Reader) (proxyAnswer, error) {
	const version = "HTTP/1."
	var head []byte
	for n := 0; n < maxAnswer; n++ {
		var next [1]byte
		if _, err := io.ReadFull(r, next[:]); err != nil {
			return proxyAnswer{}, err
		}
		head = append(head, next[0])
		if known := min(len(head), len(version)); string(head[:known]) != version[:known] {
			return proxyAnswer{}, errNoHTTP // and perhaps waits for a word in its own language
		}
		if !bytes.HasSuffix(head, []byte("\n\r\n")) && !bytes.HasSuffix(head, []byte("\n\n")) {
			continue
		}
		a, err := parseAnswer(string(head))
		if err != nil || a.code/100 != 1 {
			return a, err
		}
		head = head[:0] // that was an interim answer (RFC 9110, section 15.2)
	}
	return proxyAnswer{}, fmt.Errorf("its answer is longer than %d bytes: check mqtt.proxy or HTTPS_PROXY", maxAnswer)
}

// parseAnswer reads "HTTP/1.1 407 Proxy Authentication Required" and the fields below.
func parseAnswer(head string) (proxyAnswer, error) {
	line, fields, _ := strings.Cut(head, "\n")
	_, status, _ := strings.Cut(strings.TrimRight(line, "\r"), " ")
	digits, reason, _ := strings.Cut(status, " ")
	code, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) != 3 || code < 100 {
		return proxyAnswer{}, errNoHTTP
	}
	a := proxyAnswer{code: int(code), reason: printable(reason, maxReason)}
	for line := range strings.SplitSeq(fields, "\n") {
		name, value, _ := strings.Cut(line, ":")
		scheme, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		if scheme = printable(scheme, maxScheme); scheme != "" && strings.EqualFold(name, "Proxy-Authenticate") && len(a.schemes) < maxSchemes {
			a.schemes = append(a.schemes, scheme)
		}
	}
	return a, nil
}

func printable(s string, most int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return clean[:min(most, len(clean))]
}
