package debian

import "math/bits"

// The products of [modulus.square], on blocks of eight words. They are written
// out column by column, each column's sum being begun afresh: that is what Go
// compiles to the fastest code without assembly (a block product takes 1.9
// cycles a multiplication on a Zen 5, in loops 3 to 4).

// blockWords is the number of machine words of a block.
const blockWords = 8

// block is a part of a number, the least significant word first.
type block [blockWords]uint

// sum is what block products are added up in.
type sum [2*blockWords + 1]uint

// mac adds x·y to the three-word a.
func mac(a0, a1, a2, x, y uint) (uint, uint, uint) {
	hi, lo := bits.Mul(x, y)
	a0, c := bits.Add(a0, lo, 0)
	a1, c = bits.Add(a1, hi, c)
	a2, _ = bits.Add(a2, 0, c)
	return a0, a1, a2
}

// add3 adds the two-word b to the three-word a.
func add3(a0, a1, a2, b0, b1 uint) (uint, uint, uint) {
	a0, c := bits.Add(a0, b0, 0)
	a1, c = bits.Add(a1, b1, c)
	a2, _ = bits.Add(a2, 0, c)
	return a0, a1, a2
}

// double doubles the three-word a.
func double(a0, a1, a2 uint) (uint, uint, uint) {
	a0, c := bits.Add(a0, a0, 0)
	a1, c = bits.Add(a1, a1, c)
	a2, _ = bits.Add(a2, a2, c)
	return a0, a1, a2
}

// addProduct adds x·y to s.
func addProduct(s *sum, x, y *block) {
	var c0, c1 uint
	{
		a1, a0 := bits.Mul(x[0], y[0])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[0], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[0] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[1])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[1], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[1] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[2])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[2], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[2] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[3])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[3], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[3] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[4])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[4], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[4] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[5])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[5], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[5] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[6])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[6], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[6] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[0])
		a0, a1, a2 = add3(a0, a1, a2, s[7], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[7] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[1], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[1])
		a0, a1, a2 = add3(a0, a1, a2, s[8], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[8] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[2], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[2])
		a0, a1, a2 = add3(a0, a1, a2, s[9], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[9] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[3], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[3])
		a0, a1, a2 = add3(a0, a1, a2, s[10], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[10] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[4], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[4])
		a0, a1, a2 = add3(a0, a1, a2, s[11], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[11] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[5], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[5])
		a0, a1, a2 = add3(a0, a1, a2, s[12], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[12] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[6], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[6])
		a0, a1, a2 = add3(a0, a1, a2, s[13], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[13] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[7], y[7])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[14], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[14] = a0
		c0, c1 = a1, a2
	}
	var c uint
	s[15], c = bits.Add(s[15], c0, 0)
	s[16] += c1 + c
}

// addTwice adds 2·x·y to s.
func addTwice(s *sum, x, y *block) {
	var c0, c1 uint
	{
		a1, a0 := bits.Mul(x[0], y[0])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[0], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[0] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[1])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[1], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[1] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[2])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[2], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[2] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[3])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[3], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[3] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[4])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[4], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[4] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[5])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[5], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[5] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[6])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[6], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[6] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[1])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[0])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[7], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[7] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[1], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[2], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[2])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[1])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[8], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[8] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[2], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[3], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[3])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[2])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[9], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[9] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[3], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[4], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[4])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[3])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[10], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[10] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[4], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[5], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[5])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[4])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[11], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[11] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[5], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[6], y[6])
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[5])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[12], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[12] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[6], y[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[7], y[6])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[13], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[13] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[7], y[7])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[14], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[14] = a0
		c0, c1 = a1, a2
	}
	var c uint
	s[15], c = bits.Add(s[15], c0, 0)
	s[16] += c1 + c
}

// addSquare adds x² to s.
func addSquare(s *sum, x *block) {
	var c0, c1 uint
	{
		a1, a0 := bits.Mul(x[0], x[0])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[0], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[0] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[1])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[1], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[1] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[2])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[1])
		a0, a1, a2 = add3(a0, a1, a2, s[2], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[2] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[3])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[2])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[3], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[3] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[4])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[3])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[2], x[2])
		a0, a1, a2 = add3(a0, a1, a2, s[4], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[4] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[5])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[4])
		a0, a1, a2 = mac(a0, a1, a2, x[2], x[3])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[5], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[5] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[6])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[5])
		a0, a1, a2 = mac(a0, a1, a2, x[2], x[4])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[3], x[3])
		a0, a1, a2 = add3(a0, a1, a2, s[6], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[6] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[0], x[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[1], x[6])
		a0, a1, a2 = mac(a0, a1, a2, x[2], x[5])
		a0, a1, a2 = mac(a0, a1, a2, x[3], x[4])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[7], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[7] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[1], x[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[2], x[6])
		a0, a1, a2 = mac(a0, a1, a2, x[3], x[5])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[4], x[4])
		a0, a1, a2 = add3(a0, a1, a2, s[8], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[8] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[2], x[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[3], x[6])
		a0, a1, a2 = mac(a0, a1, a2, x[4], x[5])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[9], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[9] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[3], x[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[4], x[6])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[5], x[5])
		a0, a1, a2 = add3(a0, a1, a2, s[10], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[10] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[4], x[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, x[5], x[6])
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[11], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[11] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[5], x[7])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = mac(a0, a1, a2, x[6], x[6])
		a0, a1, a2 = add3(a0, a1, a2, s[12], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[12] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[6], x[7])
		a2 := uint(0)
		a0, a1, a2 = double(a0, a1, a2)
		a0, a1, a2 = add3(a0, a1, a2, s[13], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[13] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(x[7], x[7])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[14], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[14] = a0
		c0, c1 = a1, a2
	}
	var c uint
	s[15], c = bits.Add(s[15], c0, 0)
	s[16] += c1 + c
}

