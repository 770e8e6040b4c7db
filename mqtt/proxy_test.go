package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

func proxyFrom(t *testing.T, text string) Proxy {
	t.Helper()
	var p Proxy
	if err := p.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return p
}

func always(p Proxy) func(string) (Proxy, error) {
	return func(string) (Proxy, error) { return p, nil }
}

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]Proxy{
		"":                             {},
		"http://proxy:3128":            {address: "proxy:3128"},
		"http://proxy:3128/":           {address: "proxy:3128"},
		"proxy:3128":                   {address: "proxy:3128"},
		"proxy":                        {address: "proxy:80"},
		"http://10.0.0.1":              {address: "10.0.0.1:80"},
		"https://proxy":                {address: "proxy:443", secured: true},
		"http://[fd00::1]:3128":        {address: "[fd00::1]:3128"},
		"http://u:p%40%2F%3A@proxy:1":  {address: "proxy:1", user: "u", password: "p@/:", named: true},
		"http://u@proxy:1":             {address: "proxy:1", user: "u", named: true},
		"HTTP://DOMAIN%5Cu:p@proxy:1":  {address: "proxy:1", user: `DOMAIN\u`, password: "p", named: true},
		"http://u:p@ss@proxy:1":        {address: "proxy:1", user: "u", password: "p@ss", named: true},
		"u:secret@proxy.example.:3128": {address: "proxy.example.:3128", user: "u", password: "secret", named: true},
	} {
		var p Proxy
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("%q: %q %q %q, %v", text, p.address, p.user, p.password, err)
		}
	}
	for text, want := range map[string]string{
		"http://u:secret@proxy:99999":    "port",
		"http://u:secret@proxy:0":        "port",
		"http://u:secret#@proxy:3128":    "%XX",
		"http://u:sec/ret@proxy:3128":    "%XX",
		"http://u:secret%zz@proxy:3128":  "%XX",
		"http://u:secret@":               "%XX",
		"http://u:secret@proxy/path":     "%XX",
		"http://u:secret@proxy?x":        "%XX",
		"socks5://u:secret@proxy":        `not of "socks5"`,
		"http://a%3Ab:secret@proxy":      "without a colon",
		"http://u:secret\r\n@proxy:3128": "%XX",
	} {
		var p Proxy
		err := p.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secr") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// No verb, no format shows user or password.
func TestProxyKeepsItsPassword(t *testing.T) {
	p := proxyFrom(t, "http://somebody:secret@proxy:3128")
	within := struct{ Proxy Proxy }{p}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{p, &p, within, []Proxy{p}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, "secret") || strings.Contains(s, "somebody") || strings.Contains(s, "736563726574") {
				t.Errorf("%s: %s", verb, s)
			}
		}
	}
	if p.String() != "http://proxy:3128" {
		t.Error(p.String())
	}
}

