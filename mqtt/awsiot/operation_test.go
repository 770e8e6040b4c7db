package awsiot_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func TestParseOperation(t *testing.T) {
	check := awsiot.Operation{Name: awsiot.OperationCheck}
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	for _, tt := range []struct {
		document string
		want     awsiot.Operation
		reason   string // of a DocumentError; "foreign" is ErrForeign
	}{
		{`{"operation":"keyvet.check","version":"1.0"}`, check, ""},
		{" {\n\t\"version\" : \"1.0\",\r\n \"operation\":\"keyvet.check\" } \n", check, ""},
		{`{"operation":"keyvet.ch\u0065ck","version":"1.0"}`, check, ""},
		{`{"operation":"keyvet.rotate","version":"1.0"}`, awsiot.Operation{Name: awsiot.OperationRotate}, ""},
		{`{"operation":"keyvet.rotate","version":"1.0","key":"ecdsa-p256"}`, awsiot.Operation{Name: awsiot.OperationRotate, Key: "ecdsa-p256"}, ""},
		{`{"operation":"keyvet.rotate","version":"1.0","key":"ecdsa-p384"}`, awsiot.Operation{Name: awsiot.OperationRotate, Key: "ecdsa-p384"}, ""},
		{`{"operation":"keyvet.rotate","version":"1.0","key":"rsa-2048"}`, awsiot.Operation{Name: awsiot.OperationRotate, Key: "rsa-2048"}, ""},
		{`{"operation":"keyvet.rotate","version":"1.0","key":"rsa-3072"}`, awsiot.Operation{Name: awsiot.OperationRotate, Key: "rsa-3072"}, ""},

		{`{"operation":"keyvet.check"}`, check, `version "" is not "1.0"`},
		{`{"operation":"keyvet.check","version":"1.1"}`, check, `version "1.1" is not "1.0"`},
		{`{"operation":"keyvet.check","version":1.0}`, check, "version is not a string"},
		{`{"operation":"keyvet.check","version":1e999999}`, check, "version is not a string"},
		{`{"operation":"keyvet.check","version":null}`, check, "version is not a string"},
		{`{"operation":"keyvet.check","version":"1.0","key":"ecdsa-p256"}`, check, "keyvet.check takes no key"},
		{`{"operation":"keyvet.check","version":"1.0","extra":1}`, check, `unknown member "extra"`},
		{`{"operation":"keyvet.check","version":"1.0","Version":"1.0"}`, check, `unknown member "Version"`},
		{`{"operation":"keyvet.check","version":"1.0","version":"1.0"}`, check, "version is there twice"},
		{`{"operation":"keyvet.check","version":"1.0","operation":"keyvet.check"}`, check, "operation is there twice"},
		{`{"operation":"reboot","version":"1.0","operation":"keyvet.check"}`, check, "operation is there twice"},
		{`{"operation":"keyvet.check","version":"1.0","operation":7}`, check, "operation is not a string"},
		{`{"operation":"keyvet.reboot","version":"1.0"}`, check, `unknown operation "keyvet.reboot"`},
		{`{"operation":"keyvet.","version":"1.0"}`, check, `unknown operation "keyvet."`},
		{`{"operation":"keyvet.rotate","version":"1.0","key":""}`, check, `unknown key ""`},
		{`{"operation":"keyvet.rotate","version":"1.0","key":"rsa-1024"}`, check, `unknown key "rsa-1024"`},
		{`{"operation":"keyvet.rotate","version":"1.0","key":["rsa-2048"]}`, check, "key is not a string"},
		{`{"operation":"keyvet.rotate","version":"1.0","key":{"a":` + strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 501) + "}", check, "key is not a string"},
		{`{"operation":"keyvet.rotate","version":"1.0","key":` + deep + `}`, check, "malformed JSON"},
		{`{"operation":"keyvet.check","version":"1.0"`, check, "malformed JSON"},
		{`{"operation":"keyvet.check","version":"1.0"}{}`, check, "something follows"},
		{`{"operation":"keyvet.check","version":"1.0",}`, check, "malformed JSON"},
		{"{\"operation\":\"keyvet.check\",\"version\":\"1.0\xff\"}", check, "version"},
		{"{\"operation\":\"keyvet.check\xff\",\"version\":\"1.0\"}", check, "unknown operation"},
		{"{\"operation\":\"keyvet.check\",\"version\":\"1.0\",\"\xff\":1}", check, "unknown member"},
		{`{"operation":"keyvet.check",` + strings.Repeat(`"version":"1.0",`, 100) + `"version":"1.0"}`, check, "version is there twice"},
		{`{"operation":"keyvet.check","version":"1.0","pad":"` + strings.Repeat("x", 40<<10) + `"}`, check, "bytes are more than 32768"},

		{"", check, "foreign"},
		{"null", check, "foreign"},
		{"7", check, "foreign"},
		{`"keyvet.check"`, check, "foreign"},
		{`[{"operation":"keyvet.check","version":"1.0"}]`, check, "foreign"},
		{"{}", check, "foreign"},
		{"{", check, "foreign"},
		{"\xff\xfe", check, "foreign"},
		{deep, check, "foreign"},
		{`{"operation":"reboot","version":"1.0"}`, check, "foreign"},
		{`{"operation":"keyvet","version":"1.0"}`, check, "foreign"},
		{`{"operation":"Keyvet.check","version":"1.0"}`, check, "foreign"},
		{`{"Operation":"keyvet.check","version":"1.0"}`, check, "foreign"},
		{`{"operation":["keyvet.check"],"version":"1.0"}`, check, "foreign"},
		{`{"steps":[{"operation":"keyvet.check"}],"version":"1.0"}`, check, "foreign"},
		{`{"a":1,`, check, "foreign"},
		{`{"operation":"keyvet.check","version":"1.0","pad":"` + strings.Repeat("x", 1<<20) + `"}`, check, "foreign"},
	} {
		op, err := awsiot.ParseOperation(json.RawMessage(tt.document))
		var bad *awsiot.DocumentError
		switch {
		case tt.reason == "":
			if err != nil || op != tt.want {
				t.Errorf("%.100q: %+v, %v", tt.document, op, err)
			}
		case tt.reason == "foreign":
			if !errors.Is(err, awsiot.ErrForeign) {
				t.Errorf("%.100q: %+v, %v", tt.document, op, err)
			}
		case !errors.As(err, &bad) || err.Error() != "job document: "+bad.Reason || !strings.Contains(bad.Reason, tt.reason) || op != (awsiot.Operation{}):
			t.Errorf("%.100q: %+v, %v, want %s", tt.document, op, err, tt.reason)
		}
	}
}

