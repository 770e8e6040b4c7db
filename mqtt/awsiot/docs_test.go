package awsiot_test

// docs/aws is held against what a client really publishes and subscribes to.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

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
				if s.Effect == "Allow" && s.Action == action && wildcard(r).MatchString("arn:aws:iot:REGION:ACCOUNT:"+resource) {
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
		long := strings.NewReplacer("arn:aws:", "arn:aws-us-gov:", "REGION", "ap-southeast-2", "ACCOUNT", "123456789012").Replace(string(text))
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

// template is the CloudFormation template with its short forms written out.
func template(t *testing.T) map[string]any {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal(readDoc(t, "cloudformation.yaml"), &root); err != nil {
		t.Fatal(err)
	}
	return plainNode(t, root.Content[0]).(map[string]any)
}

func plainNode(t *testing.T, n *yaml.Node) any {
	t.Helper()
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		t.Fatalf("line %d: CloudFormation takes no aliases", n.Line)
	}
	var value any
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any)
		for i := 0; i < len(n.Content); i += 2 {
			if _, twice := m[n.Content[i].Value]; twice {
				t.Errorf("line %d: %s is there twice", n.Line, n.Content[i].Value)
			}
			m[n.Content[i].Value] = plainNode(t, n.Content[i+1])
		}
		value = m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, plainNode(t, item))
		}
		value = list
	default:
		value = n.Value
	}
	if form, short := strings.CutPrefix(n.Tag, "!"); short && !strings.HasPrefix(form, "!") {
		name := map[string]string{"Ref": "Ref", "Sub": "Fn::Sub", "GetAtt": "Fn::GetAtt", "If": "Fn::If", "Equals": "Fn::Equals", "Not": "Fn::Not"}[form]
		if name == "" {
			t.Errorf("line %d: unknown function %s", n.Line, n.Tag)
		}
		value = map[string]any{name: value}
	}
	return value
}

// resources are those of the stack, by type and name.
func resource(t *testing.T, stack map[string]any, name, kind string) map[string]any {
	t.Helper()
	r, _ := stack["Resources"].(map[string]any)[name].(map[string]any)
	if r["Type"] != kind {
		t.Fatalf("%s is %v", name, r)
	}
	return r["Properties"].(map[string]any)
}

// literal is a value of the stack as it stands in the other files.
func literal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if text, ok := v["Fn::Sub"].(string); ok && len(v) == 1 {
			return strings.NewReplacer("${AWS::Partition}", "aws", "${AWS::Region}", "REGION", "${AWS::AccountId}", "ACCOUNT", "${!", "${").Replace(text)
		}
		m := make(map[string]any)
		for name, value := range v {
			m[name] = literal(value)
		}
		return m
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, literal(item))
		}
		return list
	}
	return v
}

