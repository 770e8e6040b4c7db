package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// BenchmarkBinary tells the size of the device binary; maxBinaryBytes is its budget.
func BenchmarkBinary(b *testing.B) {
	size := binarySize(b)
	for b.Loop() {
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCheckFile runs the real program, as a release builds it, on one
// certificate, its built-in blocklist checked and used.
func BenchmarkCheckFile(b *testing.B) {
	dir := b.TempDir()
	program := filepath.Join(dir, "keyvet")
	build(b, program, "GOARCH="+os.Getenv("GOARCH"), "-ldflags", "-s -w")
	var peak int64 // KiB, as Linux counts
	for b.Loop() {
		cmd := exec.Command(program, "check", "testdata/good.pem")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		peak = max(peak, int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)) // 32 bits wide on some
	}
	b.ReportMetric(float64(peak)*1024/1e6, "peak-MB")
}

// BenchmarkCheckTPM runs the real program on an swtpm, in turn with its peers:
// the very same commands, written to the TPM's socket one after the other, and
// the start of a program that does nothing (keyvet version). times-bare is
// check against start and commands together: what it takes to make sense of
// the answers, to verify the blocklist and to test the keys.
func BenchmarkCheckTPM(b *testing.B) {
	program := filepath.Join(b.TempDir(), "keyvet")
	build(b, program, "GOARCH="+os.Getenv("GOARCH"), "-ldflags", "-s -w")
	s := tpmtest.Run(b, tpmtest.Options{})
	run := func(args ...string) time.Duration {
		start := time.Now()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		return time.Since(start)
	}
	var commands [][]byte
	var longest int
	proxy := tpmtest.RunProxy(b, s.Address(), func(command, response []byte) []byte {
		commands, longest = append(commands, bytes.Clone(command)), max(longest, len(response))
		return response
	})
	run("check", "-tpm", proxy.Address())
	proxy.Close()
	bare := func() time.Duration {
		start := time.Now()
		conn, err := net.Dial("unix", strings.TrimPrefix(s.Address(), "unix:"))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		response := make([]byte, longest)
		for _, command := range commands {
			if _, err := conn.Write(command); err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Read(response); err != nil && err != io.EOF { // swtpm writes it at once
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	var check, sequence, start []time.Duration
	for b.Loop() {
		check = append(check, run("check", "-tpm", s.Address()))
		sequence = append(sequence, bare())
		start = append(start, run("version"))
	}
	median := func(d []time.Duration) float64 { // the machine may do other things at times
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	b.ReportMetric(median(check)/1e6, "ms")
	b.ReportMetric(median(sequence)/1e6, "bare-ms")
	b.ReportMetric(median(start)/1e6, "start-ms")
	b.ReportMetric(median(check)/(median(sequence)+median(start)), "times-bare")
	b.ReportMetric(0, "ns/op")
}
