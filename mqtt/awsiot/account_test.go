package awsiot_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// account stands in for an account of AWS: what the functions of the stack call.
type account struct {
	t         *testing.T
	url       string
	authority *ecdsa.PrivateKey
	root      *x509.Certificate
	cloud     *localiot.Server // whose things and certificates these are; nil: it has its own

	mu       sync.Mutex
	things   map[string][]string     // the ids of each one's certificates
	certs    map[string]*certificate // by id
	cas      map[string]*certificate
	policies map[string][]string // by certificate id
	groups   map[string][]string // of things
	records  []map[string]any    // of the table of claims
	hours    map[string][2]int
	metrics  []metric
	notices  []notice
	said     []saidTo          // by MQTT
	issued   map[string]string // by ARN, PEM
	imported any
	calls    []string
	failing  map[string]string // operations, and by which error
}

type certificate struct {
	pem, status, ca string
	created         float64
}

// metric is one of CloudWatch's, of AWS IoT: what came of a claim in the last hour.
type metric struct {
	name, claim, template string // template may be ""
	sum                   float64
}

func (m metric) dimensions() []any {
	all := []any{map[string]any{"Name": "ClaimCertificateId", "Value": m.claim}}
	if m.template != "" {
		all = append(all, map[string]any{"Name": "TemplateName", "Value": m.template})
	}
	return all
}

type notice struct {
	subject string
	text    map[string]any
}

// saidTo is a message to a device.
type saidTo struct {
	topic string
	text  map[string]any
}

// last is the last message on a topic, or nil.
func (a *account) last(topic string) map[string]any {
	for _, m := range slices.Backward(a.said) {
		if m.topic == topic {
			return m.text
		}
	}
	return nil
}

const arnPrefix = "arn:aws-cn:iot:eu-west-1:123456789012:"

