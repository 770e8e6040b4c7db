package curve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// generic is a curve of crypto/elliptic computed on as any other.
func generic(c elliptic.Curve) *Weierstrass {
	return Curve{Std: c}.numbers()
}

// explicit writes the parameters of a curve (SEC 1, appendix C.2).
func (c *Weierstrass) explicit(base []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPrimeField)
			b.AddASN1BigInt(c.p)
		})
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(c.a.FillBytes(make([]byte, c.size())))
			b.AddASN1OctetString(c.b.FillBytes(make([]byte, c.size())))
		})
		b.AddASN1OctetString(base)
		b.AddASN1BigInt(c.n)
		b.AddASN1Int64(1)
	})
	return b.BytesOrPanic()
}

func TestAgainstGo(t *testing.T) {
	for _, std := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		c, name := generic(std), std.Params().Name
		for i := range 2 {
			k, err := ecdsa.GenerateKey(std, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			scalar, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			point, err := k.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			x, y, ok := c.times(new(big.Int).SetBytes(scalar), c.x, c.y)
			if !ok || string(c.bytes(x, y)) != string(point) {
				t.Fatalf("%s: another point", name)
			}
			size := c.size()
			compressed := append([]byte{2 + point[2*size]&1}, point[1:1+size]...)
			if px, py, ok := c.point(compressed); !ok || px.Cmp(x) != 0 || py.Cmp(y) != 0 {
				t.Errorf("%s: compressed point not read", name)
			}
			digest := sha256.Sum256([]byte{byte(i)})
			signature, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			var pair struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(signature, &pair); err != nil || !c.verifies(x, y, digest[:], pair.R, pair.S) {
				t.Errorf("%s: signature does not verify", name)
			}
			if digest[0] ^= 1; c.verifies(x, y, digest[:], pair.R, pair.S) {
				t.Errorf("%s: signature of something else verifies", name)
			}
		}
	}
}

// TestNumbers holds the table against what must be true of a curve.
func TestNumbers(t *testing.T) {
	for _, known := range all {
		c := numbers[known.Name]
		if known.Std != nil {
			c = generic(known.Std)
		}
		if c == nil {
			t.Errorf("%s: no numbers", known.Name)
			continue
		}
		base := c.bytes(c.x, c.y)
		if _, _, ok := c.point(base); !ok || !c.p.ProbablyPrime(1) || !c.n.ProbablyPrime(1) {
			t.Errorf("%s: no curve", known.Name)
		}
		if _, _, ok := c.times(c.n, c.x, c.y); ok {
			t.Errorf("%s: another order", known.Name)
		}
		less := new(big.Int).Sub(c.n, one)
		if x, y, ok := c.times(less, c.x, c.y); !ok || x.Cmp(c.x) != 0 || new(big.Int).Add(y, c.y).Cmp(c.p) != 0 {
			t.Errorf("%s: (n-1)·G is not -G", known.Name)
		}
		compressed := append([]byte{2 + byte(c.y.Bit(0))}, c.x.FillBytes(make([]byte, c.size()))...)
		for _, b := range [][]byte{base, compressed} {
			own, err := read(c.explicit(b))
			if err != nil || own.x.Cmp(c.x) != 0 || own.y.Cmp(c.y) != 0 || own.n.Cmp(c.n) != 0 || own.a.Cmp(c.a) != 0 {
				t.Errorf("%s: explicit parameters: %v", known.Name, err)
			}
		}
		if k, ok := Known(c.explicit(base)); !ok || k.Name != known.Name {
			t.Errorf("%s: not known by its numbers: %v", known.Name, k)
		}
		other := *c
		other.x, other.y, _ = c.times(big.NewInt(7), c.x, c.y)
		if k, ok := Known(c.explicit(c.bytes(other.x, other.y))); ok {
			t.Errorf("%s: taken for %s with another generator", known.Name, k.Name)
		}
		bad := *c
		bad.p = new(big.Int).Mul(c.p, big.NewInt(3))
		if _, err := read(bad.explicit(base)); err == nil {
			t.Errorf("%s: a field of no prime", known.Name)
		}
		if _, err := read(c.explicit(base[:len(base)-1])); err == nil {
			t.Errorf("%s: a generator that is cut short", known.Name)
		}
	}
	if len(numbers) != len(all)-4 {
		t.Errorf("%d curves of %d", len(numbers), len(all))
	}
}

func TestMultiple(t *testing.T) {
	for _, c := range all {
		w := c.numbers()
		for _, k := range []int64{1, 2, 16, 17, -1, -3} {
			scalar := new(big.Int).Mod(big.NewInt(k), w.n)
			point, ok := w.Public(scalar)
			want := int(k)
			if k > 16 {
				want = 0
			}
			x, y, on := c.Point(point)
			if !ok || !on || c.Multiple(x, y) != want {
				t.Errorf("%s: %d times the generator is not found", c.Name, k)
			}
			point[len(point)-1] ^= 1
			if _, _, on := c.Point(point); on {
				t.Errorf("%s: a point that was changed is on the curve", c.Name)
			}
		}
	}
}
