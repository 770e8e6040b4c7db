package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var beforeProgram = flag.String("before", "", "the `path` of an earlier keyvet, which BenchmarkBefore measures beside this one: make bench BEFORE=COMMIT")

// BenchmarkBefore runs an earlier build of the program and this one in turn, so
// that what else the machine does falls on both: on one certificate, and through a
// self-check to the acknowledged report, and on 10,000 files, half of them of
// distinct RSA-2048 keys. before-ms and now-ms are medians of the time, -cpu-ms of
// the processors' time, -peak-MB is the most memory.
func BenchmarkBefore(b *testing.B) {
	if *beforeProgram == "" {
		return
	}
	now := filepath.Join(b.TempDir(), "keyvet")
	build(b, now, runtime.GOARCH, "")
	compare := func(b *testing.B, args ...string) {
		var took, cpu [2][]time.Duration
		var peak [2]int64 // KiB
		for b.Loop() {
			for i, program := range []string{*beforeProgram, now} {
				start := time.Now()
				cmd := exec.Command(program, args...)
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%s: %v\n%s", program, err, out)
				}
				took[i] = append(took[i], time.Since(start))
				cpu[i] = append(cpu[i], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
				peak[i] = max(peak[i], int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss))
			}
		}
		for i, which := range []string{"before", "now"} {
			b.ReportMetric(median(took[i])/1e6, which+"-ms")
			b.ReportMetric(median(cpu[i])/1e6, which+"-cpu-ms")
			b.ReportMetric(float64(peak[i])*1024/1e6, which+"-peak-MB")
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
	b.Run("files", func(b *testing.B) {
		dir := b.TempDir()
		names := writeKeys(b, dir, 10_000)
		b.ResetTimer()
		compare(b, append([]string{"check", "-config", os.DevNull}, names...)...)
	})
}

// writeKeys writes count files in PEM, one half with an RSA-2048 key, the other with
// a P-256 key, and returns their names.
func writeKeys(b *testing.B, dir string, count int) []string {
	names := make([]string, count)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				var public any
				if i%2 == 0 {
					public = &rsa.PublicKey{N: new(big.Int).Mul(quickPrime(1024), quickPrime(1024)), E: 65537}
				} else if key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
					public = key.Public()
				}
				der, err := x509.MarshalPKIXPublicKey(public)
				names[i] = filepath.Join(dir, strconv.Itoa(i)+".pem")
				if err == nil {
					err = os.WriteFile(names[i], pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	workers.Wait()
	return names
}

// quickPrime finds a prime that nobody is to rely on, in 10 ms.
func quickPrime(bits int) *big.Int {
	start, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-2)))
	start.SetBit(start, bits-1, 1).SetBit(start, bits-2, 1).SetBit(start, 0, 1)
	var composite [8192]bool // of start + 2i
	for p := int64(3); p < 8192; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		first := p - new(big.Int).Mod(start, big.NewInt(p)).Int64()
		for i := first * (p + 1) / 2 % p; i < int64(len(composite)); i += p {
			composite[i] = true
		}
	}
	for i, c := range composite {
		n := new(big.Int).Add(start, big.NewInt(int64(2*i)))
		if less := new(big.Int).Sub(n, big.NewInt(1)); !c && new(big.Int).Exp(big.NewInt(2), less, n).IsInt64() && n.ProbablyPrime(0) {
			return n
		}
	}
	return quickPrime(bits)
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

// BenchmarkCheckDirectory runs it on a directory of 10,000 files, half of them of
// distinct RSA-2048 keys.
func BenchmarkCheckDirectory(b *testing.B) {
	dir, files := b.TempDir(), b.TempDir()
	program, peaks := filepath.Join(dir, "keyvet"), filepath.Join(dir, "peak")
	build(b, program, runtime.GOARCH, "")
	buildPeer(b, peaks, "./testdata/peak")
	writeKeys(b, files, 10_000)
	b.ResetTimer()
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
func evict(b testing.TB, address string, handles []tpm2.TPMHandle) {
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
