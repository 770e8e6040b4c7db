package awsiot_test

// docs/aws is held against what a client really publishes and subscribes to.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

const docs = "../../docs/aws"

func readDoc(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// policy is an AWS IoT policy that allows and nothing else.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid, Effect, Action string
	Resource            []string
	Condition           map[string]map[string]string
}

func parsePolicy(t *testing.T, b []byte) policy {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var p policy
	if err := dec.Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// allows reports whether one of the policies has a statement for the action on
// the resource, as AWS IoT decides on it for our thing: * matches anything, +
// and # are characters.
func allows(action, resource string, policies ...policy) bool {
	for _, p := range policies {
		for _, s := range p.Statement {
			for _, r := range s.Resource {
				if s.Effect == "Allow" && s.Action == action && wildcard(r).MatchString("arn:PARTITION:iot:REGION:ACCOUNT:"+resource) {
					return true
				}
			}
		}
	}
	return false
}

func wildcard(resource string) *regexp.Regexp {
	resource = strings.ReplaceAll(resource, "${iot:Connection.Thing.ThingName}", thing)
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(resource), `\*`, ".*") + "$")
}

// use is one operation that a policy has to allow.
type use struct{ action, resource string }

// uses are the operations of a session, from what the broker saw of it. Replies
// go to the siblings of a request, messages to the filters.
func (s *script) uses(clientID string) []use {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []use{{"iot:Connect", "client/" + clientID}}
	for _, r := range s.published {
		all = append(all, use{"iot:Publish", "topic/" + r.topic})
	}
	for _, filter := range s.filters {
		all = append(all, use{"iot:Subscribe", "topicfilter/" + filter}, use{"iot:Receive", "topic/" + strings.ReplaceAll(filter, "+", "job-1")})
	}
	return all
}

