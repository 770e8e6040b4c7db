//go:build !keyvet_noblocklist

package blocklist

import (
	_ "embed"
	"fmt"
	"strings"
	"unsafe"
)

// A string, since it lies in the program's read-only data.
//
//go:embed embedded.kvf
var embedded string

// Its SHA-256, in hex.
//
//go:embed embedded.sha256
var embeddedSHA256 string

// Embedded is the list inside the program, which is read as one of [Open] is; its
// SHA-256 is known from the build. With the build tag keyvet_noblocklist there is
// none, and the error is [ErrNotEmbedded].
func Embedded() (*List, error) {
	// A conversion would copy it to the heap. Nothing writes to a list's bytes.
	l, err := parse(unsafe.Slice(unsafe.StringData(embedded), len(embedded)), "the built-in list")
	if err != nil {
		return nil, fmt.Errorf("embedded list: %w", err)
	}
	l.sha256 = strings.TrimSpace(embeddedSHA256)
	return l, nil
}
