package localiot

import (
	"fmt"
	"strings"
	"testing"
)

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true}, {"*", "a/b", true}, {"a*", "abc", true}, {"a*c", "abc", true},
		{"a*c", "abcd", false}, {"a*c*", "abcd", true}, {"*b", "abab", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"?", "", false},
		{"a**b", "ab", true}, {"*a*a*a*", "aa", false}, {"x/*/y", "x/1/2/y", true}, {"x/*/y", "x/y", false}, {"a", "A", false},
	} {
		if got := fits(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q fits %q: %v", tt.text, tt.pattern, got)
		}
	}
}

func TestPolicy(t *testing.T) {
	p, err := parsePolicies([]byte(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:eu-west-1:1:client/${iot:Connection.Thing.ThingName}",
			"Condition": {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}},
		{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": ["arn:aws:iot:eu-west-1:1:topic/$aws/things/${iot:Connection.Thing.ThingName}/jobs/*"]},
		{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:eu-west-1:1:topicfilter/c/${iot:ClientId}/*"}]}`),
		[]byte(`{"Version": "2012-10-17", "Statement": [{"Sid": "x", "Effect": "Deny", "Action": "iot:*", "Resource": ["arn:aws:iot:eu-west-1:1:topic/*/secret"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		action, on, client, thing string
		want                      bool
	}{
		{connect, "gw", "gw", "gw", true},
		{connect, "gw2", "gw2", "gw", false},
		{connect, "gw", "gw", "", false},
		{publishTo, "$aws/things/gw/jobs/get", "gw", "gw", true},
		{publishTo, "$aws/things/gw2/jobs/get", "gw", "gw", false},
		{publishTo, "$aws/things/gw/jobs/get", "other", "gw", false}, // the variable is not known
		{receive, "$aws/things/gw/jobs/get/accepted", "gw", "gw", true},
		{receive, "$aws/things/gw/jobs/secret", "gw", "gw", false},
		{subscribe, "$aws/things/gw/jobs/get/accepted", "gw", "gw", false},
		{subscribe, "c/gw/x", "gw", "gw", true},
		{subscribe, "c/gw/x", "*", "gw", false},
	} {
		if got := p.allows(tt.action, tt.on, tt.client, tt.thing); got != tt.want {
			t.Errorf("%s%s by client %q of thing %q: %v", tt.action, tt.on, tt.client, tt.thing, got)
		}
	}
	for _, bad := range []string{
		``, `{}`, `{"Version":"2012-10-17","Statement":[]}`, `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`,
	} {
		if _, err := parsePolicies([]byte(bad)); err == nil {
			t.Errorf("took %s", bad)
		}
	}
	for _, bad := range []string{
		`"Effect":"allow","Action":"iot:*","Resource":"*"`, `"Effect":"Allow","Resource":"*"`, `"Effect":"Allow","Action":"iot:*"`,
		`"Effect":"Allow","Action":1,"Resource":"*"`, `"Effect":"Allow","Action":"iot:*","Resource":"topic/x"`, `"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:s3:::b:x"`,
		`"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"a":"b"}}`,
		`"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"false"}}`,
	} {
		if _, err := parsePolicies(fmt.Appendf(nil, `{"Version":"2012-10-17","Statement":[{%s}]}`, bad)); err == nil {
			t.Errorf("took %s", bad)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(devicePolicy), "gw")
	f.Add([]byte(`{"Version":"2012-10-17","Statement":{"Effect":"Deny"}}`), "")
	f.Fuzz(func(t *testing.T, document []byte, thing string) {
		p, err := parsePolicies(document)
		if err != nil {
			return
		}
		on := "$aws/things/" + thing + "/jobs/get"
		if p.allows(publishTo, on, thing, thing) && !strings.Contains(string(document), "Allow") {
			t.Fatal("allowed by no statement")
		}
	})
}