// sessions does all that a client can, and records it: what every device does,
// what a rotation by either issuer does besides, and what a claim does.
func sessions(t *testing.T) map[string][]use {
	t.Helper()
	cert := quoted(t, certificatePEM(t))
	answered := make(chan struct{})
	var current *script
	answerer := func(r request) answer {
		switch {
		case strings.HasSuffix(r.topic, "/challenge/answer"):
			close(answered)
		case strings.Contains(r.topic, "certificate"):
			return accept(`{"certificateId":"a","certificatePem":%s,"certificateOwnershipToken":"t"}`, cert)
		case strings.Contains(r.topic, "provision"):
			return accept(`{"thingName":"gateway-0042"}`)
		}
		return accept(`{}`)
	}
	report := &device.Report{ID: "r1", Findings: []device.Finding{{Check: "roca", Status: device.Fail, ReasonCode: device.ReasonROCA}}}
	ctx := t.Context()
	job := &awsiot.Job{ID: "job-1"}
	details := map[string]string{"step": "vet"}
	methods := map[string]func(c *awsiot.Client, p awsiot.Provisioner) error{
		"Probe":           func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.Probe(ctx) },
		"Publish":         func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.Publish(ctx, report) },
		"PublishEarlier":  func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.PublishEarlier(ctx, report) },
		"Summarize":       func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.Summarize(ctx, report) },
		"PublishFindings": func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.PublishFindings(ctx, report) },
		"ReportGate":      func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.ReportGate(ctx, "open") },
		"SetGate":         func(c *awsiot.Client, _ awsiot.Provisioner) error { c.SetGate("shut"); return nil },
		"ReportMetrics":   func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.ReportMetrics(ctx, awsiot.Metrics{}) },
		"PendingJobs":     func(c *awsiot.Client, _ awsiot.Provisioner) error { _, err := c.PendingJobs(ctx); return err },
		"DescribeJob":     func(c *awsiot.Client, _ awsiot.Provisioner) error { _, err := c.DescribeJob(ctx, job.ID); return err },
		"UpdateJob": func(c *awsiot.Client, _ awsiot.Provisioner) error {
			return c.UpdateJob(ctx, job, device.JobFailed, details)
		},
		"ReportJob": func(c *awsiot.Client, _ awsiot.Provisioner) error {
			return c.ReportJob(ctx, job.ID, device.JobRejected)
		},
		"OnJobs":           func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.OnJobs(ctx, func(*awsiot.Job) {}) },
		"OnDesiredCheck":   func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.OnDesiredCheck(ctx, func(string) {}) },
		"AcknowledgeCheck": func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.AcknowledgeCheck(ctx, "t") },
		"CreateCertificate": func(_ *awsiot.Client, p awsiot.Provisioner) error {
			_, err := p.CreateCertificate(ctx, []byte("CSR"))
			return err
		},
		"RequestCertificate": func(c *awsiot.Client, _ awsiot.Provisioner) error {
			_, err := c.RequestCertificate(ctx, "j", []byte("CSR"))
			return err
		},
		"CommitCertificate": func(c *awsiot.Client, _ awsiot.Provisioner) error { return c.CommitCertificate(ctx, "j", "a") },
		"OnChallenge": func(c *awsiot.Client, _ awsiot.Provisioner) error {
			err := c.OnChallenge(ctx, nil)
			if err == nil {
				err = current.broker.Publish("keyvet/"+thing+"/challenge", []byte("{}"), false, 1) // is answered, with the reason
			}
			select {
			case <-answered:
			case <-time.After(patience):
				return errors.Join(err, errors.New("the challenge is not answered"))
			}
			return err
		},
	}
	register := func(template string) func(*awsiot.Client, awsiot.Provisioner) error {
		return func(_ *awsiot.Client, p awsiot.Provisioner) error {
			_, _, err := p.RegisterThing(ctx, template, "t", nil)
			return err
		}
	}
	besides := []string{"OnChallenge", "CreateCertificate", "RegisterThing", "RequestCertificate", "CommitCertificate"}
	// A new method must be put here.
	client := reflect.TypeFor[*awsiot.Client]()
	for i := range client.NumMethod() {
		if name := client.Method(i).Name; methods[name] == nil && name != "RegisterThing" {
			t.Errorf("%s is not held against the policies", name)
		}
	}
	record := func(clientID string, do ...func(*awsiot.Client, awsiot.Provisioner) error) []use {
		s := newScript(t, answerer)
		s.config.ClientID = clientID
		current = s
		session, err := mqtt.Dial(ctx, s.config, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		c, err := awsiot.New(session, thing, "keyvet/{thing}/report")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range do {
			if err := f(c, awsiot.NewProvisioner(session)); err != nil {
				t.Fatal(err)
			}
		}
		return s.uses(clientID)
	}
	var always []func(*awsiot.Client, awsiot.Provisioner) error
	for name, f := range methods {
		if !slices.Contains(besides, name) {
			always = append(always, f)
		}
	}
	return map[string][]use{
		"device":                 record(thing, always...),
		"rotate-by-provisioning": record(thing, methods["CreateCertificate"], register("keyvet-rotate")),
		"rotate-by-topics":       record(thing, methods["RequestCertificate"], methods["CommitCertificate"]),
		"challenge":              record(thing, methods["OnChallenge"]),
		"claim":                  record(awsiot.ClaimClientID(thing), methods["CreateCertificate"], register("keyvet-first")),
	}
}

func TestPolicies(t *testing.T) {
	recorded := sessions(t)
	deviceToo := parsePolicy(t, readDoc(t, "device-policy.json"))
	for name, uses := range recorded {
		text := readDoc(t, name+"-policy.json")
		p := parsePolicy(t, text)
		with := []policy{p}
		if strings.HasPrefix(name, "rotate") || name == "challenge" { // stands beside the device's
			with = append(with, deviceToo)
		}
		for _, u := range uses {
			if !allows(u.action, u.resource, with...) {
				t.Errorf("%s: %s on %s is not allowed, and is done", name, u.action, u.resource)
			}
		}
		// Nothing can be left out.
		for i, s := range p.Statement {
			if p.Version != "2012-10-17" || s.Effect != "Allow" || len(s.Resource) == 0 {
				t.Errorf("%s: %+v", name, s)
			}
			for j, resource := range s.Resource {
				less := policy{Statement: slices.Clone(p.Statement)}
				less.Statement[i].Resource = slices.Delete(slices.Clone(s.Resource), j, j+1)
				if !slices.ContainsFunc(uses, func(u use) bool { return !allows(u.action, u.resource, less) && allows(u.action, u.resource, p) }) {
					t.Errorf("%s: nobody needs %s on %s", name, s.Action, resource)
				}
			}
		}
		// AWS IoT takes 2,048 characters besides white space (API reference,
		// "CreatePolicy"), in the longest region, too.
		long := strings.NewReplacer("PARTITION", "aws-us-gov", "REGION", "ap-southeast-2", "ACCOUNT", "123456789012").Replace(string(text))
		if n := len(strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) {
				return -1
			}
			return r
		}, long)); n > 2048 {
			t.Errorf("%s: %d characters", name, n)
		}
	}
}

