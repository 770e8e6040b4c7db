//go:build keyvet_noblocklist

package blocklist

// Embedded gives [ErrNotEmbedded]: this program was built without a list.
func Embedded() (*List, error) { return nil, ErrNotEmbedded }
