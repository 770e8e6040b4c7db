package check

import (
	"context"
	"iter"
	"math/big"
	"math/rand/v2"
	"slices"
)

// polynomial has the coefficient of x^i at i; the last is not zero.
type polynomial []*big.Int

// polynomialIn writes n in base 2^width: that is n as a polynomial in x = 2^width.
func polynomialIn(n *big.Int, width uint) (f polynomial) {
	mask := new(big.Int).Lsh(one, width)
	mask.Sub(mask, one)
	for rest := new(big.Int).Set(n); rest.Sign() > 0; rest.Rsh(rest, width) {
		f = append(f, new(big.Int).And(rest, mask))
	}
	return f
}

// at is the value at x = 2^width.
func (f polynomial) at(width uint) *big.Int {
	value := new(big.Int)
	for _, c := range slices.Backward(f) {
		value.Lsh(value, width).Add(value, c)
	}
	return value
}

// maxDegree bounds the time to factor a polynomial, which grows with the cube of
// its degree.
const maxDegree = 160

// factors yields candidates for the factors of f over the integers, f being a
// product of two polynomials whose coefficients are of at most width bits. It
// factors f modulo one prime above all coefficients, by Berlekamp's method
// (Knuth, The Art of Computer Programming, volume 2, section 4.6.2), and
// yields those products of the factors that have a small last coefficient.
func (f polynomial) factors(ctx context.Context, width uint) iter.Seq[polynomial] {
	return func(yield func(polynomial) bool) {
		f = f.primitive()
		if len(f) < 3 || len(f) > maxDegree+1 {
			return
		}
		bound := new(big.Int).Lsh(one, 2*width)
		m := field{nextPrimeAfter(new(big.Int).Lsh(bound, 64))}
		lead := f[len(f)-1]
		all := m.berlekamp(ctx, m.monic(f))
		const maxFactors = 16
		if len(all) < 2 || len(all) > maxFactors {
			return
		}
		last := new(big.Int)
		for subset := 1; subset < 1<<(len(all)-1); subset++ { // the last factor is in the complement
			last.Set(lead)
			for i, g := range all {
				if subset>>i&1 == 1 {
					last.Mul(last, g[0]).Mod(last, m.prime)
				}
			}
			if m.centred(last).CmpAbs(bound) > 0 {
				continue
			}
			product := polynomial{lead}
			for i, g := range all {
				if subset>>i&1 == 1 {
					product = m.reduce(product.times(g))
				}
			}
			for _, c := range product {
				m.centred(c)
			}
			if !yield(product) {
				return
			}
		}
	}
}

// primitive is f without a power of x and without a common divisor of its
// coefficients.
func (f polynomial) primitive() polynomial {
	for len(f) > 0 && f[0].Sign() == 0 {
		f = f[1:]
	}
	content := new(big.Int)
	for _, c := range f {
		content.GCD(nil, nil, content, c)
	}
	reduced := make(polynomial, len(f))
	for i, c := range f {
		reduced[i] = new(big.Int).Quo(c, content)
	}
	return reduced
}

func (f polynomial) times(g polynomial) polynomial {
	product := make(polynomial, len(f)+len(g)-1)
	for i := range product {
		product[i] = new(big.Int)
	}
	term := new(big.Int)
	for i, a := range f {
		for j, b := range g {
			product[i+j].Add(product[i+j], term.Mul(a, b))
		}
	}
	return product
}

