package tpmtest

import (
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ROCAKey is an RSA-2048 key such as the library of CVE-2017-15361 makes (Nemec
// et al., "The Return of Coppersmith's Attack", CCS 2017): each prime is
// k·M + (65537^a mod M), M the product of the first 126 primes. The same seed
// gives the same key. It is weak, and for tests alone.
func ROCAKey(seed string) *rsa.PrivateKey {
	random := rand.New(rand.NewChaCha8(sha256.Sum256([]byte(seed))))
	e := big.NewInt(65537)
	one := big.NewInt(1)
	for {
		p, q := rocaPrime(random), rocaPrime(random)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil || p.Cmp(q) == 0 {
			continue
		}
		return &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
			D:         d, Primes: []*big.Int{p, q},
		}
	}
}

// rocaPrime is such a prime of 1,024 bits, the two highest of which are set.
func rocaPrime(random *rand.Rand) *big.Int {
	m := big.NewInt(1)
	for n, candidate := 0, int64(2); n < 126; candidate++ {
		if c := big.NewInt(candidate); c.ProbablyPrime(0) {
			m.Mul(m, c)
			n++
		}
	}
	first := new(big.Int).Lsh(big.NewInt(3), 1022)
	kFirst := new(big.Int).Add(new(big.Int).Div(first, m), big.NewInt(1))
	kLast := new(big.Int).Sub(new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 1024), m), big.NewInt(1))
	kCount := new(big.Int).Sub(kLast, kFirst).Uint64() // about 2^51
	for {
		k := new(big.Int).Add(kFirst, new(big.Int).SetUint64(random.Uint64N(kCount)))
		a := new(big.Int).SetUint64(random.Uint64())
		p := new(big.Int).Exp(big.NewInt(65537), a, m)
		if p.Add(p, k.Mul(k, m)); p.ProbablyPrime(20) {
			return p
		}
	}
}

// ImportRSA puts an RSA-2048 key of exponent 65537 into the TPM at address, a
// unix: address, as a signing and decryption key under the storage root key,
// persistent at handle (0x81000000 to 0x817fffff). The TPM must have no client.
func ImportRSA(address string, key *rsa.PrivateKey, handle uint32) (err error) {
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := importRSA(client{conn}, key, tpm2.TPMHandle(handle)); err != nil {
		return fmt.Errorf("import key: %w", err)
	}
	return nil
}

// client sends commands over a socket. It has no deadline: the TPM is this machine's own.
type client struct{ conn net.Conn }

func (c client) Send(command []byte) ([]byte, error) {
	if _, err := c.conn.Write(command); err != nil {
		return nil, err
	}
	return readFrame(c.conn)
}

func importRSA(tpm transport.TPM, key *rsa.PrivateKey, handle tpm2.TPMHandle) (err error) {
	flush := func(h tpm2.TPMHandle) {
		_, flushErr := tpm2.FlushContext{FlushHandle: h}.Execute(tpm)
		err = errors.Join(err, flushErr)
	}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		return err
	}
	defer func() { flush(srk.ObjectHandle) }()
	parent := tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)}
	public := tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, SignEncrypt: true, Decrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))}),
	})
	// Neither wrapped nor encrypted: a duplicate may be, and this one is no secret.
	sensitive := tpm2.Marshal(tpm2.New2B(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgRSA,
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgRSA, &tpm2.TPM2BPrivateKeyRSA{Buffer: key.Primes[0].FillBytes(make([]byte, 128))}),
	}))
	imported, err := tpm2.Import{
		ParentHandle: parent, ObjectPublic: public, Duplicate: tpm2.TPM2BPrivate{Buffer: sensitive},
		Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(tpm)
	if err != nil {
		return err
	}
	loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: imported.OutPrivate, InPublic: public}.Execute(tpm)
	if err != nil {
		return err
	}
	defer func() { flush(loaded.ObjectHandle) }()
	_, err = tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name},
		PersistentHandle: handle,
	}.Execute(tpm)
	return err
}