// What no policy may let happen.
func TestPoliciesRefuse(t *testing.T) {
	for name, refused := range map[string][]string{
		"device": {
			"iot:Connect client/another", "iot:Connect client/*", "iot:Connect client/keyvet-claim-gateway-0042",
			"iot:Publish topic/keyvet/another/report", "iot:Publish topic/keyvet/another/findings", "iot:Publish topic/keyvet/gateway-0042/report/x",
			"iot:Publish topic/keyvet/gateway-0042/certificate/create", "iot:Publish topic/$aws/certificates/create-from-csr/json",
			"iot:Publish topic/$aws/certificates/create/json", "iot:Publish topic/$aws/things/another/jobs/get", "iot:Publish topic/$aws/things/gateway-00421/jobs/get",
			"iot:Publish topic/$aws/things/gateway-0042/shadow/update", "iot:Publish topic/$aws/things/gateway-0042/shadow/name/other/update",
			"iot:Publish topic/$aws/things/gateway-0042/shadow/name/keyvet/delete", "iot:Publish topic/$aws/things/gateway-0042/shadow/name/keyvet/update/accepted",
			"iot:Publish topic/$aws/things/gateway-0042/defender/metrics/cbor",
			"iot:Publish topic/$aws/rules/any", "iot:Publish topic/anything",
			"iot:Subscribe topicfilter/#", "iot:Subscribe topicfilter/+/+/report", "iot:Subscribe topicfilter/keyvet/+/report", "iot:Subscribe topicfilter/keyvet/gateway-0042/report",
			"iot:Subscribe topicfilter/$aws/things/+/jobs/#", "iot:Subscribe topicfilter/$aws/things/another/jobs/notify-next",
			"iot:Subscribe topicfilter/$aws/things/gateway-0042/#", "iot:Subscribe topicfilter/$aws/things/gateway-0042/shadow/#", "iot:Subscribe topicfilter/$aws/events/#",
			"iot:Receive topic/keyvet/another/report", "iot:Receive topic/$aws/things/another/jobs/notify-next", "iot:Receive topic/$aws/things/gateway-0042/shadow/update/delta",
		},
		"rotate-by-provisioning": {
			"iot:Connect client/gateway-0042", "iot:Publish topic/$aws/certificates/create/json", "iot:Publish topic/$aws/provisioning-templates/keyvet-first/provision/json",
			"iot:Publish topic/$aws/provisioning-templates/other/provision/json", "iot:Subscribe topicfilter/$aws/certificates/#",
		},
		"challenge": {
			"iot:Connect client/gateway-0042", "iot:Publish topic/keyvet/another/challenge/answer", "iot:Publish topic/keyvet/gateway-0042/challenge",
			"iot:Subscribe topicfilter/keyvet/+/challenge", "iot:Subscribe topicfilter/keyvet/gateway-0042/#", "iot:Receive topic/keyvet/another/challenge",
		},
		"rotate-by-topics": {
			"iot:Connect client/gateway-0042", "iot:Publish topic/keyvet/another/certificate/create", "iot:Publish topic/keyvet/gateway-0042/certificate/create/accepted",
			"iot:Subscribe topicfilter/keyvet/+/certificate/create/accepted", "iot:Publish topic/$aws/certificates/create-from-csr/json",
		},
		"claim": {
			"iot:Connect client/gateway-0042", "iot:Publish topic/keyvet/gateway-0042/report", "iot:Publish topic/$aws/certificates/create/json",
			"iot:Publish topic/$aws/provisioning-templates/keyvet-rotate/provision/json", "iot:Publish topic/$aws/things/gateway-0042/jobs/get",
			"iot:Subscribe topicfilter/$aws/things/gateway-0042/jobs/notify-next", "iot:Subscribe topicfilter/#",
		},
	} {
		p := parsePolicy(t, readDoc(t, name+"-policy.json"))
		for _, what := range refused {
			action, resource, _ := strings.Cut(what, " ")
			if allows(action, resource, p) {
				t.Errorf("%s allows %s", name, what)
			}
		}
	}
	connect := parsePolicy(t, readDoc(t, "device-policy.json")).Statement[0]
	if connect.Action != "iot:Connect" || connect.Condition["Bool"]["iot:Connection.Thing.IsAttached"] != "true" {
		t.Errorf("a certificate that is no thing's may connect: %+v", connect)
	}
}

