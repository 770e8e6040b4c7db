package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// BenchmarkBoot runs the real program on a device whose TPM is as slow as each of
// the chips of [tpmtest.Speeds], and has no persistent keys: a first boot by a
// claim, a later boot, and a self-check of the same boot, by schedule. verdict-s
// and gate-s are seconds from the program's start on, gate-s until it ends with the
// gate open; tpm-s is what the chip is busy for, rsa how many RSA keys it makes.
// With -before, an earlier program does the same beside it.
func BenchmarkBoot(b *testing.B) {
	now := filepath.Join(b.TempDir(), "keyvet")
	build(b, now, runtime.GOARCH, "")
	programs := []struct{ name, path string }{{"now", now}}
	if *beforeProgram != "" {
		programs = append(programs, struct{ name, path string }{"before", *beforeProgram})
	}
	for _, speed := range tpmtest.Speeds {
		for _, p := range programs {
			s := &slowDevice{program: p.path, watch: &tpmtest.Stopwatch{Speed: speed, Sleep: time.Sleep}}
			name := strings.ReplaceAll(speed.Chip, " ", "-") + "/" + p.name
			if !b.Run(name+"/first", func(b *testing.B) { s.start(b); s.once(b) }) || s.world == nil {
				continue // it failed, or was not asked for
			}
			b.Run(name+"/later", func(b *testing.B) { s.reset(b); s.once(b) })
			b.Run(name+"/daily", func(b *testing.B) { s.reset(b); s.daily(b) })
			s.world.close()
			s.proxy.Close()
		}
	}
}

// slowDevice is a device with a slow TPM.
type slowDevice struct {
	program string
	watch   *tpmtest.Stopwatch
	world   *world
	proxy   *tpmtest.Proxy
}

func (s *slowDevice) start(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "boot") // it outlives this part of the benchmark
	if err != nil {
		b.Fatal(err)
	}
	s.world = &world{dir: dir, thing: "gw", claim: true}
	if s.world.tpm, err = tpmtest.Start(context.Background(), tpmtest.Options{Dir: filepath.Join(dir, "tpm")}); err != nil {
		b.Fatal(err)
	}
	evict(b, s.world.tpm.Address(), []tpm2.TPMHandle{0x81010001, 0x81010016})
	if s.proxy, err = tpmtest.NewProxy(s.world.tpm.Address(), s.watch.Rewrite); err != nil {
		b.Fatal(err)
	}
	if err := s.world.build(key, "[schedule]\nevery = \"4s\"\n"); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(s.world.config())
	if err != nil {
		b.Fatal(err)
	}
	text = bytes.Replace(text, []byte(s.world.tpm.Address()), []byte(s.proxy.Address()), 1)
	text = bytes.Replace(text, []byte(`tpm.timeout = "10s"`), []byte(`tpm.timeout = "60s"`), 1)
	if err := os.WriteFile(s.world.config(), text, 0o600); err != nil {
		b.Fatal(err)
	}
	s.watch.Lap()
}

func (s *slowDevice) reset(b *testing.B) {
	if err := s.world.tpm.Reset(); err != nil {
		b.Fatal(err)
	}
	s.watch.Lap()
}

// run starts the program, and calls back with each line of its log, for as long as
// that wants more.
func (s *slowDevice) run(b *testing.B, more func(line string) bool, args ...string) {
	cmd := exec.Command(s.program, append(args, "-config", s.world.config())...)
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	var said strings.Builder
	stopped := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if !stopped && !more(lines.Text()) {
			stopped = true
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil && !stopped {
		b.Fatalf("%v\n%s", err, &said)
	}
}

func vetted(line string) bool { return strings.Contains(line, "msg=vetted") }

// once is a boot.
func (s *slowDevice) once(b *testing.B) {
	start := time.Now()
	var verdict time.Duration
	s.run(b, func(line string) bool {
		if vetted(line) && verdict == 0 {
			verdict = time.Since(start)
		}
		return true
	}, "run", "-once")
	gate, lap := time.Since(start), s.watch.Lap()
	for b.Loop() {
	}
	b.ReportMetric(verdict.Seconds(), "verdict-s")
	b.ReportMetric(gate.Seconds(), "gate-s")
	report(b, lap)
}

// daily is the second self-check of a service that runs.
func (s *slowDevice) daily(b *testing.B) {
	checks := 0
	var lap tpmtest.Lap
	s.run(b, func(line string) bool {
		if vetted(line) {
			checks++
		}
		switch {
		case checks == 1 && strings.Contains(line, "gate"): // reported, and at rest until the next one
			s.watch.Lap()
		case checks == 2:
			lap = s.watch.Lap()
			return false
		}
		return true
	}, "run")
	for b.Loop() {
	}
	report(b, lap)
}

func report(b *testing.B, lap tpmtest.Lap) {
	b.ReportMetric(lap.Time.Seconds(), "tpm-s")
	b.ReportMetric(float64(lap.RSA), "rsa")
	b.ReportMetric(0, "ns/op")
}