func newAccount(t *testing.T) *account {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &account{
		t: t, authority: key, things: make(map[string][]string), certs: make(map[string]*certificate), cas: make(map[string]*certificate),
		policies: make(map[string][]string), groups: make(map[string][]string), hours: make(map[string][2]int),
		issued: make(map[string]string), failing: make(map[string]string),
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plant CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

// attach registers a certificate of a thing, or of none, and returns its id.
func (a *account) attach(id, thing, status string, created float64) string {
	a.certs[id] = &certificate{status: status, created: created}
	if thing != "" {
		a.things[thing] = append(a.things[thing], id)
	}
	return id
}

func (a *account) status(id string) string { return a.certs[id].status }

// active are the active certificates of a thing.
func (a *account) active(thing string) (found []string) {
	for _, id := range a.things[thing] {
		if a.certs[id].status == "ACTIVE" {
			found = append(found, id)
		}
	}
	return found
}

func (a *account) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var call struct {
		Service, Operation string
		Arguments          map[string]any
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		a.t.Error(err)
		return
	}
	a.calls = append(a.calls, call.Operation)
	var answer map[string]any
	if code := a.failing[call.Operation]; code != "" {
		answer = map[string]any{"error": code}
	} else {
		a.look()
		answer = a.answer(call.Service, call.Operation, call.Arguments)
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		a.t.Error(err)
	}
}

// look takes things and certificates from the endpoint, if there is one.
func (a *account) look() {
	if a.cloud == nil {
		return
	}
	for _, thing := range a.cloud.Things() {
		a.things[thing] = nil
		for _, c := range a.cloud.Certificates(thing) {
			a.attach(c.ID, thing, string(c.Status), float64(c.Made.UnixNano())/1e9)
		}
	}
}

// onCloud does to the endpoint, if there is one, what was done to the account.
func (a *account) onCloud(do func(*localiot.Server) error) {
	if a.cloud == nil {
		return
	}
	if err := do(a.cloud); err != nil {
		a.t.Error(err)
	}
}

func result(v map[string]any) map[string]any { return map[string]any{"result": v} }

func (a *account) answer(service, operation string, args map[string]any) map[string]any {
	text := func(name string) string { s, _ := args[name].(string); return s }
	id := func(name string) string { return text(name)[strings.LastIndex(text(name), "/")+1:] }
	none := result(map[string]any{})
	missing := map[string]any{"error": "ResourceNotFoundException"}
	switch service + "." + operation {
	case "iot.describe_endpoint":
		return result(map[string]any{"endpointAddress": "x-ats.iot.eu-west-1.amazonaws.com.cn"})
	case "iot.list_thing_principals":
		ids, ok := a.things[text("thingName")]
		if !ok {
			return missing
		}
		arns := []any{}
		for _, id := range ids {
			arns = append(arns, arnPrefix+"cert/"+id)
		}
		return a.page(args, "principals", arns, "nextToken", "nextToken")
	case "iot.list_principal_things":
		found := []any{}
		for _, thing := range slices.Sorted(maps.Keys(a.things)) {
			if slices.Contains(a.things[thing], id("principal")) {
				found = append(found, thing)
			}
		}
		return a.page(args, "things", found, "nextToken", "nextToken")
	case "iot.describe_certificate":
		c := a.certs[text("certificateId")]
		if c == nil {
			return missing
		}
		description := map[string]any{
			"certificateId": text("certificateId"), "certificateArn": arnPrefix + "cert/" + text("certificateId"), "status": c.status, "creationDate": c.created, "certificatePem": c.pem,
		}
		if c.ca != "" {
			description["caCertificateId"] = c.ca
		}
		return result(map[string]any{"certificateDescription": description})
	case "iot.update_certificate":
		a.certs[text("certificateId")].status = text("newStatus")
		a.onCloud(func(cloud *localiot.Server) error {
			if text("newStatus") == "ACTIVE" {
				return cloud.Activate(text("certificateId"))
			}
			return cloud.Deactivate(text("certificateId"))
		})
		return none
	case "iot.describe_ca_certificate":
		c := a.cas[text("certificateId")]
		return result(map[string]any{"certificateDescription": map[string]any{"status": c.status, "certificatePem": c.pem}})
	case "iot.update_ca_certificate":
		a.cas[text("certificateId")].status = text("newStatus")
		return none
	case "iot.list_certificates_by_ca":
		found := []any{}
		for _, id := range slices.Sorted(maps.Keys(a.certs)) { // it goes page by page
			if c := a.certs[id]; c.ca == text("caCertificateId") {
				found = append(found, map[string]any{"certificateId": id, "status": c.status})
			}
		}
		return a.page(args, "certificates", found, "marker", "nextMarker")
	case "iot.create_thing":
		a.things[text("thingName")] = nil
		return none
	case "iot.attach_policy":
		a.policies[id("target")] = append(a.policies[id("target")], text("policyName"))
		return none
	case "iot.attach_thing_principal":
		if !slices.Contains(a.things[text("thingName")], id("principal")) {
			a.things[text("thingName")] = append(a.things[text("thingName")], id("principal"))
		}
		a.onCloud(func(cloud *localiot.Server) error {
			leaf, _ := pem.Decode([]byte(a.certs[id("principal")].pem))
			return cloud.RegisterCertificate(text("thingName"), leaf.Bytes)
		})
		return none
	case "iot.register_certificate":
		leaf, _ := pem.Decode([]byte(text("certificatePem")))
		ca, _ := pem.Decode([]byte(text("caCertificatePem")))
		if ca == nil || !bytes.Equal(ca.Bytes, a.root.Raw) {
			return map[string]any{"error": "CertificateStateException"}
		}
		sum := sha256.Sum256(leaf.Bytes)
		id := hex.EncodeToString(sum[:])
		if a.certs[id] != nil {
			return map[string]any{"error": "ResourceAlreadyExistsException", "response": map[string]any{"resourceId": id, "resourceArn": arnPrefix + "cert/" + id}}
		}
		a.certs[id] = &certificate{pem: text("certificatePem"), status: text("status"), created: 1e9 + float64(len(a.certs))}
		return result(map[string]any{"certificateId": id, "certificateArn": arnPrefix + "cert/" + id})
	case "iot.add_thing_to_thing_group":
		a.groups[text("thingGroupName")] = append(a.groups[text("thingGroupName")], text("thingName"))
		return none
	case "sns.publish":
		var said map[string]any
		if err := json.Unmarshal([]byte(text("Message")), &said); err != nil || text("TopicArn") != "notices" || len(text("Subject")) > 100 || len(text("Message")) > 256<<10 {
			a.t.Errorf("notice %v: %v", args, err)
		}
		a.notices = append(a.notices, notice{text("Subject"), said})
		return none
	case "dynamodb.put_item":
		a.records = append(a.records, args["Item"].(map[string]any))
		return none
	case "dynamodb.update_item":
		values, key := args["ExpressionAttributeValues"].(map[string]any), fmt.Sprint(args["Key"])
		n := func(name string) (n int) { fmt.Sscan(values[name].(map[string]any)["N"].(string), &n); return n }
		hour := a.hours[key]
		hour[0], hour[1] = hour[0]+n(":a"), hour[1]+n(":r")
		a.hours[key] = hour
		number := func(n int) any { return map[string]any{"N": fmt.Sprint(n)} }
		return result(map[string]any{"Attributes": map[string]any{"provisioned": number(hour[0]), "refused": number(hour[1])}})
	case "cloudwatch.list_metrics":
		found := []any{}
		for _, m := range a.metrics {
			if m.name == text("MetricName") {
				found = append(found, map[string]any{"Namespace": "AWS/IoT", "MetricName": m.name, "Dimensions": m.dimensions()})
			}
		}
		return a.page(args, "Metrics", found, "NextToken", "NextToken")
	case "cloudwatch.get_metric_statistics":
		points := []any{}
		for _, m := range a.metrics {
			if m.name == text("MetricName") && fmt.Sprint(m.dimensions()) == fmt.Sprint(args["Dimensions"]) {
				points = append(points, map[string]any{"Sum": m.sum / 2, "Unit": "Count"}, map[string]any{"Sum": m.sum / 2, "Unit": "Count"})
			}
		}
		return result(map[string]any{"Datapoints": points})
	case "iot-data.publish":
		b, err := base64.StdEncoding.DecodeString(text("payload"))
		var said map[string]any
		if err != nil || json.Unmarshal(b, &said) != nil {
			a.t.Errorf("published %v", args)
		}
		a.said = append(a.said, saidTo{text("topic"), said})
		if a.cloud != nil {
			a.cloud.Say(text("topic"), b)
		}
		return none
	case "acm-pca.describe_certificate_authority":
		return result(map[string]any{"CertificateAuthority": map[string]any{"CertificateAuthorityConfiguration": map[string]any{"SigningAlgorithm": "SHA256WITHECDSA"}}})
	case "acm-pca.issue_certificate":
		return a.issue(args)
	case "acm-pca.wait_certificate_issued":
		return none
	case "acm-pca.get_certificate":
		root := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
		return result(map[string]any{"Certificate": strings.TrimSpace(a.issued[text("CertificateArn")]), "CertificateChain": strings.TrimSpace(root)})
	case "lambda.invoke":
		return a.serverless(args)
	case "securityhub.batch_import_findings":
		a.imported = args["Findings"]
		return result(map[string]any{"FailedCount": 0})
	}
	a.t.Errorf("%s.%s is called with %v", service, operation, args)
	return map[string]any{"error": "UnknownOperation"}
}

// page gives one item a page, so that whoever does not turn pages misses some.
func (a *account) page(args map[string]any, member string, all []any, token, next string) map[string]any {
	var n int
	if t, ok := args[token].(string); ok {
		fmt.Sscan(t, &n)
	}
	if len(all) == 0 {
		return result(map[string]any{member: all})
	}
	answer := map[string]any{member: all[n : n+1]}
	if n+1 < len(all) {
		answer[next] = fmt.Sprint(n + 1)
	}
	return result(answer)
}

func (a *account) sign(csrPEM []byte, subject string) string {
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		a.t.Error(err)
		return ""
	}
	serial := sha256.Sum256(csrPEM)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:16]), Subject: pkix.Name{CommonName: subject},
		NotBefore: a.root.NotBefore, NotAfter: a.root.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(zeroes{}, template, a.root, csr.PublicKey, a.authority)
	if err != nil {
		a.t.Error(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// issue is ACM Private CA's IssueCertificate, which keeps what a token named.
func (a *account) issue(args map[string]any) map[string]any {
	csr, err := base64.StdEncoding.DecodeString(args["Csr"].(string))
	token, _ := args["IdempotencyToken"].(string)
	if err != nil || len(token) == 0 || len(token) > 36 || args["TemplateArn"] != "arn:aws-cn:acm-pca:::template/EndEntityClientAuthCertificate_APIPassthrough/V1" || args["SigningAlgorithm"] != "SHA256WITHECDSA" {
		a.t.Errorf("issue %v", args)
	}
	arn := args["CertificateAuthorityArn"].(string) + "/certificate/" + token
	if a.issued[arn] == "" {
		subject := args["ApiPassthrough"].(map[string]any)["Subject"].(map[string]any)["CommonName"].(string)
		a.issued[arn] = a.sign(csr, subject)
	}
	return result(map[string]any{"CertificateArn": arn})
}

// serverless is the function of a serverless CA.
func (a *account) serverless(args map[string]any) map[string]any {
	var request struct {
		CommonName string `json:"common_name"`
		CSR        []byte `json:"base64_csr_data"`
		Lifetime   int
		Purposes   []string
	}
	payload, err := base64.StdEncoding.DecodeString(args["Payload"].(string))
	if err != nil || json.Unmarshal(payload, &request) != nil || request.Lifetime != 30 || !slices.Equal(request.Purposes, []string{"client_auth"}) {
		a.t.Errorf("invoked with %s", payload)
	}
	body, err := json.Marshal(map[string]any{
		"CertificateInfo": map[string]any{"CommonName": request.CommonName}, "Base64Certificate": []byte(a.sign(request.CSR, request.CommonName)),
		"Base64CaChain": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}),
	})
	if err != nil {
		a.t.Error(err)
	}
	return result(map[string]any{"StatusCode": 200, "Payload": base64.StdEncoding.EncodeToString(body)})
}

