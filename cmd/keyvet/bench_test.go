package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
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
