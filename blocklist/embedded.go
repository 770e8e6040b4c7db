//go:build !keyvet_noblocklist

package blocklist

import (
	_ "embed"
	"fmt"
	"unsafe"
)

// A string, since it lies in the program's read-only data.
//
//go:embed embedded.kvf
var embedded string

// Embedded is the list inside the program. It is checked at every call, as
// [Open] does. With the build tag keyvet_noblocklist there is none, and the
// error is [ErrNotEmbedded].
func Embedded() (*List, error) {
	// A conversion would copy it to the heap. Nothing writes to a list's bytes.
	b := unsafe.Slice(unsafe.StringData(embedded), len(embedded))
	l, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("blocklist: embedded list: %w", err)
	}
	l.inside = b
	return l, nil
}
