package awsiot

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/mqtt"
)

// TestReply takes the first of the replies that is one to the request.
func TestReply(t *testing.T) {
	const accepted, rejected = "r/accepted", "r/rejected"
	for what, tt := range map[string]struct {
		request string
		topic   string
		payload string
		want    string // the reply, in the error, or "" if it is not a reply to the request
	}{
		"accepted":                 {`{}`, accepted, `{"a":1}`, `{"a":1}`},
		"by the token":             {`{"clientToken":"t"}`, accepted, `{"clientToken":"t","n":1}`, `{"clientToken":"t","n":1}`},
		"another's token":          {`{"clientToken":"t"}`, accepted, `{"clientToken":"u"}`, ""},
		"accepted without a token": {`{"clientToken":"t"}`, accepted, `{}`, ""},
		"another's, ours has none": {`{}`, accepted, `{"clientToken":"u"}`, ""},
		"not JSON":                 {`{"clientToken":"t"}`, accepted, `{"clientToken":"t"`, ""},
		"rejected by the shadow":   {`{"clientToken":"t"}`, rejected, `{"clientToken":"t","code":409,"message":"Version conflict"}`, "rejected: 409: Version conflict"},
		"rejected by Jobs":         {`{"clientToken":"t"}`, rejected, `{"code":"InvalidJson","message":"x"}`, "rejected: InvalidJson: x"},
		"rejected by provisioning": {`{}`, rejected, `{"statusCode":400,"errorCode":"InvalidCSR","errorMessage":"y"}`, "rejected: InvalidCSR: y"},
		"rejected by Defender":     {`{}`, rejected, `{"status":"REJECTED","statusDetails":{"ErrorCode":"Throttled","ErrorMessage":"z"}}`, "rejected: Throttled: z"},
		"another's rejection":      {`{"clientToken":"t"}`, rejected, `{"clientToken":"u","code":409}`, ""},
		"rejected in no JSON":      {`{"clientToken":"t"}`, rejected, `nonsense`, "could not be read"},
		"rejected in lines":        {`{}`, rejected, `{"code":1,"message":"a\nb\u001b[2J"}`, "rejected: 1: a b [2J"},
	} {
		m := mqtt.Message{Topic: tt.topic, Payload: []byte(tt.payload)}
		if is := isReply(rejected, []byte(tt.request))(m); is != (tt.want != "") {
			t.Errorf("%s: a reply: %v", what, is)
		}
		if tt.want == "" {
			continue
		}
		reply, err := outcome("r", rejected, m)
		if err == nil && string(reply) != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, %v, want %q", what, reply, err, tt.want)
		}
		if as := new(Rejected); errors.As(err, &as) != (tt.topic == rejected) {
			t.Errorf("%s: %T: %v", what, err, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"clientToken":"t","code":409,"message":"Version conflict"}`))
	f.Add([]byte(`{"code":"InvalidJson","message":"x"}`))
	f.Add([]byte(`{"statusCode":400,"errorCode":"InvalidCSR","errorMessage":"y"}`))
	f.Add([]byte(`{"code":1e400,"message":["a"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		clientToken(b)
		if r := parseRejected("t", b); len(r.Code) > 256 || len(r.Message) > 256 || strings.ContainsAny(r.Error(), "\n\r\x1b") {
			t.Fatalf("%q", r.Error())
		}
	})
}