func sameJSON(t *testing.T, what string, v any, file string) {
	t.Helper()
	var want any
	if err := json.Unmarshal(readDoc(t, file), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(literal(v), want) {
		t.Errorf("%s is not %s:\n%v\n%v", what, file, literal(v), want)
	}
}

// The stack is made of the same documents as lie beside it.
func TestStack(t *testing.T) {
	stack := template(t)
	sameJSON(t, "DevicePolicy", resource(t, stack, "DevicePolicy", "AWS::IoT::Policy")["PolicyDocument"], "device-policy.json")
	sameJSON(t, "ChallengePolicy", resource(t, stack, "ChallengePolicy", "AWS::IoT::Policy")["PolicyDocument"], "challenge-policy.json")
	sameJSON(t, "ClaimPolicy", resource(t, stack, "ClaimPolicy", "AWS::IoT::Policy")["PolicyDocument"], "claim-policy.json")
	choice := resource(t, stack, "RotatePolicy", "AWS::IoT::Policy")["PolicyDocument"].(map[string]any)["Fn::If"].([]any)
	if choice[0] != "ByTopics" {
		t.Errorf("condition %v", choice[0])
	}
	sameJSON(t, "RotatePolicy", choice[1], "rotate-by-topics-policy.json")
	sameJSON(t, "RotatePolicy", choice[2], "rotate-by-provisioning-policy.json")
	names := []string{}
	for name, kind := range map[string]string{"FirstTemplate": "keyvet-first", "RotateTemplate": "keyvet-rotate"} {
		r := resource(t, stack, name, "AWS::IoT::ProvisioningTemplate")
		var body any
		if err := json.Unmarshal([]byte(r["TemplateBody"].(string)), &body); err != nil {
			t.Fatal(err)
		}
		sameJSON(t, name, body, "provisioning-template.json")
		if r["TemplateName"] != kind || r["PreProvisioningHook"] == nil || r["Enabled"] != "true" {
			t.Errorf("%s: %v", name, r)
		}
		for _, part := range body.(map[string]any)["Resources"].(map[string]any) {
			if part := part.(map[string]any); part["Type"] == "AWS::IoT::Policy" {
				names = append(names, part["Properties"].(map[string]any)["PolicyName"].(string))
			}
		}
	}
	slices.Sort(names)
	if !slices.Equal(slices.Compact(names), []string{"keyvet-challenge", "keyvet-device", "keyvet-rotate"}) {
		t.Errorf("provisioning attaches %v", names)
	}
	checkReferences(t, stack)
}

// checkReferences finds what a function or a condition names and the stack does not have.
func checkReferences(t *testing.T, stack map[string]any) {
	t.Helper()
	named := func(part, name string) bool {
		_, ok := stack[part].(map[string]any)[name]
		return ok
	}
	seen := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			if name, ok := v["Ref"].(string); ok && len(v) == 1 {
				if seen++; !strings.HasPrefix(name, "AWS::") && !named("Resources", name) && !named("Parameters", name) {
					t.Errorf("Ref %s leads nowhere", name)
				}
			}
			if name, ok := v["Fn::GetAtt"].(string); ok {
				if name, _, dot := strings.Cut(name, "."); !dot || !named("Resources", name) {
					t.Errorf("GetAtt %s leads nowhere", name)
				}
				seen++
			}
			if choice, ok := v["Fn::If"].([]any); ok && (len(choice) != 3 || !named("Conditions", choice[0].(string))) {
				t.Errorf("If %v", choice)
			}
			if name, ok := v["Condition"].(string); ok && !named("Conditions", name) {
				t.Errorf("Condition %s leads nowhere", name)
			}
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(stack["Resources"])
	walk(stack["Outputs"])
	if seen < 10 {
		t.Errorf("%d references", seen)
	}
	for name, r := range stack["Resources"].(map[string]any) {
		after, _ := r.(map[string]any)["DependsOn"].([]any)
		for _, other := range after {
			if !named("Resources", other.(string)) {
				t.Errorf("%s depends on %s, which leads nowhere", name, other)
			}
		}
	}
}

// The rule takes what the client publishes, and every member that it selects is there.
func TestRule(t *testing.T) {
	stack := template(t)
	sql := resource(t, stack, "FindingsRule", "AWS::IoT::TopicRule")["TopicRulePayload"].(map[string]any)["Sql"].(string)
	parts := regexp.MustCompile(`^SELECT (.*) FROM '(.*)'$`).FindStringSubmatch(sql)
	if parts == nil {
		t.Fatal(sql)
	}
	sent := sentFindings(t)
	if ok, err := path.Match(strings.ReplaceAll(parts[2], "+", "*"), sent.topic); !ok || err != nil {
		t.Errorf("the rule is on %s, the findings on %s", parts[2], sent.topic)
	}
	for _, selected := range strings.Split(parts[1], ", ") {
		if expression, _, as := strings.Cut(selected, " AS "); as {
			if expression != "topic(2)" && expression != "timestamp()" {
				t.Errorf("selects %s", expression)
			}
		} else if sent.doc[selected] == nil && selected != "leftOut" {
			t.Errorf("selects %s, which is not in %s", selected, sent.raw)
		}
	}
}

func sentFindings(t *testing.T) request {
	t.Helper()
	s, c := dialScript(t, nil)
	r := &device.Report{
		ID: "r1", ThingName: thing, Time: time.Unix(1700000000, 0),
		Keys: []device.KeyReport{{ID: "device", Role: device.RoleDevice, Certificate: &device.Certificate{SHA256: "c1"}}},
		Findings: []device.Finding{
			{Check: "roca", Key: "device", Status: device.Fail, Severity: device.Critical, ReasonCode: device.ReasonROCA, Message: "weak", Citation: "https://example.com"},
			{Check: "size", Key: "device", Status: device.Warn, Severity: device.Low, ReasonCode: "KEYVET_RSA_TOO_LONG", Message: strings.Repeat("ü", 3000)},
			{Check: "size", Key: device.TPMKeyID, Status: device.Undecided},
		},
	}
	if err := c.PublishFindings(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return s.requests()[0]
}

// python runs a function of the stack, as Lambda does, with a stand-in for boto3.
func python(t *testing.T, function, boto3, call string, event any) string {
	t.Helper()
	code, _ := resource(t, template(t), function, "AWS::Lambda::Function")["Code"].(map[string]any)["ZipFile"].(string)
	if len(code) == 0 || len(code) > 4096 { // CloudFormation takes no more inline
		t.Fatalf("%s: %d characters", function, len(code))
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"index.py": code, "boto3.py": boto3, "call.py": call} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	input, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(dir, "call.py"))
	cmd.Env = append(os.Environ(), "AWS_REGION=eu-west-1", "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3 (Debian package python3): %v\n%s", err, stderr.String())
	}
	return string(out)
}

