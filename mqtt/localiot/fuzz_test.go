package localiot

import (
	"encoding/json"
	"testing"
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
		s := &Server{dir: dir, registry: registry{Shadows: make(map[string]*shadow)}}
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

func FuzzJobs(f *testing.F) {
	f.Add("$next/get", []byte(`{"clientToken":"t"}`))
	f.Add("j-1/update", []byte(`{"status":"IN_PROGRESS"}`))
	f.Add("get", []byte(`{"clientToken":1}`))
	f.Fuzz(func(t *testing.T, operation string, payload []byte) {
		answers := 0
		answerJobs(operation, payload, func(_ string, payload any) {
			answers++
			encode(payload)
		})
		if answers > 1 {
			t.Fatalf("%d answers", answers)
		}
	})
}
