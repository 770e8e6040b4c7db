package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyvet/keyvet/blocklist/debian"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyvet-blocklist": main})
}

func TestScripts(t *testing.T) { runScripts(t, "script") }

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", dir),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"makeset":  makeSet,
			"exitcode": exitCode,
			"flip":     flip,
			"cut":      cut,
			"lie":      lie,
		},
	})
}

// makeSet writes files of made-up fingerprints and names them in SHA256SUMS:
// makeset DIR FILE...
func makeSet(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	sums, err := os.OpenFile(filepath.Join(dir, "SHA256SUMS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer sums.Close()
	for _, name := range args[1:] {
		var b []byte
		for pid := range rowsPerFile {
			row := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, pid))
			b = append(b, row[:]...)
			if strings.HasPrefix(name, "rsa") {
				b = append(b, 1, 0, 2, 0, 0, 0, 0, 0)
			}
		}
		ts.Check(os.WriteFile(filepath.Join(dir, name), b, 0o644))
		fmt.Fprintf(sums, "%x  %s\n", sha256.Sum256(b), name)
	}
}

// exitCode runs a command and holds it to its exit status: exitcode N COMMAND ARGS...
// Unless that is 0, it must end with one line of what is wrong, and a hint at most.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	said := ts.ReadFile("stderr")
	if _, said, _ = strings.Cut(said, "keyvet-blocklist: "); want != 0 && (said == "" || strings.Count(said, "\n") > 2) {
		ts.Fatalf("standard error does not end with one line and a hint")
	}
}

// flip inverts a bit of the byte at an offset; negative from the end: flip FILE OFFSET
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o644))
}

// cut leaves the first N bytes of a file: cut FILE N
func cut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// lie has a list of P-256 keys say that it covers one more origin: lie FILE ORIGIN
func lie(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	k, err := kindNamed("p256")
	ts.Check(err)
	more, err := k.parseOrigins(args[1])
	ts.Check(err)
	const at = 24 + 1 + len("p256") + 1 + 4 + 1 + 2 // as package blocklist tells
	mask := binary.LittleEndian.Uint16(b[at:])
	binary.LittleEndian.PutUint16(b[at:], mask|1<<(4*uint16(more[0].Arch)+uint16(more[0].Variant)))
	// The digest is of header and directory, and of the digests that follow the sections.
	directory, end := 24+binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint64(b[16:])
	sum := sha256.Sum256(slices.Concat(b[:directory], b[end:len(b)-sha256.Size]))
	copy(b[len(b)-sha256.Size:], sum[:])
	ts.Check(os.WriteFile(path, b, 0o644))
}