// Security Hub gets findings in its own format: the members that AWS Security
// Finding Format requires, within their lengths.
func TestSecurityHub(t *testing.T) {
	sent := sentFindings(t)
	event := map[string]any{"reportId": sent.doc["reportId"], "verdict": sent.doc["verdict"], "findings": sent.doc["findings"], "thingName": thing, "receivedAt": int64(1700000000123)}
	out := python(t, "SecurityHubFunction", `
class Hub:
    def batch_import_findings(self, Findings):
        import json
        print(json.dumps(Findings))
        return {"FailedCount": 0}
def client(name):
    assert name == "securityhub"
    return Hub()
`, `
import json, sys, types, index
index.handler(json.load(sys.stdin), types.SimpleNamespace(invoked_function_arn="arn:aws-cn:lambda:eu-west-1:123456789012:function:f"))
`, event)
	var imported []struct {
		SchemaVersion, Id, ProductArn, GeneratorId, AwsAccountId, CreatedAt, UpdatedAt, Title, Description string
		Types                                                                                              []string
		Severity                                                                                           struct{ Label string }
		Resources                                                                                          []struct {
			Type, Id, Partition, Region string
			Details                     struct{ Other map[string]string }
		}
	}
	if err := json.Unmarshal([]byte(out), &imported); err != nil {
		t.Fatal(err)
	}
	if len(imported) != 3 {
		t.Fatalf("%s", out)
	}
	for i, f := range imported {
		if f.SchemaVersion != "2018-10-08" || f.AwsAccountId != "123456789012" || f.ProductArn != "arn:aws-cn:securityhub:eu-west-1:123456789012:product/123456789012/default" ||
			!strings.HasPrefix(f.Id, "keyvet/"+thing+"/") || f.GeneratorId == "keyvet/" || f.Title == "" || len([]rune(f.Title)) > 256 || f.Description == "" || len([]rune(f.Description)) > 1024 ||
			len(f.Types) != 1 || len(f.Resources) != 1 || f.Resources[0].Id != "arn:aws-cn:iot:eu-west-1:123456789012:thing/"+thing || f.Resources[0].Partition != "aws-cn" {
			t.Errorf("%+v", f)
		}
		if at, err := time.Parse(time.RFC3339, f.CreatedAt); err != nil || at.Unix() != 1700000000 {
			t.Errorf("created at %q: %v", f.CreatedAt, err)
		}
		if want := []string{"CRITICAL", "MEDIUM", "LOW"}[i]; f.Severity.Label != want {
			t.Errorf("severity %s, want %s", f.Severity.Label, want)
		}
	}
	first := imported[0]
	if first.Types[0] != "Software and Configuration Checks/Vulnerabilities/CVE" || first.Resources[0].Details.Other["deviceCertificateId"] != "c1" || first.Title != device.ReasonROCA+" on "+thing {
		t.Errorf("%+v", first)
	}
}

// A claim makes new things alone, and a device its own certificate alone.
func TestHook(t *testing.T) {
	boto3 := `
class NotFound(Exception): pass
class Errors: ResourceNotFoundException = NotFound
class IoT:
    exceptions = Errors
    things = {"gw": [["arn:aws:iot:r:1:cert/old"], ["arn:aws:iot:r:1:cert/new"]], "empty": [[]]}
    def list_thing_principals(self, thingName, nextToken=None):
        if thingName not in self.things: raise NotFound()
        pages, n = self.things[thingName], int(nextToken or 0)
        page = {"principals": pages[n]}
        if n + 1 < len(pages): page["nextToken"] = str(n + 1)
        return page
def client(name): return IoT()
`
	call := `
import json, sys, index
print(" ".join(str(index.handler(e, None)["allowProvisioning"]) for e in json.load(sys.stdin)))
`
	events, want := []any{}, []string{}
	for _, tt := range []struct {
		template, thing, claim, certificate, want string
	}{
		{"keyvet-first", "other", "claim", "c9", "True"},
		{"keyvet-first", "gw", "claim", "c9", "False"},
		{"keyvet-first", "empty", "claim", "c9", "False"},
		{"keyvet-first", "gw", "claim", "new", "True"}, // the answer was lost
		{"keyvet-rotate", "gw", "old", "c9", "True"},
		{"keyvet-rotate", "gw", "new", "c9", "True"},
		{"keyvet-rotate", "gw", "ld", "c9", "False"},
		{"keyvet-rotate", "gw", "foreign", "c9", "False"},
		{"keyvet-rotate", "other", "old", "c9", "False"},
		{"not-keyvet-rotate", "gw", "old", "c9", "False"},
	} {
		events = append(events, map[string]any{
			"templateArn": "arn:aws:iot:r:1:provisioningtemplate/" + tt.template, "claimCertificateId": tt.claim, "certificateId": tt.certificate,
			"clientId": "x", "parameters": map[string]string{"ThingName": tt.thing},
		})
		want = append(want, tt.want)
	}
	if got := strings.TrimSpace(python(t, "HookFunction", boto3, call, events)); got != strings.Join(want, " ") {
		t.Errorf("got  %s\nwant %s", got, strings.Join(want, " "))
	}
}

// The operator's words name what there is.
func TestDocsREADME(t *testing.T) {
	text := string(readDoc(t, "README.md"))
	err := filepath.WalkDir(docs, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
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
