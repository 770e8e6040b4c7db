// Package awsiot speaks AWS IoT's protocols over one mqtt session: the probe
// that proves a session, the report with its findings and the summary in the
// named shadow, Jobs, fleet provisioning, the operator's own issuer, desired
// checks, and custom metrics of Device Defender.
//
// What AWS IoT sends is bounded and read with care: a reply that makes no sense
// is an error of the call, never a panic, and never "nothing there".
package awsiot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
)

// Client is one thing's side of AWS IoT on one session.
type Client struct {
	Provisioner // on the thing's own session, for rotation

	// Pace is New's own; put that of the client before in its place, and its
	// five minutes hold across reconnections.
	Pace *Pace
	Log  *slog.Logger // none at first; shows what was ignored
	// Answered is called with the time of AWS IoT's answer to a report, by its own
	// clock; may be nil.
	Answered func(time.Time)

	thing       string
	prefix      string // "$aws/things/T/"
	reportTopic string
	gate        atomic.Value // string: open, shut, stuck

	mu     sync.Mutex
	logged string // the last of logOnce
}

// The characters of AWS IoT's names; those of things and of statusDetails have
// a colon besides.
const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// validName reports whether name is one that AWS IoT could have given, and so
// whether it is safe in a topic and as the name of a file.
func validName(name string) bool {
	return name != "" && len(name) <= 128 && strings.Trim(name, nameCharacters) == ""
}

// CheckThingName reports whether AWS IoT takes name for a thing (CreateThing in
// the API reference).
func CheckThingName(name string) error {
	if !validName(strings.ReplaceAll(name, ":", "_")) {
		return fmt.Errorf("thing name %q is not 1 to 128 of a-z, A-Z, 0-9, colon, underscore and hyphen", name)
	}
	return nil
}

// CheckReportTopic reports whether reports can be published to the topic, in
// which {thing} stands for the thing's name.
func CheckReportTopic(topic string) error {
	bare := strings.ReplaceAll(topic, "{thing}", "")
	if topic == "" || strings.HasPrefix(topic, "$") || strings.ContainsAny(bare, "+#{}") || len(topic) > maxTopic || strings.Count(topic, "/") > maxSlashes {
		return fmt.Errorf("the report topic %q is not 1 to %d bytes without a leading $, +, #, braces and more than %d slashes", topic, maxTopic, maxSlashes)
	}
	return nil
}

// New makes the client of a thing. {thing} in reportTopic stands for its name.
func New(s *mqtt.Session, thing, reportTopic string) (*Client, error) {
	if err := CheckThingName(thing); err != nil {
		return nil, err
	}
	topic := strings.ReplaceAll(reportTopic, "{thing}", thing)
	if err := CheckReportTopic(topic); err != nil {
		return nil, err
	}
	return &Client{
		Provisioner: NewProvisioner(s), Pace: new(Pace), Log: slog.New(slog.DiscardHandler),
		thing: thing, prefix: "$aws/things/" + thing + "/", reportTopic: topic,
	}, nil
}

// shadow is a topic of the named shadow, own one of the thing's in keyvet's
// own namespace.
func (c *Client) shadow(operation string) string {
	return c.prefix + "shadow/name/" + shadowName + "/" + operation
}
func (c *Client) own(operation string) string { return "keyvet/" + c.thing + "/" + operation }

// Probe asks for the next job, whatever it may be: an answer, a rejection
// included, proves that AWS IoT serves this session.
func (c *Client) Probe(ctx context.Context) error {
	_, err := c.jobRequest(ctx, NextJob, "get", nil)
	var rejected *Rejected
	if err != nil && !errors.As(err, &rejected) {
		return err
	}
	return nil
}

// Publish sends the report and then its summary to the named shadow. It
// returns nil only once AWS IoT has accepted that very update; a rejection
// is a [*Rejected].
func (c *Client) Publish(ctx context.Context, r *device.Report) error {
	if err := c.PublishEarlier(ctx, r); err != nil {
		return err
	}
	return c.Summarize(ctx, r)
}

