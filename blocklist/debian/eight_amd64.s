#include "textflag.h"

// A number is blocks of five limbs, and a product of two blocks is added up in
// columns: Z0 to Z8 have the low 52 bits of the limbs' products, Z9 to Z17 the
// high ones, which belong to the next column. Z18 to Z22 are one block, Z23 a
// limb of the other.

// MADD adds x·y to low and high.
#define MADD(x, y, low, high) \
	VPMADD52LUQ y, x, low  \
	VPMADD52HUQ y, x, high

// ROW adds the product of the limb x and the block in Z18 to Z22.
#define ROW(x, l0, l1, l2, l3, l4, h0, h1, h2, h3, h4) \
	VMOVDQU64 x, Z23           \
	MADD(Z23, Z18, l0, h0) \
	MADD(Z23, Z19, l1, h1) \
	MADD(Z23, Z20, l2, h2) \
	MADD(Z23, Z21, l3, h3) \
	MADD(Z23, Z22, l4, h4)

// BLOCK loads a block into Z18 to Z22.
#define BLOCK(y, j) \
	VMOVDQU64 (y)(j*1), Z18    \
	VMOVDQU64 64(y)(j*1), Z19  \
	VMOVDQU64 128(y)(j*1), Z20 \
	VMOVDQU64 192(y)(j*1), Z21 \
	VMOVDQU64 256(y)(j*1), Z22

// PRODUCT adds the product of two blocks.
#define PRODUCT(x, i, y, j) \
	BLOCK(y, j)                                                             \
	ROW(0(x)(i*1), Z0, Z1, Z2, Z3, Z4, Z9, Z10, Z11, Z12, Z13)    \
	ROW(64(x)(i*1), Z1, Z2, Z3, Z4, Z5, Z10, Z11, Z12, Z13, Z14)  \
	ROW(128(x)(i*1), Z2, Z3, Z4, Z5, Z6, Z11, Z12, Z13, Z14, Z15) \
	ROW(192(x)(i*1), Z3, Z4, Z5, Z6, Z7, Z12, Z13, Z14, Z15, Z16) \
	ROW(256(x)(i*1), Z4, Z5, Z6, Z7, Z8, Z13, Z14, Z15, Z16, Z17)

// ZERO sets z to 0, and TWICE doubles it.
#define ZERO(z) VPXORQ z, z, z
#define TWICE(z) VPADDQ z, z, z

// REDUCE makes the low bits of the column l 0 by a multiple of n, the limb m of
// it, and carries to the next column.
#define REDUCE(m, l, l1, l2, l3, l4, h, h1, h2, h3, h4) \
	ZERO(Z31)                                            \
	VPMADD52LUQ Z29, l, Z31                              \
	VMOVDQU64   Z31, m                                   \
	ROW(Z31, l, l1, l2, l3, l4, h, h1, h2, h3, h4)       \
	VPSRLQ      $52, l, l                                \
	VPADDQ      l, h, h                                  \
	VPADDQ      h, l1, l1

// RESULT doubles the column l where K1 says so, adds the carry Z29 and stores a
// limb.
#define RESULT(l, m) \
	VPADDQ    l, l, K1, l \
	VPADDQ    Z29, l, l   \
	VPSRLQ    $52, l, Z29 \
	VPANDQ    Z30, l, l   \
	VMOVDQU64 l, m

// func squareEight(x, m, n, inverse *vector, k int, double uint8)
//
// The block columns are those of modulus.square. In bytes: CX = the length of a
// number, R8 = the column, R9 = its first i, R10 = i, R11 = j = column - i. Z24 to
// Z28 are what the columns before leave to this one.
TEXT ·squareEight(SB), NOSPLIT, $0-41
	MOVQ       x+0(FP), SI
	MOVQ       m+8(FP), DI
	MOVQ       n+16(FP), DX
	MOVQ       inverse+24(FP), AX
	MOVQ       k+32(FP), CX
	SHLQ       $6, CX
	MOVBLZX    double+40(FP), BX
	KMOVW      BX, K1
	VMOVDQU64  (AX), Z29            // the inverse, and then the carry of the result
	VPTERNLOGQ $0xff, Z30, Z30, Z30
	VPSRLQ     $12, Z30, Z30        // a limb's 52 bits
	ZERO(Z24)
	ZERO(Z25)
	ZERO(Z26)
	ZERO(Z27)
	ZERO(Z28)
	XORQ       R8, R8

