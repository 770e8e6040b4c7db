package awsiot_test

// The functions of docs/aws/functions, on a stand-in for the account.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

// asking is an event of AWS IoT's for the hook.
func asking(template, thing, claim, certificate string) map[string]any {
	return map[string]any{
		"templateArn": arnPrefix + "provisioningtemplate/" + template, "claimCertificateId": claim, "certificateId": certificate,
		"clientId": "keyvet-claim-x", "parameters": map[string]string{"ThingName": thing},
	}
}

func hookEnv(makes string, limit, refusals int, lock bool) []string {
	return []string{"CLAIMS=claims", "CLAIM_MAKES=" + makes, fmt.Sprint("CLAIM_LIMIT=", limit), fmt.Sprint("CLAIM_REFUSALS=", refusals), fmt.Sprint("CLAIM_LOCK=", lock)}
}

// A claim makes things without a certificate, and a device its own certificate alone.
func TestHook(t *testing.T) {
	type question struct{ template, thing, claim, certificate string }
	for makes, answers := range map[string]map[question]bool{
		"new": {
			{"keyvet-first", "other", "claim", "c9"}: true, {"keyvet-first", "gw", "claim", "c9"}: false, {"keyvet-first", "empty", "claim", "c9"}: false,
			{"keyvet-first", "gw", "claim", "new"}:   true, // the answer was lost
			{"keyvet-first", "gw", "old", "c9"}:      true, // rotate.template is that of provisioning
			{"keyvet-first", "other", "old", "c9"}:   false,
			{"keyvet-rotate", "gw", "old", "c9"}:     true,
			{"keyvet-rotate", "gw", "new", "c9"}:     true,
			{"keyvet-rotate", "gw", "ld", "c9"}:      false,
			{"keyvet-rotate", "gw", "foreign", "c9"}: false,
			{"keyvet-rotate", "other", "old", "c9"}:  false, {"keyvet-rotate", "other", "claim", "c9"}: false, {"keyvet-rotate", "", "claim", "c9"}: false,
			{"keyvet-first", "", "claim", "c9"}: false,
		},
		"registered": {
			{"keyvet-first", "other", "claim", "c9"}: false, {"keyvet-first", "empty", "claim", "c9"}: true, {"keyvet-first", "gw", "claim", "c9"}: false,
		},
		"either": {
			{"keyvet-first", "other", "claim", "c9"}: true, {"keyvet-first", "empty", "claim", "c9"}: true, {"keyvet-first", "gw", "claim", "c9"}: false,
		},
	} {
		a := newAccount(t)
		a.things["empty"] = nil
		a.attach("old", "gw", "ACTIVE", 1)
		a.attach("new", "gw", "ACTIVE", 2)
		a.attach("foreign", "elsewhere", "ACTIVE", 3)
		a.attach("claim", "", "ACTIVE", 0)
		var events []any
		var want []bool
		for q, allowed := range answers {
			events, want = append(events, asking(q.template, q.thing, q.claim, q.certificate)), append(want, allowed)
		}
		for i, r := range a.call("hook", hookEnv(makes, 100, 100, true), events...) {
			if got, _ := r.Result.(map[string]any); got["allowProvisioning"] != want[i] {
				t.Errorf("%s: %v: %+v", makes, events[i], r)
			}
		}
		for _, record := range a.records {
			if who := fmt.Sprint(record["claim"], record["clientId"], record["thing"], record["allowed"]); !strings.Contains(who, "keyvet-claim-x") || strings.Contains(who, "map[S:old]") {
				t.Errorf("recorded %s", who)
			}
		}
		if len(a.records) == 0 || len(a.notices) != 0 {
			t.Errorf("%d records, notices %v", len(a.records), a.notices)
		}
	}
}

