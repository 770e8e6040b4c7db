package localiot_test

import (
	"fmt"
	"testing"
)

func TestDefender(t *testing.T) {
	s := start(t)
	topic := "$aws/things/gw/defender/metrics/json"
	d := dial(t, s, "gw")
	code := func(payload string) any {
		t.Helper()
		r := d.request(topic, payload, 1)["rejected"]
		if r == nil {
			return nil
		}
		if r["status"] != "REJECTED" || r["thingName"] != "gw" {
			t.Errorf("%v", r)
		}
		return r["statusDetails"].(map[string]any)["ErrorCode"]
	}
	header := `"header":{"report_id":5,"version":"1.0"}`
	for _, payload := range []string{
		``, `{`, `{}`, `[]`, `{"custom_metrics":{"a":[{"number":0}]}}`, `{` + header + `}`,
		`{"header":{"report_id":5,"version":"2.0"},"custom_metrics":{"a":[{"number":0}]}}`,
		`{"header":{"version":"1.0"},"custom_metrics":{"a":[{"number":0}]}}`,
		`{"header":{"report_id":0,"version":"1.0"},"custom_metrics":{"a":[{"number":0}]}}`,
		`{"header":{"report_id":"5","version":"1.0"},"custom_metrics":{"a":[{"number":0}]}}`,
		`{` + header + `,"custom_metrics":{"a":{"number":0}}}`, `{` + header + `,"custom_metrics":{"a":0}}`, `{` + header + `,"custom_metrics":{"a":[]}}`,
		`{` + header + `,"custom_metrics":{"a":[{"number":0},{"number":1}]}}`, `{` + header + `,"custom_metrics":{"a":[{"number":0,"string_list":[]}]}}`,
		`{` + header + `,"custom_metrics":{"a":[{"number":"0"}]}}`, `{` + header + `,"custom_metrics":{"a":[{"number":null}]}}`,
		`{` + header + `,"custom_metrics":{"a":[{"words":["x"]}]}}`, `{` + header + `,"custom_metrics":{"a b":[{"number":0}]}}`,
		`{` + header + `,"custom_metrics":{"a":[{"ip_list":["1.2.3"]}]}}`, `{` + header + `,"custom_metrics":{"a":[{"string_list":[1]}]}}`,
		`{` + header + `,"custom_metrics":{"a":[{"number_list":["1"]}]}}`,
	} {
		if got := code(payload); got != "InvalidPayload" {
			t.Errorf("%s: %v", payload, got)
		}
	}
	good := `{"header":{"report_id":%d,"version":"1.0"},"custom_metrics":{"n":[{"number":0}],"l":[{"number_list":[1,2.5]}],"s":[{"string_list":["x"]}],"i":[{"ip_list":["192.0.2.1","::1"]}]}}`
	a := d.request(topic, fmt.Sprintf(good, 5), 1)["accepted"]
	if a["status"] != "ACCEPTED" || a["reportId"] != 5.0 || a["thingName"] != "gw" {
		t.Errorf("%v", a)
	}
	if got := code(fmt.Sprintf(good, 6)); got != "Throttled" {
		t.Errorf("a second report at once: %v", got)
	}
	other := dial(t, s, "gw2")
	if r := other.request("$aws/things/gw2/defender/metrics/json", `{"hed":{"rid":1,"v":"1.0"},"cmet":{"n":[{"number":1}]}}`, 1); r["accepted"] == nil {
		t.Errorf("short names: %v", r)
	}
	if r := dial(t, s, "gw3").request("$aws/things/gw3/defender/metrics/json", `{"header":{"report_id":1,"version":"1.0"},"metrics":{"listening_tcp_ports":{}}}`, 1); r["accepted"] == nil {
		t.Errorf("AWS's own metrics: %v", r)
	}
}
