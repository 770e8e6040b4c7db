package localiot

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// A device may send anything: it gets one answer, and the shadow stays sound.
func FuzzShadow(f *testing.F) {
	for _, payload := range []string{
		``, `{}`, `{"state":{"reported":{"a":{"b":[1,{"c":null}]}},"desired":null},"version":1,"clientToken":"t"}`,
		`{"state":{"desired":{"a":{"b":2}}}}`, `{"state":{"reported":[]}}`, `{"state":{"reported":{"a":1e999}}}`, `{"version":1e999}`,
	} {
		for _, operation := range []string{"get", "update", "delete", "name/keyvet/update"} {
			f.Add(operation, []byte(payload))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, operation string, payload []byte) {
		s := bare(dir)
		before := `{"state":{"reported":{"a":{"b":1},"z":[1,2]},"desired":{"a":3}}}`
		s.answerShadow("gw", "update", []byte(before), func(string, any) {})
		answers := 0
		s.answerShadow("gw", operation, payload, func(suffix string, payload any) {
			if suffix == "accepted" || suffix == "rejected" {
				answers++
			}
			encode(payload)
		})
		if known := operation == "get" || operation == "update" || operation == "delete"; known && answers != 1 {
			t.Fatalf("%d answers", answers)
		}
		if doc := s.Shadow("gw", ""); doc != nil && (len(doc) > maxShadow || !json.Valid(doc)) {
			t.Fatalf("shadow %s", doc)
		}
		if _, err := openRegistry(dir); err != nil {
			t.Fatal(err)
		}
	})
}

// bare is a server with a registry and no broker.
func bare(dir string) *Server {
	r, err := openRegistry(dir + "/none")
	if err != nil {
		panic(err)
	}
	s := &Server{
		dir: dir, registry: r, log: slog.New(slog.DiscardHandler), changed: make(chan struct{}), life: year,
		templates: make(map[string]*template), ca: fuzzCA(dir),
	}
	if err := s.AddTemplate(Template, []byte(templateBody)); err != nil {
		panic(err)
	}
	return s
}

func fuzzCA(dir string) *authority {
	ca, err := openAuthority(dir)
	if err != nil {
		panic(err)
	}
	return ca
}

// answered counts the answers, which all have to be JSON.
func answered(do func(reply)) (n int) {
	do(func(_ string, payload any) {
		n++
		encode(payload)
	})
	return n
}

func FuzzJobs(f *testing.F) {
	for _, operation := range []string{"get", "start-next", "$next/get", "j/get", "j/update", "j/update/x", "/", "none/update"} {
		for _, payload := range []string{
			``, `{}`, `{"clientToken":"t"}`, `{"status":"IN_PROGRESS","statusDetails":{"a":"b"},"expectedVersion":1,"executionNumber":1,"stepTimeoutInMinutes":-1,"includeJobExecutionState":true}`,
			`{"status":"FAILED","includeJobDocument":true}`, `{"expectedVersion":1e99}`, `[[[[`,
		} {
			f.Add(operation, []byte(payload))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, operation string, payload []byte) {
		s := bare(dir)
		s.registry.makeThing("gw")
		j := &job{Job: Job{ID: "j", Things: []string{"gw"}, Document: json.RawMessage(`{"a":[1]}`), Retries: 1}}
		j.queue("gw", 1, time.Now())
		s.registry.Jobs = []*job{j}
		s.cloud = &cloud{server: s}
		s.broker = mochi.New(nil) // to which nobody has connected
		if n := answered(func(send reply) { s.answerJobs("gw", operation, payload, send) }); n != 1 {
			t.Fatalf("%d answers", n)
		}
		if _, err := openRegistry(dir); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzProvisioning(f *testing.F) {
	for _, payload := range []string{
		``, `{}`, `{"certificateSigningRequest":"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----"}`,
		`{"certificateOwnershipToken":"t","parameters":{"ThingName":"gw"}}`, `{"certificateOwnershipToken":"","parameters":{}}`, `{"parameters":{"a":1}}`,
	} {
		f.Add(true, []byte(payload))
		f.Add(false, []byte(payload))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, create bool, payload []byte) {
		s := bare(dir)
		s.registry.register([]byte("certificate"), registration{Status: PendingActivation, Token: "t"})
		topic := provisionPrefix + Template + provisionSuffix
		if create {
			topic = createFromCSR
		}
		if n := answered(func(send reply) { s.answerProvisioning(Message{Topic: topic, Payload: payload}, send) }); n != 1 {
			t.Fatalf("%d answers", n)
		}
	})
}

func FuzzIssuer(f *testing.F) {
	for _, payload := range []string{``, `{}`, `{"jobId":"j","csr":"x","clientToken":"t"}`, `{"certificateId":"id"}`, `{"certificateId":1}`} {
		f.Add("create", []byte(payload))
		f.Add("commit", []byte(payload))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, operation string, payload []byte) {
		s := bare(dir)
		if operation != "create" && operation != "commit" {
			return
		}
		if n := answered(func(send reply) { s.answerIssuer("gw", "id", operation, payload, send) }); n != 1 {
			t.Fatalf("%d answers", n)
		}
	})
}

func FuzzDefender(f *testing.F) {
	f.Add([]byte(`{"header":{"report_id":1,"version":"1.0"},"custom_metrics":{"a":[{"number":0}],"b":[{"string_list":["x"]}],"c":[{"ip_list":["::1"]}]}}`))
	f.Add([]byte(`{"hed":{"rid":1,"v":"1.0"},"cmet":{"a":[{"number_list":[1]}]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		s := &Server{defended: make(map[string]defended)}
		if n := answered(func(send reply) { s.answerDefender("gw", payload, send) }); n != 1 {
			t.Fatalf("%d answers", n)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add([]byte(templateBody), "gw")
	f.Add([]byte(`{"Parameters":{"ThingName":{"Type":"String"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",[{"Ref":"ThingName"},{"Fn::Sub":"${ThingName}"}]]}}}}}`), "a b")
	f.Fuzz(func(t *testing.T, body []byte, value string) {
		parsed, err := parseTemplate(body)
		if err != nil {
			return
		}
		if thing, _, err := parsed.evaluate(map[string]string{"ThingName": value}, "id"); err == nil && !validName(thing) {
			t.Fatalf("thing %q", thing)
		}
	})
}
