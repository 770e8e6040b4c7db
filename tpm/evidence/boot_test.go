package evidence

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// TestBootLog asks the level of boot logs on what a replay says.
func TestBootLog(t *testing.T) {
	boot := func(f *forgery) {
		f.report.Trigger, f.report.Evidence.BootLog = device.TriggerBoot, b64([]byte("log"))
	}
	says := func(b Boot, err error) func([]byte, []PCR) (Boot, error) {
		return func(log []byte, pcrs []PCR) (Boot, error) {
			if string(log) != "log" || len(pcrs) != 1 || pcrs[0].Index != 0 {
				t.Errorf("replayed %q against %v", log, pcrs)
			}
			return b, err
		}
	}
	never := func([]byte, []PCR) (Boot, error) {
		t.Error("replayed what cannot be")
		return Boot{}, nil
	}
	good := Boot{Explained: []int{0}, SecureBoot: "on"}
	for name, tt := range map[string]struct {
		change func(*forgery)
		replay func([]byte, []PCR) (Boot, error)
		want   device.Status
		says   string
	}{
		"explained":         {boot, says(good, nil), device.Pass, "explains the 1 PCRs of the quote; Secure Boot is on"},
		"differs":           {boot, says(Boot{Differ: []int{0, 4}}, nil), device.Fail, "PCRs 0, 4 are not what the boot log adds up to"},
		"differs elsewhere": {boot, says(Boot{Explained: []int{0}, Unexplained: []int{11}}, nil), device.Warn, "does not explain PCRs 11"},
		"explains nothing":  {boot, says(Boot{}, nil), device.Warn, "does not explain"},
		"not allowed":       {boot, says(Boot{Explained: []int{0}, Policy: Policied{Refused: "too old"}}, nil), device.Fail, "the policy does not allow this boot: too old"},
		"not judged":        {boot, says(Boot{Explained: []int{0}, Policy: Policied{Unjudged: "no version"}}, nil), device.Undecided, "the policy cannot be applied: no version"},
		"cannot be read":    {boot, says(Boot{}, errors.New("event 3")), device.Undecided, "cannot be read: event 3"},
		"is not asked":      {boot, nil, device.Warn, "does not read boot logs"},
		"no PCRs":           {func(f *forgery) { boot(f); f.report.Evidence.PCRValues = "" }, never, device.NotApplicable, "no PCR is quoted"},
		"none, by schedule": {func(f *forgery) { f.report.Trigger = device.TriggerSchedule }, never, device.NotApplicable, "only the report of a boot"},
		"none":              {func(f *forgery) { f.report.Trigger = device.TriggerFirstBoot }, never, device.NotApplicable, "there is no boot log: what the PCRs mean is not shown"},
		"none, and why": {func(f *forgery) {
			f.report.Trigger, f.report.Gaps = device.TriggerBoot, []device.Gap{{What: "boot log", Why: "permission denied", Minor: true}}
		}, never, device.Warn, "there is no boot log: permission denied"},
		"cut": {func(f *forgery) { f.report.Trigger = device.TriggerBoot; f.report.CutBootLog() }, never, device.Warn, "had no room for it"},
	} {
		t.Run(name, func(t *testing.T) {
			report := forge(t, tt.change)
			policy := Policy{Now: now, Check: passes, Replay: tt.replay}
			r := Verify(report, policy)
			l := held(t, r, LevelBootLog)
			want := tt.want
			if want == device.Pass {
				want = device.Warn // the key may be in software
			}
			if l.Status != want || !strings.Contains(l.Reason, tt.says) || (r.Verdict == device.Fail) != (want == device.Fail) && name != "no PCRs" {
				t.Errorf("%+v, verdict %v", l, r.Verdict)
			}
			policy.AKName = r.Statement.AKName
			if l := held(t, Verify(report, policy), LevelBootLog); l.Status != tt.want {
				t.Errorf("of a known TPM: %+v", l)
			}
			policy.Require = []string{LevelBootLog}
			if l := held(t, Verify(report, policy), LevelBootLog); l.Status != tt.want && l.Status != device.Undecided || l.Status == device.Warn {
				t.Errorf("required: %+v", l)
			}
		})
	}
}

// The keys that sign what a machine boots are tested, each authority once.
func TestSigners(t *testing.T) {
	a := func(variable, digest string) Anchor { return Anchor{Variable: variable, SHA256: digest} }
	b := Boot{
		Keys:        []Anchor{a("PK", "1"), a("KEK", "1"), a("db", "2"), a("db", "3"), a("dbx", "4")},
		Authorities: []Anchor{a(Authority, "3"), a(Authority, "1"), a(Authority, "4")},
	}
	want := []Anchor{a("PK", "1"), a("KEK", "1"), a("db", "2"), a("db", "3"), a(Authority, "1"), a(Authority, "4")}
	if got := b.signers(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// The log is what the TPM signed, whatever the PCRs cover of it.
func TestBootLogIsSigned(t *testing.T) {
	replay := func([]byte, []PCR) (Boot, error) { return Boot{Explained: []int{0}}, nil }
	report := forge(t, func(f *forgery) {
		f.report.Trigger, f.report.Evidence.BootLog = device.TriggerBoot, b64([]byte("log"))
	})
	for _, other := range []string{b64([]byte("lag")), ""} {
		changed := bytes.Replace(report, []byte(`"bootLog":"`+b64([]byte("log"))+`"`), []byte(`"bootLog":"`+other+`"`), 1)
		if other == "" {
			changed = bytes.Replace(changed, []byte(`"bootLog":"",`), nil, 1)
			changed = bytes.Replace(changed, []byte(`,"bootLog":""`), nil, 1)
		}
		r := Verify(changed, Policy{Now: now, Check: passes, Replay: replay})
		if l := held(t, r, LevelReport); l.Status != device.Fail || !strings.Contains(l.Reason, "boot log") || held(t, r, LevelBootLog).Status != device.Undecided {
			t.Errorf("%q: %+v", other, l)
		}
	}
}
