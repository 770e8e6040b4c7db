package localiot

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// suffix is on which topic the one answer went out.
func suffix(do func(reply)) (suffix string) {
	do(func(s string, _ any) { suffix += s })
	return suffix
}

func TestOwnershipTokenExpires(t *testing.T) {
	for age, want := range map[time.Duration]string{tokenLife - time.Second: "accepted", tokenLife: "rejected"} {
		synctest.Test(t, func(t *testing.T) {
			s := bare(t.TempDir())
			s.registry.register([]byte("certificate"), registration{Status: PendingActivation, Token: "t"})
			time.Sleep(age)
			got := suffix(func(send reply) {
				s.answerProvisioning(Message{Topic: provisionPrefix + Template + provisionSuffix, Payload: []byte(`{"certificateOwnershipToken":"t","parameters":{"ThingName":"gw"}}`)}, send)
			})
			if got != want {
				t.Errorf("after %v: %s, want %s", age, got, want)
			}
		})
	}
}

func TestDefenderEveryFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bare(t.TempDir())
		s.defended = make(map[string]defended)
		for i, tt := range []struct {
			after time.Duration
			id    int
			want  string
		}{
			{0, 1, "accepted"}, {defenderEvery - time.Second, 2, "rejected"}, {time.Second, 2, "accepted"},
			{defenderEvery, 2, "rejected"}, {0, 3, "accepted"},
		} {
			time.Sleep(tt.after)
			report := fmt.Appendf(nil, `{"header":{"report_id":%d,"version":"1.0"},"custom_metrics":{"a":[{"number":0}]}}`, tt.id)
			if got := suffix(func(send reply) { s.answerDefender("gw", report, send) }); got != tt.want {
				t.Errorf("report %d: %s, want %s", i, got, tt.want)
			}
		}
	})
}

func TestOneConnectASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{connected: make(map[string]time.Time)}
		for i, tt := range []struct {
			after time.Duration
			id    string
			want  bool
		}{{0, "a", false}, {0, "b", false}, {999 * time.Millisecond, "a", true}, {999 * time.Millisecond, "a", true}, {time.Second, "a", false}} {
			time.Sleep(tt.after)
			if got := c.tooSoon(tt.id); got != tt.want {
				t.Errorf("CONNECT %d: too soon %v", i, got)
			}
		}
		if len(c.connected) != 1 {
			t.Errorf("%d client ids are kept for ever", len(c.connected)-1)
		}
	})
}
