package tpm

import (
	"bytes"
	"testing"
	"time"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// BenchmarkInventory reads a whole swtpm, in turn with the bare sequence of the
// very same commands, and tells how much longer it takes.
func BenchmarkInventory(b *testing.B) {
	s := tpmtest.Run(b, tpmtest.Options{})
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
		conn, err := dial(s.Address(), DefaultTimeout)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		for _, command := range commands {
			if _, err := roundTrip(conn, command); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	read(proxy.Address())
	proxy.Close()

	var inventory, sequence time.Duration
	for b.Loop() {
		inventory += read(s.Address())
		sequence += bare()
	}
	b.ReportMetric(float64(len(commands)), "commands")
	b.ReportMetric(float64(sequence)/float64(b.N)/1e6, "bare-ms")
	b.ReportMetric(float64(inventory)/float64(sequence), "times-bare")
	b.ReportMetric(float64(inventory)/float64(b.N)/1e6, "ms")
	b.ReportMetric(0, "ns/op")
}