// A claim that is refused too often, or provisions too many, is recorded, told of
// once, and set INACTIVE; a hook that cannot record lets nobody in.
func TestClaimLimits(t *testing.T) {
	for what, tt := range map[string]struct {
		thing func(i int) string
		lock  bool
		limit int
	}{
		"too many":             {func(i int) string { return fmt.Sprint("new", i) }, true, 3},
		"refused":              {func(int) string { return "gw" }, true, 2},
		"too many, and let be": {func(i int) string { return fmt.Sprint("new", i) }, false, 3},
	} {
		a := newAccount(t)
		a.attach("c1", "gw", "ACTIVE", 1)
		a.attach("claim", "", "ACTIVE", 0)
		var events []any
		for i := range 6 {
			events = append(events, asking("keyvet-first", tt.thing(i), "claim", fmt.Sprint("n", i)))
		}
		allowed := 0
		for _, r := range a.call("hook", hookEnv("new", 3, 2, tt.lock), events...) {
			if got, _ := r.Result.(map[string]any); got["allowProvisioning"] == true {
				allowed++
			}
		}
		status, want := "INACTIVE", 3
		if !tt.lock {
			status, want = "ACTIVE", 6
		}
		if what == "refused" {
			want = 0
		}
		if a.status("claim") != status || allowed != want || len(a.notices) != 1 || len(a.records) != 6 {
			t.Errorf("%s: claim %s, %d allowed, notices %v, %d records", what, a.status("claim"), allowed, a.notices, len(a.records))
			continue
		}
		n := a.notices[0]
		if n.text["claimCertificateId"] != "claim" || n.text["inactive"] != tt.lock || n.text["last"].(map[string]any)["clientId"] != "keyvet-claim-x" || n.text["last"].(map[string]any)["at"] == "" {
			t.Errorf("%s: %v", what, n)
		}
	}
	a := newAccount(t)
	a.attach("claim", "", "ACTIVE", 0)
	a.failing["put_item"] = "ProvisionedThroughputExceededException"
	if r := a.call("hook", hookEnv("new", 3, 2, true), asking("keyvet-first", "x", "claim", "n"))[0]; r.Error == "" {
		t.Errorf("let in without a record: %+v", r)
	}
}

// An alarm on AWS IoT's own metrics ends the claims that are beyond a limit, and
// records which, when and by which alarm; a device's certificate it leaves alone.
func TestClaimAlarm(t *testing.T) {
	for what, tt := range map[string]struct {
		metrics  []metric
		lock     bool
		inactive string
		recorded string
	}{
		"refused": {[]metric{{"RegisterThingFailed", "claim", "", 60}, {"RegisterThingFailed", "other", "", 10}}, true, "claim", "claim"},
		"many":    {[]metric{{"ApproximateNumberOfThingsRegistered", "other", "", 600}, {"RegisterThingFailed", "claim", "", 50}}, true, "other", "other"},
		"by template, too": {[]metric{{"RegisterThingFailed", "claim", "", 50}, {"RegisterThingFailed", "claim", "keyvet-first", 30}, {"RegisterThingFailed", "claim", "x", 20}},
			true, "", ""},
		"by two templates":            {[]metric{{"RegisterThingFailed", "claim", "keyvet-first", 30}, {"RegisterThingFailed", "claim", "x", 30}}, true, "claim", "claim"},
		"a device's":                  {[]metric{{"RegisterThingFailed", "device", "", 99}}, true, "", "device"},
		"let be":                      {[]metric{{"RegisterThingFailed", "claim", "", 60}}, false, "", "claim"},
		"both":                        {[]metric{{"RegisterThingFailed", "claim", "", 60}, {"ApproximateNumberOfThingsRegistered", "other", "", 600}}, true, "claim other", "claim other"},
		"by none of them":             {[]metric{{"RegisterThingFailed", "claim", "", 30}, {"RegisterThingFailed", "other", "", 30}}, true, "", ""},
		"nothing, by the time it ran": {nil, true, "", ""},
	} {
		a := newAccount(t)
		a.attach("claim", "", "ACTIVE", 0)
		a.attach("other", "", "ACTIVE", 0)
		a.attach("device", "gw", "ACTIVE", 0)
		a.metrics = tt.metrics
		env := []string{"CLAIMS=claims", "CLAIM_LIMIT=500", "CLAIM_REFUSALS=50", fmt.Sprint("CLAIM_LOCK=", tt.lock)}
		r := a.call("alarm", env, map[string]any{
			"source": "aws.cloudwatch", "alarmData": map[string]any{"alarmName": "keyvet-claims-refused", "state": map[string]any{"value": "ALARM", "reason": "Threshold Crossed"}},
		})[0]
		var inactive, recorded []string
		for id, c := range a.certs {
			if c.status != "ACTIVE" {
				inactive = append(inactive, id)
			}
		}
		for _, record := range a.records {
			of := func(name string) string { return record[name].(map[string]any)["S"].(string) }
			recorded = append(recorded, of("claim"))
			if at, err := time.Parse(time.RFC3339, strings.Fields(of("at"))[0]); err != nil || time.Since(at) > patience || of("alarm") != "keyvet-claims-refused" {
				t.Errorf("%s: recorded %v", what, record)
			}
		}
		slices.Sort(inactive)
		slices.Sort(recorded)
		if strings.Join(inactive, " ") != tt.inactive || strings.Join(recorded, " ") != tt.recorded || r.Error != "" || len(a.notices) != 1 || a.notices[0].text["reason"] != "Threshold Crossed" {
			t.Errorf("%s: %+v, inactive %v, recorded %v, notices %v", what, r, inactive, recorded, a.notices)
		}
	}
}