// Summarize writes the summary of a report, which was published, to the named
// shadow. It returns nil only once AWS IoT has accepted that very update.
func (c *Client) Summarize(ctx context.Context, r *device.Report) error {
	state, err := c.summary(r).reported()
	if err != nil {
		return fmt.Errorf("summary of the report: %w", err)
	}
	at, err := c.updateShadow(ctx, state)
	if err == nil && c.Answered != nil && !at.IsZero() {
		c.Answered(at)
	}
	return err
}

// PublishEarlier sends a report and leaves the shadow, which shows a newer one,
// as it is. It returns nil once AWS IoT has taken the message (PUBACK).
func (c *Client) PublishEarlier(ctx context.Context, r *device.Report) error {
	if err := c.session.Publish(ctx, c.reportTopic, r.Encode()); err != nil {
		return err
	}
	return nil
}

// ReportGate writes how the gate stands, "open", "shut" or "stuck", to the named
// shadow. A later Publish of this client repeats it; see [Client.SetGate].
func (c *Client) ReportGate(ctx context.Context, gate string) error {
	c.SetGate(gate)
	_, err := c.updateShadow(ctx, map[string]any{"gate": gate})
	return err
}

// ReportJob writes to the named shadow that a job of keyvet's was ended by somebody
// else.
func (c *Client) ReportJob(ctx context.Context, id string, status device.JobState) error {
	_, err := c.updateShadow(ctx, map[string]any{"jobTaken": map[string]any{"jobId": id, "status": status}})
	return err
}

// SetGate is how the gate stands for the next Publish. Before the first, the
// shadow says "stuck", which is what nobody has said anything of.
func (c *Client) SetGate(gate string) { c.gate.Store(gate) }

func (c *Client) gateWord() string {
	if word, ok := c.gate.Load().(string); ok {
		return word
	}
	return "stuck"
}

// updateShadow waits for update/accepted with its own clientToken, and returns the
// timestamp in it.
func (c *Client) updateShadow(ctx context.Context, reported map[string]any) (time.Time, error) {
	update := withToken(map[string]any{"state": map[string]any{"reported": reported}})
	reply, err := request(ctx, c.session, c.shadow("update"), update)
	if err != nil {
		return time.Time{}, fmt.Errorf("update shadow: %w", err)
	}
	return timestamp(reply), nil
}

// timestamp is that of a reply, which AWS IoT gives in seconds since 1970, and
// sometimes in milliseconds; zero if there is none.
func timestamp(reply []byte) time.Time {
	var doc struct {
		Timestamp int64 `json:"timestamp"`
	}
	if decode(reply, &doc) != nil || doc.Timestamp <= 0 {
		return time.Time{}
	}
	if doc.Timestamp > 1e11 { // seconds: the year 5138
		return time.UnixMilli(doc.Timestamp)
	}
	return time.Unix(doc.Timestamp, 0)
}

// logOnce tells of what was ignored, and does not repeat itself when the same
// comes again.
func (c *Client) logOnce(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if said := what + err.Error(); said != c.logged {
		c.logged = said
		c.Log.Warn(what, "reason", err)
	}
}

// withToken is the JSON of doc with a clientToken that nobody else has (at
// most 64 bytes).
func withToken(doc map[string]any) []byte {
	all := map[string]any{"clientToken": rand.Text()}
	for name, value := range doc {
		all[name] = value
	}
	return plain(all)
}

// plain is the JSON of doc, for services that know no clientToken.
func plain(doc map[string]any) []byte {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // of strings, numbers and lists of them
	}
	return b
}

// decode reads a reply or a message into v.
func decode(payload []byte, v any) error {
	if len(payload) > maxPayload {
		return fmt.Errorf("%d bytes of JSON are more than %d", len(payload), maxPayload)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("malformed JSON: %v", err)
	}
	return nil
}