// Which endpoints have a proxy, by the rules of golang.org/x/net/http/httpproxy: the
// cases of its own tests, and what they leave out.
func TestEnvironmentProxy(t *testing.T) {
	const noProxy = "foobar.com, .barbaz.net, *.wild.example, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, port.example:8883,,:80, EXAMPLE.IoT"
	for endpoint, want := range map[string]bool{
		"localhost:8883": false, "LOCALHOST:8883": false, "127.0.0.1:8883": false, "127.0.0.2:8883": false, "[::1]:8883": false, "[::ffff:127.0.0.1]:8883": false,
		"[::2]:8883": true, "example.com:8883": true, "barbaz.net:8883": true, "www.barbaz.net:8883": false, "foobar.com:8883": false, "www.foobar.com:8883": false,
		"foofoobar.com:8883": true, "baz.com:8883": true, "foobar.com.evil:8883": true,
		"wild.example:8883": true, "a.wild.example:8883": false, "awild.example:8883": true,
		"localhost.net:8883": true, "local.localhost:8883": true,
		"192.168.1.1:8883": false, "192.168.1.2:8883": true, "192.168.1.2:81": false, "192.168.1.3:8883": true, "192.168.1.4:8883": true, "192.168.1.5:8883": true,
		"10.0.0.2:8883": false, "10.0.0.4:8883": true, "[::ffff:10.0.0.2]:443": false,
		"[2001:db8::52:0:1]:8883": false, "[2001:db8::52:0:2]:443": false, "[2001:db8::52:0:2]:8883": true, "[2001:db8::52:0:3]:8883": true,
		"[2002:db8:a::123]:8883": false, "[fe80::424b:c8be:1643:a1b6]:8883": true,
		"port.example:8883": false, "a.port.example:8883": false, "port.example:443": true, "x.example.iot:8883": false, "example.IOT:443": false,
		"no port": false,
	} {
		env := map[string]string{"HTTPS_PROXY": "http://u:p@proxy:3128", "NO_PROXY": noProxy}
		for range 2 {
			p, err := EnvironmentProxy(endpoint, func(name string) string { return env[name] })
			if err != nil || (p != Proxy{}) != want || want && p.address != "proxy:3128" {
				t.Errorf("%s: %v, %v", endpoint, p, err)
			}
			env = map[string]string{"https_proxy": env["HTTPS_PROXY"], "no_proxy": noProxy}
		}
	}
	for what, tt := range map[string]struct {
		env  map[string]string
		want string
	}{
		"nothing":            {map[string]string{}, ""},
		"other variables":    {map[string]string{"HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://b:1"}, ""},
		"large before small": {map[string]string{"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "http://a:1"},
		"everything":         {map[string]string{"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x, *"}, ""},
		"an empty one":       {map[string]string{"HTTPS_PROXY": "http://a:1", "NO_PROXY": ""}, "http://a:1"},
		"a bare host":        {map[string]string{"HTTPS_PROXY": "a:3128"}, "http://a:3128"},
	} {
		if p, err := EnvironmentProxy("example.com:8883", func(name string) string { return tt.env[name] }); err != nil || p.String() != tt.want {
			t.Errorf("%s: %v, %v", what, p, err)
		}
	}
	_, err := EnvironmentProxy("example.com:8883", func(name string) string { return "socks5://u:secret@a" })
	if err == nil || !strings.HasPrefix(err.Error(), "HTTPS_PROXY must be") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

// httpProxy is a proxy of the standard library's server, which answers for one user
// and knows names that no resolver does.
type httpProxy struct {
	names map[string]string // host:port to where that is
	user  string            // "user:password"; "" asks for none

	mu    sync.Mutex
	asked []string
}

func (h *httpProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked = append(h.asked, r.Method+" "+r.Host)
	h.mu.Unlock()
	shown := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	name, password, _ := shown.BasicAuth()
	to := h.names[r.Host]
	switch {
	case h.user != "" && name+":"+password != h.user:
		w.Header().Set("Proxy-Authenticate", `Basic realm="plant"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Method != http.MethodConnect || to == "":
		w.WriteHeader(http.StatusForbidden)
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(in, "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
	go func() { _, _ = io.Copy(out, in); out.Close() }()
	_, _ = io.Copy(in, out)
	in.Close()
}

// A session runs through a proxy, plain or by TLS, that alone can look up the
// endpoint's name.
func TestThroughProxy(t *testing.T) {
	ours := newAuthority(t)
	cert := ours.issue(t, time.Now().Add(time.Hour), "iot.plant.invalid")
	broker := "127.0.0.1:" + listen(t, func(c net.Conn) {
		server{}.serve(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}))
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const endpoint = "iot.plant.invalid:8883"
	h := &httpProxy{names: map[string]string{endpoint: broker}, user: "gw:s@cret"}
	front := &http.Server{Handler: h}
	go func() { _ = front.Serve(listener) }()
	t.Cleanup(func() { front.Close() })
	at := listener.Addr().String()

	cfg := Config{Endpoints: []string{endpoint}, ClientID: "gw", Roots: ours.pool(), Certificate: ours.issue(t, time.Now().Add(time.Hour)), Attempts: 1}
	cfg.Proxy = always(proxyFrom(t, "http://gw:s%40cret@"+at))
	s, err := Dial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := strings.Join(h.asked, ", "); got != "CONNECT "+endpoint {
		t.Errorf("the proxy was asked %s", got)
	}
	for proxy, want := range map[string]string{
		"http://gw:wrong@" + at: "proxy http://" + at + ": it answered 407 Proxy Authentication Required: check user and password in mqtt.proxy or HTTPS_PROXY",
		"http://" + at:          "proxy http://" + at + ": it answered 407 Proxy Authentication Required: set user and password in mqtt.proxy or HTTPS_PROXY",
	} {
		cfg.Proxy = always(proxyFrom(t, proxy))
		if _, err := Dial(t.Context(), cfg, nil); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrRefused) || err.Error() != endpoint+": "+want {
			t.Errorf("%v\nwant %s", err, want)
		} else if howOf(err) != answered {
			t.Errorf("a user is refused, and it is taken for a failure that will pass: %v", err)
		}
	}
	cfg.Proxy, cfg.Endpoints = always(proxyFrom(t, "http://gw:s%40cret@"+at)), []string{"other.invalid:443"}
	if _, err := Dial(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "403 Forbidden: it must allow CONNECT to the endpoint and its port") {
		t.Error(err)
	}
	h.names["other.invalid:443"] = "127.0.0.1:1"
	if _, err := Dial(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "502 Bad Gateway: it does not reach the endpoint") || howOf(err) != near {
		t.Error(err)
	}
	held, err := mqtttest.HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	cfg.Proxy = always(proxyFrom(t, "http://gw:secret@"+held.Addr))
	if _, err := Dial(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "proxy http://"+held.Addr+": connection refused: check the network and mqtt.proxy or HTTPS_PROXY") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	cfg.Proxy = func(string) (Proxy, error) { return Proxy{}, errors.New("HTTPS_PROXY must be a proxy") }
	if _, err := Dial(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY must be a proxy") {
		t.Error(err)
	}
}

// A proxy that is spoken to by TLS is verified by the system's certificates, which
// the tests' are not.
func TestProxyByTLS(t *testing.T) {
	ours := newAuthority(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ours.issue(t, time.Now().Add(time.Hour), "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = c.(*tls.Conn).Handshake(); c.Close() }()
		}
	}()
	dial := throughProxy(new(net.Dialer).DialContext, always(proxyFrom(t, "https://"+listener.Addr().String())))
	if _, err := dial(t.Context(), "tcp", "example.com:8883"); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Error(err)
	}
}

// What a proxy may say instead.
func TestProxyAnswers(t *testing.T) {
	for what, tt := range map[string]struct{ answer, want string }{
		"1.1":                  {"HTTP/1.1 200 OK\r\n\r\n", ""},
		"1.0":                  {"HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n", ""},
		"bare line feeds":      {"HTTP/1.1 200\n\n", ""},
		"any 2xx":              {"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", ""},
		"an interim one":       {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		"NTLM alone":           {"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM abc\r\n\r\n", "it answered 407 No: it wants Negotiate or NTLM, keyvet has Basic: have the endpoint excepted, or Basic allowed"},
		"NTLM and basic":       {"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: basic realm=\"x\"\r\n\r\n", "it answered 407 No: set user and password in mqtt.proxy or HTTPS_PROXY"},
		"a redirection":        {"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "it answered 302 Found: check mqtt.proxy or HTTPS_PROXY"},
		"no method":            {"HTTP/1.1 405 Method Not Allowed\r\n\r\n", "it must allow CONNECT"},
		"a gateway's time":     {"HTTP/1.1 504 Gateway Time-out\r\n\r\n", "it answered 504 Gateway Time-out: it does not reach the endpoint"},
		"what a terminal eats": {"HTTP/1.1 403 \x1b[31mno\x07\u202e\r\n\r\n", "it answered 403 [31mno: "},
		"a long reason":        {"HTTP/1.1 403 " + strings.Repeat("x", 5000) + "\r\n\r\n", "it answered 403 " + strings.Repeat("x", maxReason) + ": "},
		"TLS":                  {"\x15\x03\x01\x00\x02\x02\x46", "it does not speak HTTP"},
		"SSH":                  {"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak HTTP"},
		"HTTP/2":               {"HTTP/2 200\r\n\r\n", "it does not speak HTTP"},
		"no code":              {"HTTP/1.1 OK\r\n\r\n", "it does not speak HTTP"},
		"a code of 4":          {"HTTP/1.1 2000 OK\r\n\r\n", "it does not speak HTTP"},
		"a signed code":        {"HTTP/1.1 +20 OK\r\n\r\n", "it does not speak HTTP"},
		"nothing":              {"", "it closed the connection without an answer"},
		"half of one":          {"HTTP/1.1 200 OK\r\nX: y\r\n", "it closed the connection without an answer"},
		"without end":          {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10000), "its answer is longer than 16384 bytes"},
		"interim without end":  {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10000), "its answer is longer than 16384 bytes"},
	} {
		rest := bytes.NewReader([]byte(tt.answer + "\x16"))
		if tt.want == "it closed the connection without an answer" {
			rest = bytes.NewReader([]byte(tt.answer))
		}
		var asked bytes.Buffer
		err := Proxy{address: "proxy:1"}.connect(struct {
			io.Reader
			io.Writer
		}{rest, &asked}, "example.com:8883")
		switch {
		case tt.want == "" && (err != nil || rest.Len() != 1):
			t.Errorf("%s: %v, %d bytes are left", what, err, rest.Len())
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v", what, err)
		}
		if asked.String() != "CONNECT example.com:8883 HTTP/1.1\r\nHost: example.com:8883\r\n\r\n" {
			t.Errorf("asked %q", asked.String())
		}
	}
}

// A proxy that says nothing has the time of the step, and no longer.
func TestProxyThatWaits(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := throughProxy(new(net.Dialer).DialContext, always(proxyFrom(t, "http://"+listener.Addr().String())))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = bufio.NewReader(c).ReadString('\n')
		cancel()
		_, _ = io.Copy(io.Discard, c) // until the client goes
	}()
	if _, err := dial(ctx, "tcp", "example.com:8883"); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no answer in time") {
		t.Error(err)
	}
}

// A proxy that is not ours.
func TestTinyproxy(t *testing.T) {
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		t.Fatalf("install tinyproxy (Debian package tinyproxy-bin): %v", err)
	}
	ours := newAuthority(t)
	broker := mosquitto(t, ours)
	_, brokerPort, _ := net.SplitHostPort(broker)
	held, err := mqtttest.HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Release)
	_, port, _ := net.SplitHostPort(held.Addr)
	dir := t.TempDir()
	conf, log := filepath.Join(dir, "conf"), filepath.Join(dir, "log")
	text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nTimeout 600\nMaxClients 10\nLogFile \"%s\"\nLogLevel Connect\nBasicAuth gw secret\nConnectPort %s\n", port, log, brokerPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-d", "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cfg := Config{Endpoints: []string{broker}, ClientID: "gw", Roots: ours.pool(), Certificate: ours.issue(t, time.Now().Add(time.Hour))}
	cfg.Proxy = always(proxyFrom(t, "http://gw:secret@"+held.Addr))
	s, err := Dial(ctx, cfg, func(ctx context.Context, s *Session) error { return s.Publish(ctx, "keyvet/gw/probe", nil) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "CONNECT "+broker) {
		t.Errorf("the proxy saw %s (%v)", b, err)
	}
	cfg.Attempts = 1
	cfg.Proxy = always(proxyFrom(t, "http://gw:wrong@"+held.Addr))
	if _, err := Dial(ctx, cfg, nil); err == nil || !strings.Contains(err.Error(), "check user and password in mqtt.proxy or HTTPS_PROXY") {
		t.Errorf("a wrong password: %v", err)
	}
	cfg.Proxy, cfg.Endpoints = always(proxyFrom(t, "http://gw:secret@"+held.Addr)), []string{"localhost:1"}
	if _, err := Dial(ctx, cfg, nil); err == nil || !strings.Contains(err.Error(), "it must allow CONNECT to the endpoint and its port") {
		t.Errorf("a port that is not allowed: %v", err)
	}
}

func FuzzProxyAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\nbody"))
	f.Add([]byte("\x15\x03\x01\x00\x02\x02\x46"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		a, err := readAnswer(r)
		if err != nil {
			if a.code != 0 {
				t.Errorf("%+v with %v", a, err)
			}
			return
		}
		taken := b[:len(b)-r.Len()]
		if a.code < 200 || a.code > 999 || len(a.reason) > maxReason || len(a.schemes) > maxSchemes || len(taken) > maxAnswer || !bytes.HasSuffix(taken, []byte("\n")) {
			t.Errorf("%+v of %q", a, taken)
		}
		// The standard library, where it takes the answer, reads the same of it.
		s := bufio.NewReader(bytes.NewReader(taken))
		for {
			theirs, err := http.ReadResponse(s, &http.Request{Method: http.MethodConnect})
			if err != nil {
				return
			}
			if theirs.StatusCode/100 != 1 {
				if theirs.StatusCode != a.code {
					t.Errorf("%q: %d, and the standard library has %d", taken, a.code, theirs.StatusCode)
				}
				return
			}
		}
	})
}
