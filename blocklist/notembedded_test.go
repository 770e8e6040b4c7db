//go:build keyvet_noblocklist

package blocklist

import (
	"errors"
	"testing"
)

func TestNotEmbedded(t *testing.T) {
	if l, err := Embedded(); l != nil || !errors.Is(err, ErrNotEmbedded) {
		t.Errorf("%v, %v", l, err)
	}
}
