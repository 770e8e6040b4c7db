package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// sizeSamples are samples of the check size.
func sizeSamples(t *testing.T) (all []sample) {
	good2048, p256 := publishedModulus(t, 2048, false), issue(t, "someone", nil).key.Public()
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certifiedAs := func(role device.Role, pub crypto.PublicKey) device.Key {
		k := bare(role, pub)
		k.Chain = []*x509.Certificate{issue(t, "of another algorithm", nil).cert}
		return k
	}
	requested := func(pub crypto.PublicKey) device.Key {
		return with(bare(device.RoleFile, pub), func(k *device.Key) { k.Request = &device.Answer{Status: device.Pass} })
	}
	mldsa, brainpool := &device.OtherKey{Algorithm: "ML-DSA-65"}, &device.OtherKey{Algorithm: "ECDSA-brainpoolP256r1"}
	ok := []device.Key{rsaKey(good2048, 65537), bare(device.RoleDevice, p256), bare(device.RoleSSH, ed),
		bare(device.RoleFile, ed), bare(device.RoleAnchor, ed), certifiedAs(device.RoleEK, ed),
		bare(device.RoleFile, &device.OtherKey{Algorithm: "ECDSA-secp256k1"}),
		bare(device.RoleFile, &rsa.PublicKey{N: randomOdd(random(4), 8193), E: 65537}),
		bare(device.RoleEK, ecKey(elliptic.P224(), new(big.Int), new(big.Int))), rsaKey(randomOdd(random(4), 8192), 65537),
		bare(device.RoleAK, &rsa.PublicKey{N: randomOdd(random(4), 8193), E: 65537})}
	for _, c := range []elliptic.Curve{elliptic.P384(), elliptic.P521()} {
		ok = append(ok, bare(device.RoleDevice, ecKey(c, c.Params().Gx, c.Params().Gy)))
	}
	for _, k := range ok {
		all = append(all, sample{check: "size", name: string(k.Role) + " " + k.Algorithm(), key: k, want: device.Pass})
	}
	for _, bad := range []struct {
		key  device.Key
		want device.Status
		code device.ReasonCode
	}{
		{rsaKey(randomOdd(random(4), 2047), 65537), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{bare(device.RoleEK, &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{bare(device.RolePersistent, &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{bare(device.RoleSSH, &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{bare(device.RoleAnchor, &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{bare(device.RoleFile, &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}), device.Fail, "KEYVET_RSA_TOO_SHORT"},
		{rsaKey(new(big.Int), 65537), device.Fail, "KEYVET_RSA_MODULUS_INVALID"},
		{largeRSA(new(big.Int).Neg(good2048), big.NewInt(3)), device.Fail, "KEYVET_RSA_MODULUS_INVALID"},
		{rsaKey(randomOdd(random(4), 8193), 65537), device.Warn, "KEYVET_RSA_TOO_LONG"},
		{certifiedAs(device.RoleFile, &rsa.PublicKey{N: randomOdd(random(4), 8193), E: 65537}), device.Warn, "KEYVET_RSA_TOO_LONG"},
		{bare(device.RoleDevice, ed), device.Fail, "KEYVET_ED25519_NOT_ACCEPTED"},
		{bare(device.RoleClaim, ed), device.Fail, "KEYVET_ED25519_NOT_ACCEPTED"},
		{bare(device.RoleCA, ed), device.Fail, "KEYVET_ED25519_NOT_ACCEPTED"},
		{certifiedAs(device.RoleFile, ed), device.Warn, "KEYVET_ED25519_NOT_ACCEPTED"},
		{requested(ed), device.Warn, "KEYVET_ED25519_NOT_ACCEPTED"},
		{with(bare(device.RoleFile, ed), func(k *device.Key) { k.CertificateError = "x509: damaged" }), device.Warn, "KEYVET_ED25519_NOT_ACCEPTED"},
		{bare(device.RoleClaim, ecKey(elliptic.P224(), new(big.Int), new(big.Int))), device.Fail, "KEYVET_P224_NOT_ACCEPTED"},
		{requested(ecKey(elliptic.P224(), new(big.Int), new(big.Int))), device.Warn, "KEYVET_P224_NOT_ACCEPTED"},
		{bare(device.RoleDevice, &device.OtherKey{Algorithm: "ECDSA-secp256k1"}), device.Fail, "KEYVET_SECP256K1_NOT_ACCEPTED"},
		{bare(device.RoleDevice, &device.OtherKey{Algorithm: "DSA-2048"}), device.Fail, "KEYVET_DSA_NOT_ACCEPTED"},
		{bare(device.RoleFile, &device.OtherKey{Algorithm: "DSA-1024"}), device.Warn, "KEYVET_DSA_NOT_ACCEPTED"},
		{bare(device.RoleSSH, &device.OtherKey{Algorithm: "DSA-1024"}), device.Warn, "KEYVET_DSA_NOT_ACCEPTED"},
		{bare(device.RoleDevice, mldsa), device.Fail, "KEYVET_ALGORITHM_NOT_ACCEPTED"},
		{bare(device.RoleCA, brainpool), device.Fail, "KEYVET_ALGORITHM_NOT_ACCEPTED"},
		{bare(device.RoleDevice, &device.OtherKey{Algorithm: "1.2.3.4"}), device.Fail, "KEYVET_ALGORITHM_NOT_ACCEPTED"},
		{certifiedAs(device.RoleFile, mldsa), device.Warn, "KEYVET_ALGORITHM_NOT_ACCEPTED"},
		{certifiedAs(device.RoleIDevID, mldsa), device.Warn, "KEYVET_ALGORITHM_NOT_ACCEPTED"},
		{bare(device.RoleFile, mldsa), device.Warn, "KEYVET_ALGORITHM_UNKNOWN"},
		{bare(device.RoleFile, &device.OtherKey{Algorithm: "1.2.3.4"}), device.Warn, "KEYVET_ALGORITHM_UNKNOWN"},
		{bare(device.RoleSSH, &device.OtherKey{Algorithm: "ssh-xmss@openssh.com"}), device.Warn, "KEYVET_ALGORITHM_UNKNOWN"},
		{bare(device.RoleSRK, &device.OtherKey{Algorithm: "ECDSA-BN_P256"}), device.Warn, "KEYVET_ALGORITHM_UNKNOWN"},
		{certifiedAs(device.RoleEK, mldsa), device.Warn, "KEYVET_ALGORITHM_UNKNOWN"},
		{certifiedAs(device.RoleEK, &device.OtherKey{Algorithm: "0"}), device.Undecided, "KEYVET_ALGORITHM_UNKNOWN"},
		{bare(device.RolePersistent, &device.OtherKey{Algorithm: "1.2.3.4"}), device.Undecided, "KEYVET_ALGORITHM_UNKNOWN"},
		{certifiedAs(device.RoleIDevID, &device.OtherKey{Algorithm: "unknown"}), device.Undecided, "KEYVET_ALGORITHM_UNKNOWN"},
		{bare(device.RoleEK, nil), device.Undecided, "KEYVET_KEY_UNREADABLE"},
		{bare(device.RoleDevice, &ecdsa.PublicKey{}), device.Undecided, "KEYVET_KEY_UNREADABLE"},
	} {
		name := fmt.Sprintf("%s %s, certificate %t, request %t", bad.key.Role, bad.key.Algorithm(), len(bad.key.Chain) > 0, bad.key.Request != nil)
		all = append(all, sample{check: "size", name: name, key: bad.key, want: bad.want, code: bad.code})
	}
	return all
}

// TestSizeSaysWho holds the messages to who takes what: AWS IoT is named only
// for a key that it sees.
func TestSizeSaysWho(t *testing.T) {
	short := &rsa.PublicKey{N: randomOdd(random(4), 1024), E: 65537}
	for role, aws := range map[device.Role]bool{
		device.RoleDevice: true, device.RoleClaim: true, device.RoleCA: true,
		device.RolePersistent: false, device.RoleEK: false, device.RoleSSH: false, device.RoleAnchor: false, device.RoleFile: false,
	} {
		f := runSize(t.Context(), bare(role, short), nil)
		if got := strings.Contains(f[0].Message, "AWS"); got != aws {
			t.Errorf("%s: %s", role, f[0].Message)
		}
	}
}
