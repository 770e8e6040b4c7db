package tpm

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/keyvet/keyvet/tpm/link"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// BenchmarkInventory reads a whole swtpm, in turn with the bare sequence of the
// very same commands, and tells how much longer it takes: where endorsement
// keys are persistent, so that the TPM has next to nothing to do, and where it
// has to make them.
func BenchmarkInventory(b *testing.B) {
	b.Run("persistent", func(b *testing.B) { benchmarkInventory(b, func(*TPM) {}) })
	b.Run("made", func(b *testing.B) {
		benchmarkInventory(b, func(t *TPM) {
			evict(b, t, 0x81010001)
			evict(b, t, 0x81010016)
		})
	})
}

func benchmarkInventory(b *testing.B, prepare func(*TPM)) {
	s := tpmtest.Run(b, tpmtest.Options{})
	c, err := Open(s.Address(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	prepare(c)
	c.Close()
	var commands [][]byte
	proxy := tpmtest.RunProxy(b, s.Address(), func(command, response []byte) []byte {
		commands = append(commands, bytes.Clone(command))
		return response
	})
	read := func(address string) time.Duration {
		start := time.Now()
		t, err := Open(address, Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer t.Close()
		if _, keys, gaps := t.Inventory(); len(keys) < 5 {
			b.Fatalf("%d keys, %v", len(keys), gaps)
		}
		return time.Since(start)
	}
	bare := func() time.Duration {
		start := time.Now()
		l, err := link.Open(s.Address(), DefaultTimeout)
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		for _, command := range commands {
			if _, err := l.Send(command); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	read(proxy.Address())
	proxy.Close()

	var inventory, sequence []time.Duration
	for b.Loop() {
		inventory = append(inventory, read(s.Address()))
		sequence = append(sequence, bare())
	}
	// The machine may do other things at times, hence medians.
	b.ReportMetric(float64(len(commands)), "commands")
	b.ReportMetric(median(sequence)/1e6, "bare-ms")
	b.ReportMetric(median(inventory)/1e6, "ms")
	b.ReportMetric(median(inventory)/median(sequence), "times-bare")
	b.ReportMetric(0, "ns/op")
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2])
}
