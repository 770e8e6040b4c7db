package tpmtest

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Each command takes the time that is published of its kind, whatever key it is
// by, and a refusal takes none of it.
func TestStopwatch(t *testing.T) {
	const ms = time.Millisecond
	s := Run(t, Options{})
	var slept time.Duration
	w := &Stopwatch{Speed: Speed{"chip", 1000 * ms, 100 * ms, 50 * ms, 70 * ms, 30 * ms}, Sleep: func(d time.Duration) { slept += d }}
	answer, hangUp, err := Dial(RunProxy(t, s.Address(), w.Rewrite).Address())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp()
	tpm := untilDone(answer)

	signing := func(parameters tpm2.TPMUPublicParms, kind tpm2.TPMAlgID) tpm2.TPMTPublic {
		return tpm2.TPMTPublic{Type: kind, NameAlg: tpm2.TPMAlgSHA256, Parameters: parameters, ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, Decrypt: true,
		}}
	}
	ecc := func(curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
		return signing(tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}), tpm2.TPMAlgECC)
	}
	rsa := func(bits tpm2.TPMKeyBits) tpm2.TPMTPublic {
		return signing(tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: bits}), tpm2.TPMAlgRSA)
	}
	var key tpm2.NamedHandle
	create := func(template tpm2.TPMTPublic) func() error {
		return func() error {
			if key.Handle != 0 {
				if _, err := (tpm2.FlushContext{FlushHandle: key.Handle}).Execute(tpm); err != nil {
					return err
				}
			}
			rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(tpm)
			if err != nil {
				return err
			}
			key = tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}
			return nil
		}
	}
	digest := sha256.Sum256(nil)
	var signature tpm2.TPMTSignature
	sign := func(scheme tpm2.TPMAlgID) func() error {
		return func() error {
			rsp, err := tpm2.Sign{
				KeyHandle: key, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
				InScheme: tpm2.TPMTSigScheme{Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			}.Execute(tpm)
			if err == nil {
				signature = rsp.Signature
			}
			return err
		}
	}
	certify := func(scheme tpm2.TPMAlgID) func() error {
		return func() error {
			_, err := tpm2.Certify{ObjectHandle: key, SignHandle: key, InScheme: tpm2.TPMTSigScheme{
				Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
			}}.Execute(tpm)
			return err
		}
	}
	verify := func() error {
		_, err := tpm2.VerifySignature{KeyHandle: key.Handle, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, Signature: signature}.Execute(tpm)
		return err
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want time.Duration // of a creation, with the command that flushes the key before
		rsa  int
	}{
		{"P-256", create(ecc(tpm2.TPMECCNistP256)), 110 * ms, 0},
		{"sign", sign(tpm2.TPMAlgECDSA), 50 * ms, 0},
		{"certify", certify(tpm2.TPMAlgECDSA), 50 * ms, 0},
		{"verify", verify, 30 * ms, 0},
		{"random", func() error { _, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tpm); return err }, 10 * ms, 0},
		{"P-384", create(ecc(tpm2.TPMECCNistP384)), 310 * ms, 0},
		{"sign by P-384", sign(tpm2.TPMAlgECDSA), 150 * ms, 0},
		{"RSA", create(rsa(2048)), 1010 * ms, 1},
		{"sign by RSA", sign(tpm2.TPMAlgRSAPSS), 70 * ms, 0},
		{"certify by RSA", certify(tpm2.TPMAlgRSASSA), 70 * ms, 0},
		{"verify by RSA", verify, 10 * ms, 0},
		{"decrypt", func() error {
			_, err := tpm2.RSADecrypt{KeyHandle: key, CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}}.Execute(tpm)
			return err
		}, 70 * ms, 0},
	} {
		if err := tt.do(); err != nil { // once, so that the TPM has tested the algorithm
			t.Fatalf("%s: %v", tt.name, err)
		}
		w.Lap()
		before := slept
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		lap := w.Lap()
		if lap.Time != tt.want || lap.RSA != tt.rsa || slept-before != tt.want {
			t.Errorf("%s: %v and %d RSA keys, want %v and %d; slept %v", tt.name, lap.Time, lap.RSA, tt.want, tt.rsa, slept-before)
		}
	}
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(rsa(1000))}).Execute(tpm); err == nil {
		t.Fatal("a key of 1,000 bits")
	}
	if lap := w.Lap(); lap.Time != 10*ms || lap.RSA != 0 || len(lap.Commands) != 1 || lap.Commands[0].Command != tpm2.TPMCCCreatePrimary {
		t.Errorf("refused: %+v", lap)
	}
}

// What is cut short is a command without a time of its own.
func TestStopwatchCut(t *testing.T) {
	good := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
	for _, code := range []byte{0x31, 0x53, 0x58, 0x59, 0x5d, 0x47, 0x77} {
		for n := range 40 {
			command := make([]byte, 10+n)
			copy(command, []byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 1, code})
			w := &Stopwatch{Speed: Speeds[0]}
			w.Rewrite(command, good)
			if lap := w.Lap(); lap.Time == 0 || lap.RSA != 0 {
				t.Errorf("%#x, %d bytes: %+v", code, n, lap)
			}
		}
	}
}

// untilDone repeats a command while the TPM tests an algorithm.
type untilDone func(command []byte) ([]byte, error)

func (t untilDone) Send(command []byte) ([]byte, error) {
	for {
		const retry = 0x922 // TPM_RC_RETRY
		response, err := t(command)
		if err != nil || binary.BigEndian.Uint32(response[6:]) != retry {
			return response, err
		}
	}
}
