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

// Embedded is the list inside the program. Its sizes are checked at every call;
// its SHA-256 was when the program was tested, so that no start of a program has
// to read all of a list of which a look-up needs a few pages. With the build tag
// keyvet_noblocklist there is none, and the error is [ErrNotEmbedded].
func Embedded() (*List, error) {
	// A conversion would copy it to the heap. Nothing writes to a list's bytes.
	l, err := parseChecked(unsafe.Slice(unsafe.StringData(embedded), len(embedded)), strings.TrimSpace(embeddedSHA256))
	if err != nil {
		return nil, fmt.Errorf("embedded list: %w", err)
	}
	return l, nil
}
