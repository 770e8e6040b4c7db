package keyfile

import (
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// rsaNumbers are those of an RSAPrivateKey (RFC 8017, section 3.2, second
// representation). Each prime has an exponent; each but the first, a coefficient:
// that of the second is of the second modulo the first, as there.
type rsaNumbers struct {
	n, e, d      *big.Int
	primes       []*big.Int
	exponents    []*big.Int // dP, dQ, d_i; none where the form has none
	coefficients []*big.Int // qInv, t_i
}

// readRSANumbers reads an RSAPrivateKey; ok is false if it is damaged.
func readRSANumbers(body cryptobyte.String) (k rsaNumbers, ok bool) {
	var version int
	if !body.ReadASN1Integer(&version) {
		return k, false
	}
	list, ok := readNumbers(&body, 8)
	if !ok {
		return k, false
	}
	k = rsaNumbers{n: list[0], e: list[1], d: list[2], primes: list[3:5:5], exponents: list[5:7:7], coefficients: list[7:8:8]}
	if body.Empty() {
		return k, true
	}
	var others cryptobyte.String
	if version != 1 || !body.ReadASN1(&others, tag.SEQUENCE) || !body.Empty() {
		return k, false
	}
	for !others.Empty() {
		var other cryptobyte.String
		if len(k.primes) >= maxPrimes || !others.ReadASN1(&other, tag.SEQUENCE) {
			return k, false
		}
		list, ok := readNumbers(&other, 3)
		if !ok || !other.Empty() {
			return k, false
		}
		k.primes, k.exponents, k.coefficients = append(k.primes, list[0]), append(k.exponents, list[1]), append(k.coefficients, list[2])
	}
	return k, true
}

const maxPrimes = 5 // as many as OpenSSL takes

// readNumbers reads INTEGERs as unsigned: some tools leave the sign byte out.
func readNumbers(s *cryptobyte.String, count int) (list []*big.Int, ok bool) {
	for range count {
		var b cryptobyte.String
		if !s.ReadASN1(&b, tag.INTEGER) {
			return nil, false
		}
		n, ok := unsigned(b)
		if !ok {
			return nil, false
		}
		list = append(list, n)
	}
	return list, true
}

func unsigned(b []byte) (*big.Int, bool) {
	n := new(big.Int).SetBytes(b)
	return n, len(b) > 0 && n.BitLen() <= maxRSABits
}

var one = big.NewInt(1)

// judge says in o whether the numbers fit each other. What takes long is left
// for [contents.add], which knows how long the file has taken already.
func (k rsaNumbers) judge(o object) object {
	o.numbers = k.fit()
	switch {
	case o.numbers.Status == device.Pass:
		o.test = k.slowly
		return o // slowly wipes
	case o.numbers == otherModulus:
		o.privateSPKI = nil
		if p, err := rsaObject(k.product(), k.e); err == nil {
			o.privateSPKI = p.spki
		}
	}
	k.wipe()
	return o
}

var otherModulus = wrongNumbers("its modulus is not the product of its primes (n is not p·q)")

func (k rsaNumbers) fit() device.Answer {
	switch {
	case k.reference():
		return elsewhere("the private key stands for one in a secure element")
	case k.d.Sign() == 0 || k.d.Cmp(k.n) >= 0:
		return wrongNumbers("its private exponent is out of range")
	case !k.hasPrimes():
		return fits // as far as can be seen in no time
	}
	for _, p := range k.primes {
		if p.Cmp(one) <= 0 {
			return wrongNumbers("one of its primes is 0 or 1")
		}
	}
	if k.product().Cmp(k.n) != 0 {
		return otherModulus
	}
	for i, p := range k.primes {
		for _, q := range k.primes[:i] {
			if p.Cmp(q) == 0 {
				return wrongNumbers("two of its primes are the same")
			}
		}
		if !inverse(k.e, k.d, less1(p)) {
			return wrongNumbers("its private exponent does not belong to its public one")
		}
		if k.exponents != nil && (k.exponents[i].Cmp(p) >= 0 || !inverse(k.e, k.exponents[i], less1(p))) {
			return wrongNumbers("the exponent of one of its primes does not fit (dP, dQ)")
		}
	}
	before := k.primes[0] // the product of the primes before
	for i, c := range k.coefficients {
		p := k.primes[i+1]
		of, modulo := before, p
		if i == 0 {
			of, modulo = p, before
		}
		if c.Cmp(modulo) >= 0 || !inverse(c, of, modulo) {
			return wrongNumbers("the coefficient of its primes does not fit (qInv)")
		}
		before = new(big.Int).Mul(before, p)
	}
	return fits
}

// reference reports whether the key only names one in a secure element of NXP's
// (Plug and Trust middleware: p is 1, q the number of the key, and the
// coefficient a mark).
func (k rsaNumbers) reference() bool {
	return len(k.primes) == 2 && len(k.coefficients) == 1 &&
		k.primes[0].Cmp(one) == 0 && k.coefficients[0].Cmp(big.NewInt(0xa5a6b5b6)) == 0
}

// hasPrimes reports whether there is more than modulus and exponents, which is
// all that some tools write.
func (k rsaNumbers) hasPrimes() bool {
	for _, list := range [][]*big.Int{k.primes, k.exponents, k.coefficients} {
		for _, n := range list {
			if n.Sign() != 0 {
				return true
			}
		}
	}
	return false
}

func (k rsaNumbers) product() *big.Int {
	n := big.NewInt(1)
	for _, p := range k.primes {
		n.Mul(n, p)
	}
	return n
}

// The longest numbers that are tested, in bits: an RSA-8192 key takes about 0.3 s.
const (
	maxPrimeBits    = 4096
	maxExponentBits = 4096
)

// slowly tests what takes long, and wipes the numbers.
func (k rsaNumbers) slowly(e *effort) device.Answer {
	defer k.wipe()
	if !k.hasPrimes() {
		return k.tryExponent(e)
	}
	for _, p := range k.primes {
		if p.BitLen() > maxPrimeBits || !e.spend(p.BitLen()) {
			return device.Answer{Status: device.Pass, Why: fits.Why + "; that its primes are prime was not tested, since that takes too long"}
		}
		if !p.ProbablyPrime(1) {
			return wrongNumbers("one of its primes is not prime")
		}
	}
	return fits
}

// tryExponent has a key without primes undo what its public half does.
func (k rsaNumbers) tryExponent(e *effort) device.Answer {
	for _, n := range []*big.Int{k.n, k.e, k.d} {
		if n.BitLen() > maxExponentBits || !e.spend(n.BitLen()) {
			return notTested("the private key has no primes, and is too large to be tested without")
		}
	}
	if k.n.Cmp(one) <= 0 {
		return wrongNumbers("its modulus is 0 or 1")
	}
	two := big.NewInt(2)
	there := new(big.Int).Exp(two, k.e, k.n)
	if there.Exp(there, k.d, k.n).Cmp(new(big.Int).Mod(two, k.n)) != 0 {
		return wrongNumbers("its private exponent does not belong to its public one")
	}
	return fits
}

func (k rsaNumbers) wipe() {
	wipe(k.d)
	wipe(k.primes...)
	wipe(k.exponents...)
	wipe(k.coefficients...)
}

// wipe overwrites numbers; what arithmetic left elsewhere stays.
func wipe(all ...*big.Int) {
	for _, n := range all {
		clear(n.Bits())
		n.SetInt64(0)
	}
}

func less1(n *big.Int) *big.Int { return new(big.Int).Sub(n, one) }

// inverse reports whether a·b is 1 modulo m.
func inverse(a, b, m *big.Int) bool {
	if m.Cmp(one) == 0 {
		return true // modulo 1 all numbers are the same
	}
	product := new(big.Int).Mul(a, b)
	return m.Sign() > 0 && product.Mod(product, m).Cmp(one) == 0
}

// effort is what the slow tests of one file may still cost.
type effort int

// maxEffort is about 4 s on a desk, 500 keys of RSA-2048.
const maxEffort effort = 8_000_000

// spend takes the cost of a number of bits, whose cube it grows with; false if
// there is not as much left.
func (e *effort) spend(bits int) bool {
	words := effort(bits+63) / 64
	cost := words * words * words
	if *e < cost {
		return false
	}
	*e -= cost
	return true
}