// reduce sets m to what makes the low block of s + m·n zero, inv being the
// negated inverse of n modulo a word, and adds m·n to s. The low block of s,
// now zero, is not written.
func reduce(s *sum, m, n *block, inv uint) {
	var c0, c1 uint
	var m0 uint
	{
		a0, a1, a2 := uint(0), uint(0), uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[0], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m0 = a0 * inv
		m[0] = m0
		_, a1, a2 = mac(a0, a1, a2, m0, n[0])
		c0, c1 = a1, a2
	}
	var m1 uint
	{
		a1, a0 := bits.Mul(m0, n[1])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[1], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m1 = a0 * inv
		m[1] = m1
		_, a1, a2 = mac(a0, a1, a2, m1, n[0])
		c0, c1 = a1, a2
	}
	var m2 uint
	{
		a1, a0 := bits.Mul(m[0], n[2])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[2], 0)
		a0, a1, a2 = mac(a0, a1, a2, m1, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m2 = a0 * inv
		m[2] = m2
		_, a1, a2 = mac(a0, a1, a2, m2, n[0])
		c0, c1 = a1, a2
	}
	var m3 uint
	{
		a1, a0 := bits.Mul(m[0], n[3])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[1], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[3], 0)
		a0, a1, a2 = mac(a0, a1, a2, m2, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m3 = a0 * inv
		m[3] = m3
		_, a1, a2 = mac(a0, a1, a2, m3, n[0])
		c0, c1 = a1, a2
	}
	var m4 uint
	{
		a1, a0 := bits.Mul(m[0], n[4])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[1], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[2], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[4], 0)
		a0, a1, a2 = mac(a0, a1, a2, m3, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m4 = a0 * inv
		m[4] = m4
		_, a1, a2 = mac(a0, a1, a2, m4, n[0])
		c0, c1 = a1, a2
	}
	var m5 uint
	{
		a1, a0 := bits.Mul(m[0], n[5])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[1], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[2], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[3], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[5], 0)
		a0, a1, a2 = mac(a0, a1, a2, m4, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m5 = a0 * inv
		m[5] = m5
		_, a1, a2 = mac(a0, a1, a2, m5, n[0])
		c0, c1 = a1, a2
	}
	var m6 uint
	{
		a1, a0 := bits.Mul(m[0], n[6])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[1], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[2], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[3], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[4], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[6], 0)
		a0, a1, a2 = mac(a0, a1, a2, m5, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m6 = a0 * inv
		m[6] = m6
		_, a1, a2 = mac(a0, a1, a2, m6, n[0])
		c0, c1 = a1, a2
	}
	var m7 uint
	{
		a1, a0 := bits.Mul(m[0], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[1], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[2], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[3], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[4], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[5], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[7], 0)
		a0, a1, a2 = mac(a0, a1, a2, m6, n[1])
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		m7 = a0 * inv
		m[7] = m7
		_, a1, a2 = mac(a0, a1, a2, m7, n[0])
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[1], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[2], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[3], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[4], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[5], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[6], n[2])
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[1])
		a0, a1, a2 = add3(a0, a1, a2, s[8], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[8] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[2], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[3], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[4], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[5], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[6], n[3])
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[2])
		a0, a1, a2 = add3(a0, a1, a2, s[9], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[9] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[3], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[4], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[5], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[6], n[4])
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[3])
		a0, a1, a2 = add3(a0, a1, a2, s[10], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[10] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[4], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[5], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[6], n[5])
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[4])
		a0, a1, a2 = add3(a0, a1, a2, s[11], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[11] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[5], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[6], n[6])
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[5])
		a0, a1, a2 = add3(a0, a1, a2, s[12], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[12] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[6], n[7])
		a2 := uint(0)
		a0, a1, a2 = mac(a0, a1, a2, m[7], n[6])
		a0, a1, a2 = add3(a0, a1, a2, s[13], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[13] = a0
		c0, c1 = a1, a2
	}
	{
		a1, a0 := bits.Mul(m[7], n[7])
		a2 := uint(0)
		a0, a1, a2 = add3(a0, a1, a2, s[14], 0)
		a0, a1, a2 = add3(a0, a1, a2, c0, c1)
		s[14] = a0
		c0, c1 = a1, a2
	}
	var c uint
	s[15], c = bits.Add(s[15], c0, 0)
	s[16] += c1 + c
}
