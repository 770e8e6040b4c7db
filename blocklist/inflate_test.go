package blocklist

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// reference unpacks by the standard library.
func reference(packed []byte, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), int64(limit)+1))
	if err == nil && len(b) > limit {
		err = errPacked
	}
	return b, err
}

func deflate(tb testing.TB, text []byte, level int) []byte {
	tb.Helper()
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, level)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return packed.Bytes()
}

func TestInflate(t *testing.T) {
	random := make([]byte, 70_000)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(random)
	for name, text := range map[string][]byte{
		"nothing": nil,
		"one":     []byte("a"),
		"short":   []byte("keys/vagrant\nkeys/vagrant.pub\n"),
		"long":    []byte(strings.Repeat("host/zyxel-vmg1312_rsa.key\n", 5000)),
		"random":  random,
	} {
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression, flate.HuffmanOnly} {
			packed := deflate(t, text, level)
			if got, err := inflate(packed, len(text)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s at level %d: %d bytes, %v", name, level, len(got), err)
			}
			if len(text) == 0 {
				continue
			}
			if got, err := inflate(packed, len(text)-1); err == nil {
				t.Errorf("%s at level %d: %d bytes are more than the limit", name, level, len(got))
			}
			if got, err := inflate(packed[:len(packed)/2], len(text)); err == nil {
				t.Errorf("%s at level %d: half of it gave %d bytes", name, level, len(got))
			}
		}
	}
}

// FuzzInflate holds it to the standard library, which refuses some codes that
// are not complete.
func FuzzInflate(f *testing.F) {
	for _, text := range []string{"", "a", strings.Repeat("keys/vagrant\n", 20)} {
		for _, level := range []int{flate.NoCompression, flate.BestCompression, flate.HuffmanOnly} {
			f.Add(deflate(f, []byte(text), level))
		}
	}
	f.Add([]byte{0x07})
	f.Fuzz(func(t *testing.T, packed []byte) {
		const limit = 1 << 16
		got, err := inflate(packed, limit)
		want, wantErr := reference(packed, limit)
		if wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%d bytes and %v, want %d", len(got), err, len(want))
		}
		if len(got) > limit {
			t.Errorf("%d bytes, more than %d", len(got), limit)
		}
	})
}