func FuzzParseOperation(f *testing.F) {
	for _, document := range []string{
		`{"operation":"keyvet.rotate","version":"1.0","key":"rsa-3072"}`, `{"operation":"keyvet.check","version":"1.0"}`,
		`{"operation":"reboot"}`, `{"operation":"keyvet.x","operation":{}}`, "{\"operation\":\"keyvet.\xff\"", "[]", "",
	} {
		f.Add([]byte(document))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		op, err := awsiot.ParseOperation(document)
		var bad *awsiot.DocumentError
		switch {
		case err == nil:
			// What is taken, and nothing else, is what a plain reader sees in it.
			var plain map[string]string
			if !utf8.Valid(document) || json.Unmarshal(document, &plain) != nil || plain["operation"] != op.Name || plain["version"] != "1.0" ||
				plain["key"] != op.Key || len(plain) > 3 {
				t.Errorf("%q was taken for %+v", document, op)
			}
		case errors.As(err, &bad):
			if bad.Reason == "" || len(bad.Reason) > 512 || strings.IndexFunc(bad.Reason, unicode.IsControl) >= 0 {
				t.Errorf("reason %q", bad.Reason)
			}
		case !errors.Is(err, awsiot.ErrForeign):
			t.Errorf("%q: %v", document, err)
		}
		if len(document) > mqtt.MaxPayload && !errors.Is(err, awsiot.ErrForeign) {
			t.Errorf("%d bytes were parsed", len(document))
		}
	})
}