func TestClaimClientID(t *testing.T) {
	long := awsiot.ClaimClientID(strings.Repeat("x", 128))
	if id := awsiot.ClaimClientID("gw"); id != "keyvet-claim-gw" || len(long) != 128 {
		t.Errorf("%q, %q", id, long)
	}
}

func TestJobDocuments(t *testing.T) {
	for name, want := range map[string]awsiot.Operation{
		"check.json":  {Name: awsiot.OperationCheck},
		"rotate.json": {Name: awsiot.OperationRotate, Key: "ecdsa-p256"},
	} {
		if op, err := awsiot.ParseOperation(readDoc(t, path.Join("jobs", name))); err != nil || op != want {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
	}
}

// The account defines the metrics that are sent, of the kind that they have.
func TestMetricDefinitions(t *testing.T) {
	var defined []struct{ MetricName, MetricType, DisplayName string }
	if err := json.Unmarshal(readDoc(t, "metrics.json"), &defined); err != nil {
		t.Fatal(err)
	}
	s, c := dialScript(t, func(request) answer { return accept("{}") })
	if err := c.ReportMetrics(t.Context(), awsiot.Metrics{Findings: []string{"KEYVET_X"}}); err != nil {
		t.Fatal(err)
	}
	sent := s.requests()[0].doc["custom_metrics"].(map[string]any)
	for _, d := range defined {
		kind := map[string]string{"number": "number", "string-list": "string_list"}[d.MetricType]
		if list, _ := sent[d.MetricName].([]any); len(list) != 1 || list[0].(map[string]any)[kind] == nil || d.DisplayName == "" {
			t.Errorf("%+v is sent as %v", d, sent[d.MetricName])
		}
	}
	if len(defined) != len(sent) {
		t.Errorf("defined %v, sent %v", defined, sent)
	}
	for _, r := range template(t)["Resources"].(map[string]any) {
		if r := r.(map[string]any); r["Type"] == "AWS::IoT::CustomMetric" {
			p := r["Properties"].(map[string]any)
			if !slices.ContainsFunc(defined, func(d struct{ MetricName, MetricType, DisplayName string }) bool {
				return p["MetricName"] == d.MetricName && p["MetricType"] == d.MetricType && p["DisplayName"] == d.DisplayName
			}) || len(p) != 3 {
				t.Errorf("the stack defines %v", p)
			}
			sent[p["MetricName"].(string)] = nil
		}
	}
	for name, value := range sent {
		if value != nil {
			t.Errorf("the stack does not define %s", name)
		}
	}
}

// The operator's words name what there is.
func TestDocsREADME(t *testing.T) {
	text := string(readDoc(t, "README.md"))
	err := filepath.WalkDir(docs, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name == filepath.Join(docs, "layer", "bin", "keyvet") { // built
			return nil
		}
		rel, err := filepath.Rel(docs, name)
		if err == nil && rel != "README.md" && !strings.Contains(text, rel) {
			err = fmt.Errorf("README.md does not tell of %s", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
