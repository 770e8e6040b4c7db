package deflate

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
)

// packed is what a Writer makes of data, in writes of n bytes.
func packed(data []byte, n int) []byte {
	var w Writer
	for left := data; len(left) > 0; {
		part := left[:min(n, len(left))]
		w.Write(part)
		left = left[len(part):]
	}
	return w.Close()
}

func unpacked(t *testing.T, b []byte) []byte {
	t.Helper()
	in := bytes.NewReader(b)
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if in.Len() > 0 {
		t.Errorf("%d bytes follow", in.Len())
	}
	return data
}

// The standard library reads what is written, whatever it is.
func TestRead(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	noise := make([]byte, 100_000)
	random.Read(noise)
	few := bytes.Clone(noise)
	for i := range few {
		few[i] &= 3
	}
	all := make([]byte, 0, 70_000) // each length of a match at many distances
	for n := 3; n < 300; n++ {
		all = append(append(all, noise[n*7:n*7+n]...), noise[n*7-1:n*7+n-1]...)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "a byte": {200}, "zeros": make([]byte, 200_000), "noise": noise, "few": few, "lengths": all,
		"far": append(append(bytes.Clone(noise[:32_000]), make([]byte, 700)...), noise[:32_000]...),
	} {
		for _, n := range []int{1, 1000, piece, 1 << 20} {
			if back := unpacked(t, packed(data, n)); !bytes.Equal(back, data) {
				t.Errorf("%s in writes of %d: %d bytes are %d others", name, n, len(data), len(back))
			}
		}
	}
}

// Published boot logs become hardly larger than by the standard library.
func TestSize(t *testing.T) {
	logs, err := filepath.Glob("../../../keyvet-fleet/internal/bootlog/testdata/logs/*.bin")
	if err != nil || len(logs) < 7 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	for _, name := range logs {
		log, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b := packed(log, 1<<20)
		if !bytes.Equal(unpacked(t, b), log) {
			t.Errorf("%s: another log", name)
		}
		var theirs bytes.Buffer
		z := gzip.NewWriter(&theirs)
		z.Write(log)
		z.Close()
		t.Logf("%s: %d bytes, %d, by the library %d", filepath.Base(name), len(log), len(b), theirs.Len())
		if len(b) > theirs.Len()*5/4 {
			t.Errorf("%s: %d bytes are %d, by the library %d", name, len(log), len(b), theirs.Len())
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("measured measured measured"), 3)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if back := unpacked(t, packed(data, max(1, n))); !bytes.Equal(back, data) {
			t.Errorf("%x is %x", data, back)
		}
	})
}