// The old certificates go with a passing report under the newest.
func TestRetire(t *testing.T) {
	for what, tt := range map[string]struct {
		principal, verdict string
		active             string
		failed             bool
	}{
		"passes":                 {"new", "PASS", "new", false},
		"warns":                  {"new", "WARN", "new", false},
		"fails":                  {"new", "FAIL", "old new", false},
		"undecided":              {"new", "UNDECIDED", "old new", false},
		"without a verdict":      {"new", "", "old new", false},
		"late, under the old":    {"old", "PASS", "old new", false},
		"under another's":        {"foreign", "PASS", "old new", true},
		"under what is no cert.": {"eu-west-1:cognito", "PASS", "old new", true},
	} {
		a := newAccount(t)
		a.attach("oldest", "gw", "INACTIVE", 1)
		a.attach("old", "gw", "ACTIVE", 2)
		a.attach("new", "gw", "ACTIVE", 3)
		a.attach("foreign", "other", "ACTIVE", 4)
		r := a.call("retire", nil, map[string]any{"thing": "gw", "principal": tt.principal, "verdict": tt.verdict})[0]
		if got := strings.Join(a.active("gw"), " "); got != tt.active || a.status("foreign") != "ACTIVE" || (r.Error != "") != tt.failed {
			t.Errorf("%s: active %s, %+v", what, got, r)
		}
	}
}

// A job that is not done is told of; the certificate of a rotation that failed goes.
func TestJobNotices(t *testing.T) {
	for what, tt := range map[string]struct {
		status   string
		details  map[string]string
		inactive string
	}{
		"failed":                {"FAILED", map[string]string{"oldCertificateId": "old", "newCertificateId": "new", "reasonCode": "X"}, "new"},
		"out of time":           {"TIMED_OUT", map[string]string{"oldCertificateId": "old", "newCertificateId": "new"}, ""},
		"without details":       {"TIMED_OUT", nil, ""},
		"another's":             {"FAILED", map[string]string{"oldCertificateId": "old", "newCertificateId": "foreign"}, ""},
		"the old one is gone":   {"FAILED", map[string]string{"oldCertificateId": "gone", "newCertificateId": "new"}, ""},
		"the old one, as a new": {"FAILED", map[string]string{"oldCertificateId": "old", "newCertificateId": "old"}, ""},
	} {
		a := newAccount(t)
		a.attach("gone", "gw", "INACTIVE", 1)
		a.attach("old", "gw", "ACTIVE", 2)
		a.attach("new", "gw", "ACTIVE", 3)
		a.attach("foreign", "other", "ACTIVE", 4)
		event := map[string]any{"eventType": "JOB_EXECUTION", "operation": "x", "jobId": "keyvet-rotate-1", "thingArn": arnPrefix + "thing/gw", "status": tt.status}
		if tt.details != nil {
			event["statusDetails"] = tt.details
		}
		r := a.call("jobs", nil, event)[0]
		var inactive []string
		for id, c := range a.certs {
			if c.status == "INACTIVE" && id != "gone" {
				inactive = append(inactive, id)
			}
		}
		if got := strings.Join(inactive, " "); r.Error != "" || got != tt.inactive || len(a.notices) != 1 || a.notices[0].subject != "keyvet: job keyvet-rotate-1 on gw: "+tt.status {
			t.Errorf("%s: %+v, inactive %s, %v", what, r, got, a.notices)
		}
	}
}

// The functions that check keys, with the program that ships.
func TestFunctionsThatCheck(t *testing.T) {
	program := shipped(t)
	for name, test := range map[string]func(*testing.T, string){"issuer": testIssuer, "register": testRegister, "mitigate": testMitigate, "rotation": testRotation} {
		t.Run(name, func(t *testing.T) { test(t, "KEYVET="+program) })
	}
}

