package awsiot_test

// The stack of docs/aws: the same documents as lie beside it, and what AWS published
// of its resources.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	"go.yaml.in/yaml/v3"

	"github.com/keyvet/keyvet/device"
)

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
		if n.Tag == "!!null" {
			value = nil
		}
	}
	if form, short := strings.CutPrefix(n.Tag, "!"); short && !strings.HasPrefix(form, "!") {
		name := map[string]string{"Ref": "Ref", "Sub": "Fn::Sub", "GetAtt": "Fn::GetAtt", "If": "Fn::If", "Equals": "Fn::Equals", "Not": "Fn::Not", "Or": "Fn::Or"}[form]
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
			return strings.NewReplacer("${AWS::Partition}", "PARTITION", "${AWS::Region}", "REGION", "${AWS::AccountId}", "ACCOUNT", "${!", "${").Replace(text)
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
	var body any
	if err := json.Unmarshal([]byte(resource(t, stack, "JustInTimeTemplate", "AWS::IoT::ProvisioningTemplate")["TemplateBody"].(string)), &body); err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "JustInTimeTemplate", body, "jitp-template.json")
	for name, file := range map[string]string{"CheckJob": "jobs/check.json", "RotateJob": "jobs/rotate.json"} {
		if err := json.Unmarshal([]byte(resource(t, stack, name, "AWS::IoT::JobTemplate")["Document"].(string)), &body); err != nil {
			t.Fatal(err)
		}
		sameJSON(t, name, body, file)
	}
	checkReferences(t, stack)
}

// A partition, region or account that is written out is that of one customer alone.
func TestStackIsNobodys(t *testing.T) {
	for _, name := range []string{"cloudformation.yaml", "device-policy.json", "claim-policy.json", "challenge-policy.json", "rotate-by-topics-policy.json", "rotate-by-provisioning-policy.json"} {
		if found := regexp.MustCompile(`arn:aws[a-z-]*:|[a-z]{2}-[a-z]+-[0-9]|[0-9]{12}`).Find(readDoc(t, name)); found != nil {
			t.Errorf("%s has %s", name, found)
		}
	}
}

// What functions are given, they read, and the reverse; and each may be called by
// what calls it.
func TestStackEnvironment(t *testing.T) {
	stack := template(t)
	reads := regexp.MustCompile(`os\.environ\[?\.?(?:get\()?"([A-Z_]+)"|wanted\("([A-Z_]+)"\)`)
	imports := regexp.MustCompile(`(?m)^import (\w+)$`)
	files := make(map[string]bool)
	var needs func(file string, seen map[string]bool) map[string]bool
	needs = func(file string, seen map[string]bool) map[string]bool {
		all := make(map[string]bool)
		b, err := os.ReadFile(filepath.Join(docs, "functions", file+".py"))
		if err != nil || seen[file] {
			return all // the library's
		}
		seen[file], files[file] = true, true
		for _, m := range reads.FindAllStringSubmatch(string(b), -1) {
			all[m[1]+m[2]] = true
		}
		for _, m := range imports.FindAllStringSubmatch(string(b), -1) {
			for name := range needs(m[1], seen) {
				all[name] = true
			}
		}
		return all
	}
	for name, r := range stack["Resources"].(map[string]any) {
		r := r.(map[string]any)
		if r["Type"] != "AWS::Lambda::Function" {
			continue
		}
		p := r["Properties"].(map[string]any)
		handler, _, _ := strings.Cut(p["Handler"].(string), ".")
		if p["MemorySize"] == nil || p["Timeout"] == nil {
			t.Errorf("%s has no memory or time-out", name)
		}
		if handler == "index" {
			continue
		}
		wanted := needs(handler, make(map[string]bool))
		layered := wanted["KEYVET"]
		delete(wanted, "KEYVET")
		delete(wanted, "AWS_REGION") // Lambda's own
		if (p["Layers"] != nil) != layered {
			t.Errorf("%s: layers %v, and checks keys is %v", name, p["Layers"], layered)
		}
		given := map[string]any{}
		if env, ok := p["Environment"].(map[string]any); ok {
			given = env["Variables"].(map[string]any)
		}
		for want := range wanted {
			if given[want] == nil && want != "NOTICES" {
				t.Errorf("%s reads %s, which the stack does not set", name, want)
			}
		}
		for is := range given {
			if !wanted[is] && is != "NOTICES" {
				t.Errorf("%s does not read %s", name, is)
			}
		}
		if wanted["NOTICES"] && given["NOTICES"] == nil {
			t.Errorf("%s sends notices nowhere", name)
		}
	}
	written, err := filepath.Glob(filepath.Join(docs, "functions", "*.py"))
	if err != nil || len(written) != len(files) {
		t.Errorf("%d files, %d in use: %v", len(written), len(files), err)
	}
}

