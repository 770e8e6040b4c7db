package main

import (
	"flag"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// BenchmarkVerify is how long a report of a boot takes on one core: the whole of
// keyvet-fleet verify, our verification of the evidence without the tests of keys,
// and go-tpm-tools' on the same quote and log.
func BenchmarkVerify(b *testing.B) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	tests := trustFlags(flags)
	if err := tests.load(flags); err != nil {
		b.Fatal(err)
	}
	for _, s := range samples(b) {
		if s.log == nil || s.message.Quotes[0].Pcrs.Pcrs[0] == nil {
			continue
		}
		policy := tests.policy()
		policy.AKName = s.akName
		_, nonce := exported(b, s.encoded)
		run := func(name string, verify func() bool) {
			b.Run(s.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if !verify() {
						b.Fatal("refused")
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reports/s")
			})
		}
		run("keyvet", func() bool { return evidence.Verify(s.encoded, policy).Verdict != device.Fail })
		run("evidence", func() bool {
			return evidence.Verify(s.encoded, evidence.Policy{Now: policy.Now, AKName: s.akName, Replay: policy.Replay}).Evidence != device.Fail
		})
		run("go-tpm-tools", func() bool { return opinion(s.message, nonce) == nil })
	}
}