// shipped builds the program as cmd/keyvet/build.flags has it.
func shipped(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../cmd/keyvet/build.flags")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "keyvet")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", program}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			args = append(args, "-"+name+"="+value)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "../../cmd/keyvet")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func requestFor(t *testing.T, weak bool, name string) string {
	t.Helper()
	var key any
	var err error
	if weak {
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// A whole rotation by the issuer "topics", before either kind of CA: what is issued
// is for the thing, and after the commit one certificate is active.
func testIssuer(t *testing.T, program string) {
	for _, ca := range []string{"arn:aws-cn:acm-pca:eu-west-1:123456789012:certificate-authority/1", "arn:aws-cn:lambda:eu-west-1:123456789012:function:ca"} {
		a := newAccount(t)
		a.attach("old", "gw", "ACTIVE", 1)
		a.attach("foreign", "other", "ACTIVE", 2)
		env := []string{program, "CERTIFICATE_AUTHORITY=" + ca, "CERTIFICATE_DAYS=30"}
		csr := requestFor(t, false, "somebody-else")
		create := map[string]any{"thing": "gw", "operation": "create", "principal": "old", "jobId": "j", "csr": csr, "clientToken": "t1"}
		requests := []any{create}
		if strings.Contains(ca, "acm-pca") {
			requests = append(requests, create) // again, since the answer was lost
		}
		for _, r := range a.call("issuer", env, requests...) {
			if r.Result != "accepted" {
				t.Fatalf("%+v %v", r, a.said)
			}
		}
		answer := a.last("keyvet/gw/certificate/create/accepted")
		id, _ := answer["certificateId"].(string)
		block, rest := pem.Decode([]byte(answer["certificatePem"].(string)))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil || len(rest) != 0 || leaf.Subject.CommonName != "gw" || leaf.CheckSignatureFrom(a.root) != nil || answer["clientToken"] != "t1" {
			t.Errorf("%v, %v", leaf.Subject, err)
		}
		if block, rest := pem.Decode([]byte(answer["chainPem"].(string))); block == nil || !slices.Equal(block.Bytes, a.root.Raw) || strings.TrimSpace(string(rest)) != "" {
			t.Errorf("chain %v", answer["chainPem"])
		}
		if got := a.active("gw"); !slices.Equal(got, []string{"old", id}) || !slices.Contains(a.policies[id], "keyvet-device") || !slices.Contains(a.policies[id], "keyvet-rotate") {
			t.Errorf("active %v, policies %v", got, a.policies[id])
		}
		refused := []struct {
			what  string
			event map[string]any
			code  string
		}{
			{"a commit under the old one", map[string]any{"thing": "gw", "operation": "commit", "principal": "old", "certificateId": id}, "NotYours"},
			{"a commit of another's", map[string]any{"thing": "gw", "operation": "commit", "principal": "foreign", "certificateId": "foreign"}, "NotYours"},
			{"a request of another's", map[string]any{"thing": "gw", "operation": "create", "principal": "foreign", "csr": csr}, "NotYours"},
			{"a request for what is not", map[string]any{"thing": "nothing", "operation": "create", "principal": "old", "csr": csr}, "NotYours"},
			{"a weak key", map[string]any{"thing": "gw", "operation": "create", "principal": "old", "csr": requestFor(t, true, "gw")}, "KeyRejected"},
			{"no request", map[string]any{"thing": "gw", "operation": "create", "principal": "old"}, "InvalidPayload"},
			{"a request that is damaged", map[string]any{"thing": "gw", "operation": "create", "principal": "old", "csr": csr[:200]}, "KeyRejected"},
			{"what there is no operation of", map[string]any{"thing": "gw", "operation": "delete", "principal": "old"}, "InternalError"},
		}
		events := make([]any, len(refused))
		for i, tt := range refused {
			events[i] = tt.event
		}
		a.said = nil
		for i, r := range a.call("issuer", env, events...) {
			tt := refused[i]
			if said := a.said[i]; r.Result != "rejected" || said.topic != fmt.Sprintf("keyvet/%s/certificate/%s/rejected", tt.event["thing"], tt.event["operation"]) || said.text["code"] != tt.code || said.text["message"] == "" {
				t.Errorf("%s: %+v, %v", tt.what, r, said)
			}
		}
		a.failing["register_certificate"] = "ThrottlingException"
		a.call("issuer", env, map[string]any{"thing": "gw", "operation": "create", "principal": "old", "csr": requestFor(t, false, "gw")})
		if said := a.last("keyvet/gw/certificate/create/rejected"); said["code"] != "Throttled" {
			t.Errorf("throttled: %v", said)
		}
		if got := a.active("gw"); !slices.Equal(got, []string{"old", id}) {
			t.Errorf("active %v", got)
		}
		r := a.call("issuer", env, map[string]any{"thing": "gw", "operation": "commit", "principal": id, "certificateId": id})[0]
		if got := a.active("gw"); r.Result != "accepted" || a.last("keyvet/gw/certificate/commit/accepted") == nil || !slices.Equal(got, []string{id}) || a.status("foreign") != "ACTIVE" {
			t.Errorf("%+v, active %v", r, got)
		}
	}
}

// certificateOf makes a certificate with a good or a weak key.
func certificateOf(t *testing.T, a *account, weak bool, subject pkix.Name) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if weak {
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: subject, NotBefore: a.root.NotBefore, NotAfter: a.root.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.authority)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Just-in-time registration activates a certificate whose key passes, for the thing
// that its CA names, and tells of every other.
func testRegister(t *testing.T, program string) {
	for what, tt := range map[string]struct {
		subject pkix.Name
		weak    bool
		makes   string
		status  string
		thing   string
		refused string
	}{
		"a good one":               {pkix.Name{CommonName: "new", Organization: []string{"Example"}}, false, "new", "ACTIVE", "new", ""},
		"a registered thing":       {pkix.Name{CommonName: "empty"}, false, "registered", "ACTIVE", "empty", ""},
		"not a registered thing":   {pkix.Name{CommonName: "new"}, false, "registered", "INACTIVE", "", "there is no such thing"},
		"a weak key":               {pkix.Name{CommonName: "new"}, true, "new", "INACTIVE", "", "its key fails"},
		"a thing with its own":     {pkix.Name{CommonName: "gw"}, false, "new", "INACTIVE", "", "the thing has a certificate"},
		"no name":                  {pkix.Name{Organization: []string{"x,CN=gw"}}, false, "new", "INACTIVE", "", "no common name"},
		"a name within another":    {pkix.Name{CommonName: "a", Organization: []string{"x,CN=gw"}}, false, "new", "INACTIVE", "", "no common name"},
		"a name no thing may have": {pkix.Name{CommonName: "a b"}, false, "new", "INACTIVE", "", "no common name"},
	} {
		a := newAccount(t)
		a.attach("c1", "gw", "ACTIVE", 1)
		a.things["empty"] = nil
		a.attach("c2", "", "PENDING_ACTIVATION", 2)
		a.certs["c2"].pem = certificateOf(t, a, tt.weak, tt.subject)
		r := a.call("register", []string{program, "CLAIM_MAKES=" + tt.makes}, map[string]any{"certificateId": "c2", "caCertificateId": "ca"})[0]
		if r.Error != "" || a.status("c2") != tt.status {
			t.Errorf("%s: %+v, %s", what, r, a.status("c2"))
		}
		if tt.thing != "" && (!slices.Equal(a.things[tt.thing], []string{"c2"}) || len(a.policies["c2"]) != 3 || len(a.notices) != 0) {
			t.Errorf("%s: %v, %v, %v", what, a.things, a.policies, a.notices)
		}
		if tt.refused != "" && (len(a.policies["c2"]) != 0 || len(a.notices) != 1 || !strings.Contains(a.notices[0].subject, tt.refused) || slices.Contains(a.things["gw"], "c2")) {
			t.Errorf("%s: %v, %v, %v", what, a.things, a.policies, a.notices)
		}
	}
	a := newAccount(t)
	a.attach("c2", "", "PENDING_ACTIVATION", 2)
	a.certs["c2"].pem = "no certificate"
	if r := a.call("register", []string{program, "CLAIM_MAKES=new"}, map[string]any{"certificateId": "c2"})[0]; r.Error == "" || a.status("c2") != "PENDING_ACTIVATION" || len(a.notices) != 1 {
		t.Errorf("what cannot be checked: %+v, %s, %v", r, a.status("c2"), a.notices)
	}
}

// Each mitigation is off until it is turned on, and none believes what a device says
// of others.
func testMitigate(t *testing.T, program string) {
	for what, tt := range map[string]struct {
		on                 string
		weakDevice, weakCA bool
		verdict, principal string
		quarantined        bool
		device, ca         string
		notices            int
	}{
		"all off":                     {"", true, true, "FAIL", "c1", false, "ACTIVE", "ACTIVE", 0},
		"quarantine":                  {"QUARANTINE", false, false, "FAIL", "c1", true, "ACTIVE", "ACTIVE", 1},
		"quarantine, and it passes":   {"QUARANTINE", false, false, "WARN", "c1", false, "ACTIVE", "ACTIVE", 0},
		"device":                      {"DEACTIVATE_DEVICE", true, true, "FAIL", "c1", false, "INACTIVE", "ACTIVE", 1},
		"device, and its key is good": {"DEACTIVATE_DEVICE", false, true, "FAIL", "c1", false, "ACTIVE", "ACTIVE", 0},
		"CA":                          {"DEACTIVATE_CA", false, true, "FAIL", "c1", false, "ACTIVE", "INACTIVE", 2},
		"CA, and its key is good":     {"DEACTIVATE_CA", true, false, "FAIL", "c1", false, "ACTIVE", "ACTIVE", 0},
		"by a certificate of another": {"QUARANTINE DEACTIVATE_DEVICE DEACTIVATE_CA", true, true, "FAIL", "foreign", false, "ACTIVE", "ACTIVE", 0},
		"all on":                      {"QUARANTINE DEACTIVATE_DEVICE DEACTIVATE_CA", true, true, "FAIL", "c1", true, "INACTIVE", "INACTIVE", 2},
	} {
		a := newAccount(t)
		a.attach("c1", "gw", "ACTIVE", 1)
		a.attach("c2", "other", "ACTIVE", 1)
		a.attach("foreign", "other", "ACTIVE", 1)
		a.certs["c1"].pem = certificateOf(t, a, tt.weakDevice, pkix.Name{CommonName: "gw"})
		a.certs["c1"].ca, a.certs["c2"].ca = "ca1", "ca1"
		a.cas["ca1"] = &certificate{status: "ACTIVE", pem: certificateOf(t, a, tt.weakCA, pkix.Name{CommonName: "CA"})}
		env := []string{program, "QUARANTINE_GROUP=keyvet-quarantine"}
		for _, name := range []string{"QUARANTINE", "DEACTIVATE_DEVICE", "DEACTIVATE_CA"} {
			env = append(env, name+"="+fmt.Sprint(slices.Contains(strings.Fields(tt.on), name)))
		}
		event := map[string]any{"thingName": "gw", "principal": tt.principal, "verdict": tt.verdict, "reportId": "r1", "findings": []any{map[string]any{"reasonForNonComplianceCode": "X"}, "nonsense"}}
		r := a.call("mitigate", env, event)[0]
		if r.Error != "" || slices.Contains(a.groups["keyvet-quarantine"], "gw") != tt.quarantined || a.status("c1") != tt.device || a.cas["ca1"].status != tt.ca || len(a.notices) != tt.notices || a.status("c2") != "ACTIVE" {
			t.Errorf("%s: %+v, %v, device %s, CA %s, %v", what, r, a.groups, a.status("c1"), a.cas["ca1"].status, a.notices)
		}
		if tt.ca == "INACTIVE" {
			if signed := fmt.Sprint(a.notices[0].text["signed"]); !strings.Contains(signed, "c1") || !strings.Contains(signed, "c2") || a.notices[0].text["signedCount"] != 2.0 {
				t.Errorf("%s: signed %s", what, signed)
			}
		}
	}
}

// Security Hub gets findings in its own format: the members that AWS Security
// Finding Format requires, within their lengths.
func TestSecurityHub(t *testing.T) {
	sent := sentFindings(t)
	event := map[string]any{"reportId": sent.doc["reportId"], "verdict": sent.doc["verdict"], "findings": sent.doc["findings"], "thingName": thing, "receivedAt": int64(1700000000123)}
	a := newAccount(t)
	if r := a.call("securityhub", nil, event)[0]; r.Error != "" {
		t.Fatal(r.Error)
	}
	out, err := json.Marshal(a.imported)
	if err != nil {
		t.Fatal(err)
	}
	var imported []struct {
		SchemaVersion, Id, ProductArn, GeneratorId, AwsAccountId, CreatedAt, UpdatedAt, Title, Description string
		Types                                                                                              []string
		Severity                                                                                           struct{ Label string }
		Resources                                                                                          []struct {
			Type, Id, Partition, Region string
			Details                     struct{ Other map[string]string }
		}
	}
	if err := json.Unmarshal(out, &imported); err != nil {
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
