package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var beforeProgram = flag.String("before", "", "the `path` of an earlier keyvet, which BenchmarkBefore measures beside this one: make bench BEFORE=COMMIT")

// BenchmarkBefore runs an earlier build of the program and this one in turn, so
// that what else the machine does falls on both: on one certificate, and through a
// self-check to the acknowledged report. before-ms and now-ms are medians.
func BenchmarkBefore(b *testing.B) {
	if *beforeProgram == "" {
		return
	}
	now := filepath.Join(b.TempDir(), "keyvet")
	build(b, now, runtime.GOARCH, "")
	compare := func(b *testing.B, args ...string) {
		var took [2][]time.Duration
		for b.Loop() {
			for i, program := range []string{*beforeProgram, now} {
				start := time.Now()
				if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
					b.Fatalf("%s: %v\n%s", program, err, out)
				}
				took[i] = append(took[i], time.Since(start))
			}
		}
		for i, unit := range []string{"before-ms", "now-ms"} {
			b.ReportMetric(median(took[i])/1e6, unit)
		}
		b.ReportMetric(0, "ns/op")
	}
	b.Run("check", func(b *testing.B) { compare(b, "check", "-config", os.DevNull, "testdata/good.pem") })
	b.Run("run", func(b *testing.B) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		w := &world{dir: b.TempDir(), thing: "gw"}
		defer w.close()
		if err := w.build(key, ""); err != nil {
			b.Fatal(err)
		}
		compare(b, "run", "-once", "-config", w.config())
	})
}

// median is that of times; the machine may do other things now and then.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2])
}

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
	program, peaks := filepath.Join(dir, "keyvet"), filepath.Join(dir, "peak")
	build(b, program, runtime.GOARCH, "")
	buildPeer(b, peaks, "./testdata/peak")
	var most int64 // KiB
	for b.Loop() {
		out, err := exec.Command(peaks, program, "check", "-config", os.DevNull, "testdata/good.pem").CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		peak, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		most = max(most, peak)
	}
	b.ReportMetric(float64(most)*1024/1e6, "peak-MB")
}

// BenchmarkCheckDirectory runs it on a directory of 10,000 files.
func BenchmarkCheckDirectory(b *testing.B) {
	dir, files := b.TempDir(), b.TempDir()
	program, peaks := filepath.Join(dir, "keyvet"), filepath.Join(dir, "peak")
	build(b, program, runtime.GOARCH, "")
	buildPeer(b, peaks, "./testdata/peak")
	good, err := os.ReadFile("testdata/good.pem")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(files, strconv.Itoa(i)+".pem"), good, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var most int64 // KiB
	for b.Loop() {
		out, err := exec.Command(peaks, program, "check", "-config", os.DevNull, files).CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		peak, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		most = max(most, peak)
	}
	b.ReportMetric(float64(most)*1024/1e6, "peak-MB")
}

// buildPeer builds a program that keyvet is measured by.
func buildPeer(b *testing.B, path, dir string) {
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// BenchmarkCheckTPM runs the real program on an swtpm, in turn with a process
// that does nothing but to write the very same commands to its socket: where
// endorsement keys are persistent, so that the TPM has next to nothing to do,
// and where it has to make them. start-ms is a program of keyvet's size that
// does nothing, keyvet version.
func BenchmarkCheckTPM(b *testing.B) {
	b.Run("persistent", func(b *testing.B) { benchmarkCheckTPM(b) })
	b.Run("made", func(b *testing.B) { benchmarkCheckTPM(b, 0x81010001, 0x81010016) })
}

func benchmarkCheckTPM(b *testing.B, evicted ...tpm2.TPMHandle) {
	dir := b.TempDir()
	program, bare, commands := filepath.Join(dir, "keyvet"), filepath.Join(dir, "bare"), filepath.Join(dir, "commands")
	build(b, program, runtime.GOARCH, "")
	buildPeer(b, bare, "./testdata/bare")
	s := tpmtest.Run(b, tpmtest.Options{})
	evict(b, s.Address(), evicted)
	run := func(args ...string) time.Duration {
		start := time.Now()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
		return time.Since(start)
	}
	var sent []byte
	proxy := tpmtest.RunProxy(b, s.Address(), func(command, response []byte) []byte {
		sent = append(sent, command...)
		return response
	})
	run(program, "check", "-config", os.DevNull, "-tpm", proxy.Address())
	proxy.Close()
	if err := os.WriteFile(commands, sent, 0o600); err != nil {
		b.Fatal(err)
	}
	var check, sequence, start []time.Duration
	for b.Loop() {
		check = append(check, run(program, "check", "-config", os.DevNull, "-tpm", s.Address()))
		sequence = append(sequence, run(bare, strings.TrimPrefix(s.Address(), "unix:"), commands))
		start = append(start, run(program, "version"))
	}
	b.ReportMetric(median(check)/1e6, "ms")
	b.ReportMetric(median(sequence)/1e6, "bare-ms")
	b.ReportMetric(median(start)/1e6, "start-ms")
	b.ReportMetric(median(check)/median(sequence), "times-bare")
	b.ReportMetric(0, "ns/op")
}

// evict takes persistent keys out of a TPM.
func evict(b *testing.B, address string, handles []tpm2.TPMHandle) {
	c, err := tpm.Open(address, tpm.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for _, h := range handles {
		rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
		if err != nil {
			b.Fatal(err)
		}
		key := &tpm2.NamedHandle{Handle: h, Name: rsp.Name}
		if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: key, PersistentHandle: h}).Execute(c); err != nil {
			b.Fatal(err)
		}
	}
}
