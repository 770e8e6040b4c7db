package awsiot_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

const keyvetShadow = "$aws/things/" + thing + "/shadow/name/keyvet/"

func TestDesiredAtStart(t *testing.T) {
	for _, tt := range []struct {
		reply answer
		want  string // the token
		err   string
		log   string
	}{
		{reject(`{"code":404,"message":"No shadow exists"}`), "", "", ""},
		{accept(`{"state":{}}`), "", "", ""},
		{accept(`{"state":{"desired":{"check":"a"}}}`), "a", "", ""},
		{accept(`{"state":{"desired":{"check":"a"},"reported":{"check":"a"}}}`), "", "", ""},
		{accept(`{"state":{"desired":{"check":"b"},"reported":{"check":"a"}}}`), "b", "", ""},
		{accept(`{"state":{"desired":{"check":"b"},"reported":{"check":7}}}`), "b", "", ""},
		{accept(`{"state":{"desired":{"check":"b"},"reported":["x"]}}`), "b", "", ""},
		{accept(`{"state":{"desired":{"check":null},"reported":{}}}`), "", "", ""},
		{accept(`{"state":{"desired":{"check":"%s"}}}`, strings.Repeat("x", 128)), strings.Repeat("x", 128), "", ""},
		{accept(`{"state":{"desired":{"check":"%s"}}}`, strings.Repeat("x", 129)), "", "", "not a token"},
		{accept(`{"state":{"desired":{"check":""}}}`), "", "", "not a token"},
		{accept(`{"state":{"desired":{"check":"a\nb"}}}`), "", "", "not a token"},
		{accept("{\"state\":{\"desired\":{\"check\":\"a\xff\"}}}"), "", "", "not a token"},
		{accept(`{"state":{"desired":{"check":7}}}`), "", "", "not a token"},
		{accept(`{"state":{"desired":{"check":{"now":true}}}}`), "", "", "not a token"},
		{accept(`{"state":{"desired":"everything"}}`), "", "", "malformed JSON"},
		{accept(`{"state":7}`), "", "", "malformed JSON"},
		{reject(`{"code":500,"message":"oops"}`), "", "500: oops", ""},
	} {
		var log bytes.Buffer
		_, c := dialScript(t, func(request) answer { return tt.reply })
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		got := ""
		err := c.OnDesiredCheck(t.Context(), func(token string) { got += token })
		if got != tt.want || tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: token %q, %v", tt.reply, got, err)
		}
		if !strings.Contains(log.String(), tt.log) || tt.log == "" && log.Len() > 0 {
			t.Errorf("%+v: logged %q", tt.reply, log.String())
		}
	}
}

func TestDesiredLater(t *testing.T) {
	s, c := dialScript(t, func(request) answer { return accept(`{"version":1,"state":{"desired":{"check":"a"}}}`) })
	log := logged{lines: make(chan string, 10)}
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	tokens := make(chan string, 10)
	if err := c.OnDesiredCheck(t.Context(), func(token string) { tokens <- token }); err != nil {
		t.Fatal(err)
	}
	got := []string{<-tokens}
	delta := func(payload string) { s.send(keyvetShadow+"update/delta", payload) }
	delta(`{"version":2,"state":{"check":"a"}}`)     // told already
	delta(`{"version":3,"state":{"other":{"x":1}}}`) // not ours
	delta(`{"version":4,"state":{"check":"b","other":1},"metadata":{}}`)
	got = append(got, <-tokens)
	delta(`{"version":2,"state":{"check":"a"}}`) // overtaken
	// What makes no sense is told once, however often it comes.
	for range 3 {
		delta(`{"state":{"check":["a"]}}`)
	}
	first := <-log.lines
	delta(`{"state":"a"}`)
	second := <-log.lines
	if !strings.Contains(first, "not a token") || !strings.Contains(second, "malformed") {
		t.Errorf("logged %q, %q", first, second)
	}
	delta(`{"state":{"check":"c"}}`) // by a cloud that tells no version
	got = append(got, <-tokens)
	if !slices.Equal(got, []string{"a", "b", "c"}) || len(tokens) > 0 {
		t.Errorf("tokens %q", got)
	}
}

// logged hands on what is written to a log, line by line.
type logged struct {
	mu    sync.Mutex
	lines chan string
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines <- string(b)
	return len(b), nil
}

func TestAcknowledgeCheck(t *testing.T) {
	s, c := dialScript(t, func(request) answer { return accept("{}") })
	if err := c.AcknowledgeCheck(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r := s.requests()[0]
	if r.topic != keyvetShadow+"update" || !strings.Contains(string(r.raw), `"state":{"reported":{"check":"a"}}`) {
		t.Errorf("%s %s", r.topic, r.raw)
	}
	_, c = dialScript(t, func(request) answer { return reject(`{"code":400,"message":"no"}`) })
	if err := c.AcknowledgeCheck(t.Context(), "a"); err == nil {
		t.Error("a rejection passed for an acknowledgement")
	}
}
