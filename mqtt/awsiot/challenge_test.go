package awsiot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func goodChallenge() awsiot.Challenge {
	return awsiot.Challenge{
		ID: "c-1", EKAlgorithm: "RSA-2048", EKSPKISHA256: strings.Repeat("0", 64),
		CredentialBlob: []byte("blob"), Secret: []byte("secret"), Nonce: make([]byte, 16),
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseChallenge(t *testing.T) {
	good := goodChallenge()
	if c, err := awsiot.ParseChallenge(encode(t, good)); err != nil || c.ID != good.ID || !bytes.Equal(c.Secret, good.Secret) {
		t.Errorf("%+v, %v", c, err)
	}
	for name, tt := range map[string]struct {
		change func(*awsiot.Challenge)
		id     string
		want   string
	}{
		"no id":             {func(c *awsiot.Challenge) { c.ID = "" }, "", "id is not"},
		"a long id":         {func(c *awsiot.Challenge) { c.ID = strings.Repeat("x", 65) }, "", "id is not"},
		"an odd id":         {func(c *awsiot.Challenge) { c.ID = "a/b" }, "", "id is not"},
		"no EK":             {func(c *awsiot.Challenge) { c.EKSPKISHA256 = "" }, "c-1", "not those of a key"},
		"no secret":         {func(c *awsiot.Challenge) { c.Secret = nil }, "c-1", "not those of a TPM"},
		"no credentialBlob": {func(c *awsiot.Challenge) { c.CredentialBlob = nil }, "c-1", "not those of a TPM"},
		"a long secret":     {func(c *awsiot.Challenge) { c.Secret = make([]byte, 1025) }, "c-1", "not those of a TPM"},
		"a short nonce":     {func(c *awsiot.Challenge) { c.Nonce = c.Nonce[1:] }, "c-1", "a nonce of 15 bytes"},
		"a long nonce":      {func(c *awsiot.Challenge) { c.Nonce = make([]byte, 65) }, "c-1", "a nonce of 65 bytes"},
		"too large":         {func(c *awsiot.Challenge) { c.Secret = make([]byte, 8<<10) }, "", "more than 8192"},
	} {
		c := goodChallenge()
		tt.change(&c)
		if got, err := awsiot.ParseChallenge(encode(t, c)); err == nil || !strings.Contains(err.Error(), tt.want) || got.ID != tt.id || got.Secret != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, text := range []string{"", "null", "[]", `{"id":1}`, `{"id":"a","shell":"x"}`, string(encode(t, good)) + "{}", string(encode(t, good)) + "}"} {
		if c, err := awsiot.ParseChallenge([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, c)
		}
	}
}

func TestParseChallengeAnswer(t *testing.T) {
	whole := awsiot.ChallengeAnswer{ID: "1", Secret: []byte{1}, ReportID: "r", Evidence: &device.Evidence{Quote: "q"}}
	if a, err := awsiot.ParseChallengeAnswer(encode(t, whole)); err != nil || a.Evidence.Quote != "q" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := awsiot.ParseChallengeAnswer([]byte(`{"id":"1","error":"busy"}`)); err != nil || a.Error != "busy" {
		t.Errorf("%+v, %v", a, err)
	}
	both, part := whole, whole
	both.Error, part.Evidence = "busy", nil
	for _, bad := range [][]byte{encode(t, both), encode(t, part), []byte("{}"), nil, []byte(`{"id":"1","error":"busy","x":1}`), bytes.Repeat([]byte(" "), 48<<10+1)} {
		if a, err := awsiot.ParseChallengeAnswer(bad); err == nil {
			t.Errorf("%s: %+v", bad, a)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	f.Add(encode(f, goodChallenge()))
	f.Add([]byte(`{"id":"1","error":"busy"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if c, err := awsiot.ParseChallenge(payload); err == nil {
			if _, err := awsiot.ParseChallenge(encode(t, c)); err != nil {
				t.Errorf("read back: %v", err)
			}
		}
		if a, err := awsiot.ParseChallengeAnswer(payload); err == nil && (a.Error == "") != (a.Evidence != nil) {
			t.Errorf("%+v", a)
		}
	})
}

// Each challenge has an answer: the device's, its reason, or that it is busy.
func TestOnChallenge(t *testing.T) {
	_, cfg, _ := enrol(t)
	client := dial(t, cfg)
	cfg.ClientID = "fleet"
	fleet, err := mqtt.Dial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	answers := make(chan awsiot.ChallengeAnswer, 8)
	if err := fleet.Subscribe(t.Context(), "keyvet/"+thing+"/challenge/answer", func(_ string, payload []byte) {
		a, err := awsiot.ParseChallengeAnswer(payload)
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}); err != nil {
		t.Fatal(err)
	}
	began, goOn := make(chan struct{}), make(chan struct{})
	if err := client.OnChallenge(t.Context(), func(ctx context.Context, c awsiot.Challenge) (awsiot.ChallengeAnswer, error) {
		began <- struct{}{}
		<-goOn
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("no deadline")
		}
		if c.ID == "bad" {
			return awsiot.ChallengeAnswer{Secret: []byte("half")}, errors.New("another TPM's")
		}
		return awsiot.ChallengeAnswer{Secret: c.Secret, ReportID: "r", Evidence: new(device.Evidence)}, nil
	}); err != nil {
		t.Fatal(err)
	}
	send := func(payload []byte) {
		t.Helper()
		if err := fleet.Publish(t.Context(), "keyvet/"+thing+"/challenge", payload); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(id, want string) {
		t.Helper()
		select {
		case a := <-answers:
			if a.ID != id || a.Error != "" && a.Secret != nil || !strings.Contains(string(a.Secret)+a.Error, want) {
				t.Errorf("%+v, want %s of %s", a, want, id)
			}
		case <-time.After(patience):
			t.Fatalf("no answer to %s", id)
		}
	}
	named := func(id string) []byte {
		c := goodChallenge()
		c.ID = id
		return encode(t, c)
	}
	send(named("first"))
	<-began
	send(named("second"))
	expect("second", "ask again")
	send([]byte("{"))
	expect("", "unexpected EOF")
	send([]byte(`{"id":"short"}`))
	expect("short", "not those of a key")
	goOn <- struct{}{}
	expect("first", "secret")
	for { // the first is answered a moment before the next may begin
		send(named("bad"))
		select {
		case <-began:
		case a := <-answers:
			if a.Error == "" {
				t.Fatalf("%+v", a)
			}
			continue
		}
		break
	}
	goOn <- struct{}{}
	expect("bad", "another TPM's")
}