// A role has what its function calls, and no more.
func TestStackRoles(t *testing.T) {
	stack := template(t)
	calls := regexp.MustCompile(`(?:\b(iot|sns|dynamodb|data|hub|pca|cloudwatch)\.|boto3\.client\("(iot|lambda)"\)\.)([a-z_]+)\b`)
	services := map[string]string{"iot": "iot", "sns": "sns", "dynamodb": "dynamodb", "data": "iot", "hub": "securityhub", "pca": "acm-pca", "lambda": "lambda", "cloudwatch": "cloudwatch"}
	for name, r := range stack["Resources"].(map[string]any) {
		r := r.(map[string]any)
		if r["Type"] != "AWS::Lambda::Function" {
			continue
		}
		p := r["Properties"].(map[string]any)
		wanted := make(map[string]bool)
		for _, m := range calls.FindAllStringSubmatch(source(t, p), -1) {
			service, method := services[m[1]+m[2]], m[3]
			if method == "exceptions" {
				continue
			}
			action := service + ":"
			for _, part := range strings.Split(method, "_") {
				action += strings.ToUpper(part[:1]) + part[1:]
			}
			action = strings.NewReplacer("CaCertificate", "CACertificate", "ByCa", "ByCA", "lambda:Invoke", "lambda:InvokeFunction", "acm-pca:GetWaiter", "acm-pca:GetCertificate").Replace(action)
			wanted[action] = true
		}
		if p["DeadLetterConfig"] != nil {
			wanted["sns:Publish"] = true
		}
		role, _, _ := strings.Cut(p["Role"].(map[string]any)["Fn::GetAtt"].(string), ".")
		given := make(map[string]bool)
		for _, policy := range resource(t, stack, role, "AWS::IAM::Role")["Policies"].([]any) {
			for _, s := range policy.(map[string]any)["PolicyDocument"].(map[string]any)["Statement"].([]any) {
				switch action := s.(map[string]any)["Action"].(type) {
				case string:
					given[action] = true
				case []any:
					for _, a := range action {
						given[a.(string)] = true
					}
				}
			}
		}
		for action := range wanted {
			if !given[action] {
				t.Errorf("%s calls %s, which its role does not have", name, action)
			}
		}
		for action := range given {
			if !wanted[action] {
				t.Errorf("%s does not call %s, which its role has", name, action)
			}
		}
	}
}

// source is the Python of a function, with what it uses of the files beside it.
func source(t *testing.T, properties map[string]any) string {
	t.Helper()
	if code, ok := properties["Code"].(map[string]any); ok {
		return code["ZipFile"].(string)
	}
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(docs, "functions", file+".py"))
		if err != nil {
			return ""
		}
		return string(b)
	}
	handler, _, _ := strings.Cut(properties["Handler"].(string), ".")
	text := read(handler)
	// Of what is imported, the functions that are called, and those that they call.
	for done := map[string]bool{}; ; {
		added := false
		for _, m := range regexp.MustCompile(`\b(things|notices|keys|claims)\.(\w+)`).FindAllStringSubmatch(text, -1) {
			if name := m[0]; !done[name] {
				done[name] = true
				if body := regexp.MustCompile(`(?ms)^def ` + m[2] + `\(.*?(?:^\S|\z)`).FindString(read(m[1])); body != "" {
					text += "\n" + body
					added = true
				}
			}
		}
		if !added {
			return text
		}
	}
}

// Nothing of the stack is against the specification that AWS published with its CDK.
func TestStackSpecification(t *testing.T) {
	stack := packaged(template(t))
	if out, err := validate(t, stack); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	resources := stack["Resources"].(map[string]any)
	for what, spoil := range map[string]func(){
		"there is no such property": func() { resources["Claims"].(map[string]any)["Properties"].(map[string]any)["Tabel"] = "x" },
		"is required":               func() { delete(resources["HookFunction"].(map[string]any)["Properties"].(map[string]any), "Role") },
		"is no attribute": func() {
			resources["X"] = map[string]any{"Type": "AWS::SNS::Topic", "Properties": map[string]any{"TopicName": map[string]any{"Fn::GetAtt": "Claims.Nothing"}}}
		},
		"there is no type AWS::IoT::Thin": func() { resources["Y"] = map[string]any{"Type": "AWS::IoT::Thin"} },
	} {
		spoil()
		if out, err := validate(t, stack); err == nil || !strings.Contains(out, what) {
			t.Errorf("%s is not found: %s", what, out)
		}
	}
}

// packaged has in place of folders what "aws cloudformation package" puts there.
func packaged(stack map[string]any) map[string]any {
	uploaded := map[string]any{"S3Bucket": "bucket", "S3Key": "key"}
	for _, r := range stack["Resources"].(map[string]any) {
		if p, ok := r.(map[string]any)["Properties"].(map[string]any); ok {
			for _, member := range []string{"Code", "Content"} {
				if _, local := p[member].(string); local {
					p[member] = uploaded
				}
			}
		}
	}
	return stack
}

func validate(t *testing.T, stack map[string]any) (string, error) {
	t.Helper()
	input, err := json.Marshal(stack)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(specification(t), "validate.mjs"))
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// specification installs what testdata/spec/package-lock.json pins, once, into a
// folder of the user's cache, and returns that folder, with the program of today.
func specification(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("testdata/spec/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("testdata/spec/validate.mjs")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append(lock, program...))
	dir := filepath.Join(cache, "keyvet", "spec-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	if err := os.CopyFS(temp, os.DirFS("testdata/spec")); err != nil {
		t.Fatal(err)
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = temp
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci (Debian packages nodejs, npm): %v\n%s", err, out)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test run was faster
			t.Fatal(err)
		}
	}
	return dir
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
			if !slices.Contains([]string{"topic(2)", "principal()", "timestamp()"}, expression) {
				t.Errorf("selects %s", expression)
			}
		} else if sent.doc[selected] == nil && selected != "leftOut" && selected != "folded" {
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