// returned is what a call of a function came to.
type returned struct {
	Result any
	Error  string
}

// call calls the handler of a file of docs/aws/functions once for each event, as
// Lambda does.
func (a *account) call(handler string, env []string, events ...any) []returned {
	a.t.Helper()
	all, err := a.invoke(handler, env, events...)
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// invoke is call, for any goroutine.
func (a *account) invoke(handler string, env []string, events ...any) ([]returned, error) {
	const program = `
import contextlib, importlib, json, sys, types
handler = importlib.import_module(sys.argv[1]).handler
context = types.SimpleNamespace(invoked_function_arn="arn:aws-cn:lambda:eu-west-1:123456789012:function:f")
answers = []
with contextlib.redirect_stdout(sys.stderr):
    for event in json.load(sys.stdin):
        try:
            answers.append({"result": handler(event, context)})
        except Exception as e:
            answers.append({"error": repr(e)})
json.dump(answers, sys.stdout)
`
	input, err := json.Marshal(events)
	if err != nil {
		return nil, err
	}
	functions, functionsErr := filepath.Abs(filepath.Join(docs, "functions"))
	boto3, boto3Err := filepath.Abs("testdata/boto3")
	if err := errors.Join(functionsErr, boto3Err); err != nil {
		return nil, err
	}
	for _, dir := range []string{functions, boto3} { // so that no cache has an outcome of before
		if _, err := filepath.Glob(filepath.Join(dir, "*.py")); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "-c", program, handler)
	cmd.Env = slices.Concat(os.Environ(), []string{
		"AWS_REGION=eu-west-1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + boto3 + ":" + functions, "ACCOUNT=" + a.url, "NO_PROXY=*", "NOTICES=notices",
		"POLICIES=keyvet-device,keyvet-rotate,keyvet-challenge",
	}, env)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("python3 (Debian package python3): %v\n%s", err, stderr.String())
	}
	var all []returned
	if err := json.Unmarshal(out, &all); err != nil || len(all) != len(events) {
		return nil, fmt.Errorf("%s: %v", out, err)
	}
	return all, nil
}
