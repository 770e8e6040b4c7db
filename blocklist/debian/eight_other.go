//go:build !amd64

package debian

import (
	"context"
	"math/big"
)

const hasEight = false

func fermatEight(context.Context, *[8]*big.Int) (uint8, error) { panic("not on this processor") }
