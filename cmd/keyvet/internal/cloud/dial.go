package cloud

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// dialing is what connections have to know of those before.
type dialing struct {
	own, claim *mqtt.Dialer // nil before the first connection
	as         string       // the client id of own
	last       time.Time    // when a session as the thing was last asked for
}

// Ahead begins to connect, while the device is vetted. Nothing is sent: not even
// which device it is.
func Ahead(ctx context.Context, c *Cloud) {
	c.Credentials.Name(device.Inventory{}) // as far as it takes no TPM
	own, ownErr := c.Credentials.Current()
	thing, thingErr := c.Credentials.Thing()
	if ownErr != nil || thingErr != nil {
		return // there may be one when the device is vetted
	}
	if err := prepare(c, own.Certificate, thing); err != nil {
		return // Connect says why
	}
	c.dialing.own.Ahead(ctx)
}

// prepare makes the dialer of the thing, unless it is there.
func prepare(c *Cloud, pair tls.Certificate, thing string) (err error) {
	if id := c.clientID(thing); c.dialing.own == nil || c.dialing.as != id {
		c.dialing.own, err = c.dialer(pair, id, c.Persistent)
		c.dialing.as = id
	}
	return err
}

// Connect makes a session by the credential in use.
func (c *Cloud) Connect(ctx context.Context) (agent.Cloud, error) {
	own, ownErr := c.Credentials.Current()
	thing, thingErr := c.Credentials.Thing()
	if err := errors.Join(ownErr, thingErr); err != nil {
		return nil, agent.NotReady{Err: err}
	}
	pair, err := own.Pair(c.Config.Identity.CA)
	if err == nil {
		err = prepare(c, pair, thing)
	}
	if err != nil {
		return nil, agent.NotReady{Err: err}
	}
	c.dialing.own.SetCertificate(pair)
	s, err := c.dial(ctx, c.dialing.own, thing)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Dial implements [rotate.Cloud].
func (c *Cloud) Dial(ctx context.Context, id string) (rotate.Session, error) {
	read, err := c.Credentials.Read(id)
	if err != nil {
		return nil, credential.Gone(err)
	}
	pair, err := read.Pair(c.Config.Identity.CA)
	if err != nil {
		return nil, credential.Gone(err)
	}
	thing, thingErr := c.Credentials.Thing()
	if id == rotate.Claim {
		return c.dialByClaim(ctx, pair, thing)
	}
	if thingErr != nil {
		return nil, thingErr
	}
	// A dialer of its own: that one credential is refused says nothing of the
	// endpoint, and the engine pauses by itself.
	dialer, err := c.dialer(pair, c.clientID(thing), false)
	if err != nil {
		return nil, err
	}
	s, err := c.dial(ctx, dialer, thing)
	if err != nil {
		return nil, err
	}
	return &enrolment{cloud: c, conn: s.conn, provisioner: s.Provisioner, thing: s.Client, session: s}, nil
}

func (c *Cloud) dialByClaim(ctx context.Context, pair tls.Certificate, thing string) (rotate.Session, error) {
	var err error
	if c.dialing.claim == nil {
		c.dialing.claim, err = c.dialer(pair, awsiot.ClaimClientID(cmp.Or(thing, rand.Text())), false)
	}
	if err != nil {
		return nil, err
	}
	c.dialing.claim.SetCertificate(pair)
	conn, err := c.dialing.claim.Dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &enrolment{cloud: c, conn: conn, provisioner: awsiot.NewProvisioner(conn)}, nil
}

// dial makes a session as the thing, and proves it.
func (c *Cloud) dial(ctx context.Context, dialer *mqtt.Dialer, thing string) (*Session, error) {
	if err := c.space(ctx); err != nil {
		return nil, err
	}
	var client *awsiot.Client
	conn, err := dialer.Dial(ctx, func(ctx context.Context, s *mqtt.Session) (err error) {
		client, err = awsiot.New(s, thing, c.Config.MQTT.ReportTopic)
		if err != nil {
			return err
		}
		return client.Probe(ctx)
	})
	c.dialing.last = time.Now()
	if err != nil {
		return nil, err
	}
	if err := c.Credentials.Keep(thing); err != nil {
		c.Log.Error("the device may get another name", "error", err)
	}
	return c.session(client, conn), nil
}

// space keeps the spacing where another dialer made the last connection.
func (c *Cloud) space(ctx context.Context) error {
	t := time.NewTimer(mqtt.ConnectSpacing - time.Since(c.dialing.last))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reportTime is how long the network should have to carry a report.
const reportTime = 2 * time.Minute

// ReportBytes returns how large a report should be at most on this network; 0 if
// that is not known.
func (c *Cloud) ReportBytes() int {
	if c.dialing.own == nil {
		return 0
	}
	return c.dialing.own.Carries(reportTime)
}

// dialer is a dialer that connects with pair.
func (c *Cloud) dialer(pair tls.Certificate, clientID string, persistent bool) (*mqtt.Dialer, error) {
	m := c.Config.MQTT
	roots, err := rootsOf(m.CAFile)
	if err != nil {
		return nil, err
	}
	return awsiot.NewDialer(mqtt.Config{
		Endpoints: m.Endpoints, ClientID: clientID, Certificate: pair, Roots: roots, Proxy: m.Proxy.For, Persistent: persistent,
		KeepAlive: m.KeepAlive.Duration, Timeout: m.Timeout.Duration, Longest: m.ReconnectMax.Duration, Attempts: c.Attempts,
		Changed: c.Changed, Network: c.Network, Log: c.Log,
	}, m.Pins)
}

// clientID is that of the thing.
func (c *Cloud) clientID(thing string) string { return cmp.Or(c.Config.MQTT.ClientID, thing) }

// maxRootsBytes bounds mqtt.ca_file.
const maxRootsBytes = 1 << 20

// rootsOf returns the certificates of the file; nil, which means the system's, for "".
func rootsOf(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := durable.ReadBounded(file, maxRootsBytes)
	if err != nil {
		return nil, fmt.Errorf("mqtt.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("mqtt.ca_file: %s holds no certificate in PEM", file)
	}
	return pool, nil
}