// TestGenerateResumes interrupts a run, and holds the result of the second
// against what the whole set is known to be.
func TestGenerateResumes(t *testing.T) {
	k, err := kindNamed("p256")
	if err != nil {
		t.Fatal(err)
	}
	origin := k.origins()[0]
	f := &folder{t.TempDir(), make(map[string]string)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var p *progress
	shown := 0
	p = newProgress(writerFunc(func(b []byte) {
		p.next = time.Time{} // the next key is shown too
		if shown++; shown == 10*chunkRows+5 {
			cancel()
		}
		if shown == 1000 && !strings.Contains(string(b), "p256 le32-rnd: 1000 of 32768 keys, ") {
			t.Errorf("progress is shown as %q", b)
		}
	}), rowsPerFile)
	p.terminal, p.next = true, time.Time{}
	if err := f.generate(ctx, k, origin, shard{0, 1}, p); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	parts, err := os.ReadDir(f.dir)
	if err != nil || len(parts) != 10 {
		t.Fatalf("%d files after an interruption, want 10 chunks: %v", len(parts), err)
	}

	// A run that was killed also leaves what it had begun to write.
	for _, name := range []string{".p256-le32-rnd.bin.31744.part.3579131197", ".SHA256SUMS.3261119635"} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte("begun"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p = newProgress(io.Discard, rowsPerFile)
	if err := f.generate(t.Context(), k, origin, shard{0, 1}, p); err != nil {
		t.Fatal(err)
	}
	if p.skipped != 10*chunkRows || p.done != rowsPerFile {
		t.Errorf("the second run made %d of %d keys", p.done-p.skipped, p.done)
	}
	again, err := openFolder(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	if sum := again.sums["p256-le32-rnd.bin"]; sum != "d107cf047791cca1d7002773ca587dec926d358a5cd589ba47343936b45ff162" {
		t.Errorf("the set has the SHA-256 %s", sum)
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 2 {
		t.Errorf("%d files are left, want the set and %s: %v", len(left), sumsName, err)
	}

	// A third run makes nothing; a file that is not what it was is told.
	p = newProgress(io.Discard, rowsPerFile)
	if err := again.generate(t.Context(), k, origin, shard{0, 1}, p); err != nil || p.skipped != rowsPerFile {
		t.Errorf("the third run made %d keys: %v", p.done-p.skipped, err)
	}
	if err := os.Truncate(filepath.Join(f.dir, "p256-le32-rnd.bin"), 5); err != nil {
		t.Fatal(err)
	}
	if err := again.generate(t.Context(), k, origin, shard{0, 1}, p); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a file cut short: %v", err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// TestRows goes from a seed to a row and back, and refuses any other row.
func TestRows(t *testing.T) {
	for _, name := range []string{"rsa1024", "p384"} {
		k, err := kindNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		seed := debian.Seed{Arch: debian.BE32, Variant: debian.NoReadRnd, PID: 77}
		key, err := k.generate(t.Context(), seed)
		if err != nil {
			t.Fatal(err)
		}
		row, err := k.row(key)
		if err != nil || len(row) != k.rowBytes() {
			t.Fatalf("a row of %d bytes: %v", len(row), err)
		}
		if back, err := k.fromRow(t.Context(), seed, row); err != nil || back.number.Cmp(key.number) != 0 || back.failed != key.failed {
			t.Errorf("%s: %v, %v", name, back, err)
		}
		for _, at := range []int{0, 31, len(row) - 8} {
			other := append([]byte(nil), row...)
			other[at] ^= 1
			if _, err := k.fromRow(t.Context(), seed, other); !errors.Is(err, errRow) && at < 36 {
				t.Errorf("%s: byte %d of the row changed: %v", name, at, err)
			}
		}
	}
}

// TestSmallExponent has a seed of which 65537 refuses a prime, and its
// neighbours.
func TestSmallExponent(t *testing.T) {
	k, err := kindNamed("rsa1024")
	if err != nil {
		t.Fatal(err)
	}
	fromRow := func(ctx context.Context, seed debian.Seed) (weakKey, error) {
		key, err := k.generate(ctx, seed)
		if err != nil {
			return key, err
		}
		row, err := k.row(key)
		if err != nil {
			return key, err
		}
		return k.fromRow(ctx, seed, row)
	}
	seeds := debian.Seeds(debian.LE64, debian.NoRnd, 6187, 6189)
	var got []string
	for key, err := range k.withSmallExponent(t.Context(), debian.Generate(t.Context(), seeds, fromRow)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %x", key.seed.PID, debian.Fingerprint(key.number)))
	}
	const other = "6188 a11be7a1f5de1db5eeb50893c4cb43f4b62b0dc3a9b2350b13783b537a1121a5"
	if len(got) != 4 || got[2] != other || !strings.HasPrefix(got[1], "6188 ") || got[1] == other {
		t.Errorf("keys %q, want two of 6188, the second %s", got, other)
	}
}

func FuzzFingerprints(f *testing.F) {
	f.Add([]byte("# x\n\n00000cd0b4ae8b5cd7b7\n"))
	f.Add([]byte("0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, names, err := parseFingerprints(b, 10, true)
		if (err == nil) != (len(all) > 0) || len(names) != len(all) {
			t.Errorf("%d fingerprints, %d names, %v", len(all), len(names), err)
		}
		for _, one := range all {
			if len(one) != 10 {
				t.Errorf("%d bytes", len(one))
			}
		}
	})
}