func nextPrimeAfter(n *big.Int) *big.Int {
	p := new(big.Int).SetBit(n, 0, 1)
	for !p.ProbablyPrime(0) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// field is the integers modulo an odd prime.
type field struct{ prime *big.Int }

// centred changes c to its remainder nearest to zero.
func (m field) centred(c *big.Int) *big.Int {
	if new(big.Int).Lsh(c, 1).Cmp(m.prime) > 0 {
		c.Sub(c, m.prime)
	}
	return c
}

// reduce changes the coefficients of f to their remainders.
func (m field) reduce(f polynomial) polynomial {
	for _, c := range f {
		c.Mod(c, m.prime)
	}
	for len(f) > 0 && f[len(f)-1].Sign() == 0 {
		f = f[:len(f)-1]
	}
	return f
}

// monic is f over its leading coefficient.
func (m field) monic(f polynomial) polynomial {
	inverse := new(big.Int).ModInverse(f[len(f)-1], m.prime)
	g := make(polynomial, len(f))
	for i, c := range f {
		g[i] = new(big.Int).Mul(c, inverse)
	}
	return m.reduce(g)
}

// mod changes f to its remainder modulo the monic g.
func (m field) mod(f, g polynomial) polynomial {
	term := new(big.Int)
	degree := len(g) - 1
	for i := len(f) - 1; i >= degree; i-- {
		if f[i].Mod(f[i], m.prime).Sign() == 0 {
			continue
		}
		for j, c := range g[:degree] {
			at := f[i-degree+j]
			at.Sub(at, term.Mul(f[i], c))
		}
	}
	return m.reduce(f[:min(len(f), degree)])
}

// power is f^exponent modulo the monic g.
func (m field) power(f polynomial, exponent *big.Int, g polynomial) polynomial {
	result := polynomial{big.NewInt(1)}
	for i := exponent.BitLen() - 1; i >= 0; i-- {
		result = m.mod(result.square(), g)
		if exponent.Bit(i) == 1 {
			result = m.mod(result.times(f), g)
		}
	}
	return result
}

func (f polynomial) square() polynomial {
	if len(f) == 0 {
		return nil
	}
	return f.times(f)
}

// gcd is the monic greatest common divisor; f and g are changed.
func (m field) gcd(f, g polynomial) polynomial {
	for len(g) > 0 {
		g = m.monic(g)
		f, g = g, m.mod(f, g)
	}
	return f
}

// berlekamp returns the irreducible factors of the monic f, which must have no
// square factor; nil if ctx ends first.
func (m field) berlekamp(ctx context.Context, f polynomial) []polynomial {
	degree := len(f) - 1
	// Row i is x^(i·prime), less x^i: of v with v^prime = v, the product with
	// this matrix is zero.
	rows := make([][]*big.Int, degree)
	frobenius := m.power(polynomial{new(big.Int), big.NewInt(1)}, m.prime, f)
	row := polynomial{big.NewInt(1)}
	for i := range rows {
		if ctx.Err() != nil {
			return nil
		}
		rows[i] = make([]*big.Int, degree)
		for j := range rows[i] {
			rows[i][j] = new(big.Int)
			if j < len(row) {
				rows[i][j].Set(row[j])
			}
		}
		rows[i][i].Sub(rows[i][i], one)
		if i+1 < degree && len(row) > 0 && len(frobenius) > 0 {
			row = m.mod(row.times(frobenius), f)
		}
	}
	basis := m.leftKernel(rows)
	factors := []polynomial{f}
	half := new(big.Int).Rsh(m.prime, 1)
	random := rand.New(rand.NewPCG(1, 2)) // any numbers do
	for tries := 0; len(factors) < len(basis) && tries < 200 && ctx.Err() == nil; tries++ {
		v := make(polynomial, degree)
		for j := range v {
			v[j] = new(big.Int)
		}
		for _, b := range basis {
			by := new(big.Int).SetUint64(random.Uint64())
			for j, c := range b {
				v[j].Add(v[j], new(big.Int).Mul(by, c))
			}
		}
		v = m.reduce(v)
		var split []polynomial
		for _, g := range factors {
			split = append(split, m.splitBy(g, v, half)...)
		}
		factors = split
	}
	return factors
}

// splitBy returns the two factors of g at which v is a square or not, or g
// alone.
func (m field) splitBy(g, v polynomial, half *big.Int) []polynomial {
	if len(g) <= 2 {
		return []polynomial{g}
	}
	rest := m.mod(v.clone(), g)
	if len(rest) == 0 {
		return []polynomial{g}
	}
	w := m.power(rest, half, g)
	if len(w) == 0 {
		return []polynomial{g}
	}
	w[0] = new(big.Int).Sub(w[0], one)
	w = m.reduce(w)
	if len(w) == 0 {
		return []polynomial{g}
	}
	d := m.gcd(g.clone(), w)
	if len(d) <= 1 || len(d) == len(g) {
		return []polynomial{g}
	}
	return []polynomial{d, m.quotient(g, d)}
}

// quotient is f over its divisor g, both monic.
func (m field) quotient(f, g polynomial) polynomial {
	rest := f.clone()
	quotient := make(polynomial, len(f)-len(g)+1)
	term := new(big.Int)
	for i := len(quotient) - 1; i >= 0; i-- {
		at := rest[i+len(g)-1]
		quotient[i] = new(big.Int).Mod(at, m.prime)
		for j, c := range g {
			rest[i+j].Sub(rest[i+j], term.Mul(quotient[i], c))
		}
	}
	return quotient
}

func (f polynomial) clone() polynomial {
	g := make(polynomial, len(f))
	for i, c := range f {
		g[i] = new(big.Int).Set(c)
	}
	return g
}

// leftKernel returns a basis of the vectors whose product with the square matrix
// is zero; the matrix is changed.
func (m field) leftKernel(rows [][]*big.Int) (basis []polynomial) {
	n := len(rows)
	// Columns are added to each other until each is zero or the only one that
	// is not zero in some row.
	pivotOf := make([]int, n) // by row: its column, or -1
	used := make([]bool, n)
	term := new(big.Int)
	for i := range n {
		pivotOf[i] = -1
		for j := range n {
			if !used[j] && rows[i][j].Mod(rows[i][j], m.prime).Sign() != 0 {
				pivotOf[i] = j
				break
			}
		}
		pivot := pivotOf[i]
		if pivot < 0 {
			continue
		}
		used[pivot] = true
		inverse := new(big.Int).ModInverse(rows[i][pivot], m.prime)
		for k := i; k < n; k++ {
			rows[k][pivot].Mul(rows[k][pivot], inverse).Mod(rows[k][pivot], m.prime)
		}
		for j := range n {
			by := new(big.Int).Mod(rows[i][j], m.prime)
			if j == pivot || by.Sign() == 0 {
				continue
			}
			for k := i; k < n; k++ {
				at := rows[k][j]
				at.Sub(at, term.Mul(by, rows[k][pivot])).Mod(at, m.prime)
			}
		}
	}
	for i := range n {
		if pivotOf[i] >= 0 {
			continue
		}
		v := make(polynomial, n)
		for k := range v {
			v[k] = new(big.Int)
			if k == i {
				v[k].SetInt64(1)
			} else if pivotOf[k] >= 0 {
				v[k].Neg(rows[i][pivotOf[k]]).Mod(v[k], m.prime)
			}
		}
		basis = append(basis, v)
	}
	return basis
}
