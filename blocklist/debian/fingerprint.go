package debian

import (
	"crypto/sha1" // the list's own format; nothing here rests on its strength
	"crypto/sha256"
	"fmt"
	"math/big"
)

// Fingerprint is SHA-256 over v, big-endian, without leading zero bytes, where
// v is the modulus of an RSA key or the affine X of a point: the key of the
// lists of dwk and badkeys (https://badkeys.info).
func Fingerprint(v *big.Int) [sha256.Size]byte { return sha256.Sum256(v.Bytes()) }

// OpenSSLBlacklist is what Debian's openssl-blacklist package tells an RSA
// modulus by: the last 80 bits of SHA-1 over "Modulus=", the modulus in
// upper-case hex and a newline.
func OpenSSLBlacklist(n *big.Int) [10]byte {
	sum := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", n))
	return [10]byte(sum[sha1.Size-10:])
}
