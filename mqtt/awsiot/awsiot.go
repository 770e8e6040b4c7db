// Package awsiot speaks AWS IoT's own topics over one mqtt session: the probe
// that proves a session, the report, and the summary in the named shadow.
package awsiot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
)

// Client is one thing's side of AWS IoT on one session.
type Client struct {
	session     *mqtt.Session
	prefix      string // "$aws/things/T/"
	reportTopic string
	gateOpen    atomic.Bool
}

// CheckThingName tells whether AWS IoT takes name for a thing (CreateThing in
// the API reference).
func CheckThingName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_-"
	if name == "" || len(name) > 128 || strings.Trim(name, allowed) != "" {
		return fmt.Errorf("awsiot: thing name %q is not 1 to 128 of a-z, A-Z, 0-9, colon, underscore and hyphen", name)
	}
	return nil
}

// New makes the client of a thing. {thing} in reportTopic stands for its name.
func New(s *mqtt.Session, thing, reportTopic string) (*Client, error) {
	if err := CheckThingName(thing); err != nil {
		return nil, err
	}
	topic := strings.ReplaceAll(reportTopic, "{thing}", thing)
	if topic == "" || strings.HasPrefix(topic, "$") || strings.ContainsAny(topic, "+#{}") || len(topic) > mqtt.MaxTopic {
		return nil, fmt.Errorf("awsiot: %q cannot be the report topic", topic)
	}
	return &Client{session: s, prefix: "$aws/things/" + thing + "/", reportTopic: topic}, nil
}

// Probe asks for the next job, whatever it may be: an answer, a rejection
// included, proves that AWS IoT serves this session.
func (c *Client) Probe(ctx context.Context) error {
	_, err := c.session.Request(ctx, c.prefix+"jobs/$next/get", request(nil))
	var rejected *mqtt.Rejected
	if err != nil && !errors.As(err, &rejected) {
		return fmt.Errorf("awsiot: probe: %w", err)
	}
	return nil
}

// Publish sends the report and then its summary to the named shadow. It
// returns nil only once AWS IoT has accepted that very update; a rejection
// is a [*mqtt.Rejected].
func (c *Client) Publish(ctx context.Context, r *device.Report) error {
	payload, err := r.Encode()
	if err != nil {
		return fmt.Errorf("awsiot: publish report: %w", err)
	}
	state, err := c.summary(r).reported()
	if err != nil {
		return fmt.Errorf("awsiot: publish report: %w", err)
	}
	if err := c.session.Publish(ctx, c.reportTopic, payload); err != nil {
		return fmt.Errorf("awsiot: publish report: %w", err)
	}
	return c.updateShadow(ctx, state)
}

// ReportGate writes the state of the gate to the named shadow. A later Publish
// of this client repeats it; until then it says shut.
func (c *Client) ReportGate(ctx context.Context, open bool) error {
	c.gateOpen.Store(open)
	return c.updateShadow(ctx, map[string]any{"gate": gateWord(open)})
}

func gateWord(open bool) string {
	if open {
		return "open"
	}
	return "shut"
}

// updateShadow waits for update/accepted with its own clientToken.
func (c *Client) updateShadow(ctx context.Context, reported map[string]any) error {
	update := request(map[string]any{"state": map[string]any{"reported": reported}})
	if _, err := c.session.Request(ctx, c.prefix+"shadow/name/"+shadowName+"/update", update); err != nil {
		return fmt.Errorf("awsiot: update shadow: %w", err)
	}
	return nil
}

// request is doc with a clientToken that nobody else has (at most 64 bytes).
func request(doc map[string]any) []byte {
	withToken := map[string]any{"clientToken": rand.Text()}
	for name, value := range doc {
		withToken[name] = value
	}
	b, err := json.Marshal(withToken)
	if err != nil {
		panic(err) // of strings and lists of strings
	}
	return b
}