column:
	ZERO(Z0)
	ZERO(Z1)
	ZERO(Z2)
	ZERO(Z3)
	ZERO(Z4)
	ZERO(Z5)
	ZERO(Z6)
	ZERO(Z7)
	ZERO(Z8)
	ZERO(Z9)
	ZERO(Z10)
	ZERO(Z11)
	ZERO(Z12)
	ZERO(Z13)
	ZERO(Z14)
	ZERO(Z15)
	ZERO(Z16)
	ZERO(Z17)
	MOVQ R8, R9
	SUBQ CX, R9
	ADDQ $320, R9
	JGE  products
	XORQ R9, R9

products: // of different blocks of x
	MOVQ R9, R10
	MOVQ R8, R11
	SUBQ R9, R11

product:
	CMPQ R10, R11
	JGE  twice
	PRODUCT(SI, R10, SI, R11)
	ADDQ $320, R10
	SUBQ $320, R11
	JMP  product

twice:
	TWICE(Z0)
	TWICE(Z1)
	TWICE(Z2)
	TWICE(Z3)
	TWICE(Z4)
	TWICE(Z5)
	TWICE(Z6)
	TWICE(Z7)
	TWICE(Z8)
	TWICE(Z9)
	TWICE(Z10)
	TWICE(Z11)
	TWICE(Z12)
	TWICE(Z13)
	TWICE(Z14)
	TWICE(Z15)
	TWICE(Z16)
	TWICE(Z17)
	CMPQ R10, R11
	JNE  reductions
	PRODUCT(SI, R10, SI, R10)

reductions: // of blocks of m and n
	MOVQ    R9, R10
	MOVQ    R8, R11
	SUBQ    R9, R11
	MOVQ    CX, R13
	CMPQ    R8, CX
	CMOVQLT R8, R13

reduction:
	CMPQ R10, R13
	JGE  sum
	PRODUCT(DI, R10, DX, R11)
	ADDQ $320, R10
	SUBQ $320, R11
	JMP  reduction

sum:
	VPADDQ Z24, Z0, Z0
	VPADDQ Z25, Z1, Z1
	VPADDQ Z26, Z2, Z2
	VPADDQ Z27, Z3, Z3
	VPADDQ Z28, Z4, Z4
	CMPQ   R8, CX
	JGE    result

	XORQ R10, R10
	BLOCK(DX, R10)
	REDUCE(0(DI)(R8*1), Z0, Z1, Z2, Z3, Z4, Z9, Z10, Z11, Z12, Z13)
	REDUCE(64(DI)(R8*1), Z1, Z2, Z3, Z4, Z5, Z10, Z11, Z12, Z13, Z14)
	REDUCE(128(DI)(R8*1), Z2, Z3, Z4, Z5, Z6, Z11, Z12, Z13, Z14, Z15)
	REDUCE(192(DI)(R8*1), Z3, Z4, Z5, Z6, Z7, Z12, Z13, Z14, Z15, Z16)
	REDUCE(256(DI)(R8*1), Z4, Z5, Z6, Z7, Z8, Z13, Z14, Z15, Z16, Z17)
	VMOVDQA64 Z5, Z24
	JMP       next

result:
	MOVQ   R8, R10
	SUBQ   CX, R10
	JNE    limbs
	ZERO(Z29)

limbs:
	VPADDQ Z9, Z1, Z1
	VPADDQ Z10, Z2, Z2
	VPADDQ Z11, Z3, Z3
	VPADDQ Z12, Z4, Z4
	VPADDQ Z13, Z5, Z24
	RESULT(Z0, 0(DI)(R10*1))
	RESULT(Z1, 64(DI)(R10*1))
	RESULT(Z2, 128(DI)(R10*1))
	RESULT(Z3, 192(DI)(R10*1))
	RESULT(Z4, 256(DI)(R10*1))

next:
	VPADDQ    Z14, Z6, Z25
	VPADDQ    Z15, Z7, Z26
	VPADDQ    Z16, Z8, Z27
	VMOVDQA64 Z17, Z28
	ADDQ      $320, R8
	LEAQ      -320(CX)(CX*1), R10
	CMPQ      R8, R10
	JLT       column

	RESULT(Z24, -320(DI)(CX*1))
	RESULT(Z25, -256(DI)(CX*1))
	RESULT(Z26, -192(DI)(CX*1))
	RESULT(Z27, -128(DI)(CX*1))
	RESULT(Z28, -64(DI)(CX*1))
	VZEROUPPER
	RET
