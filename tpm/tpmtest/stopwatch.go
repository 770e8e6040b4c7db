package tpmtest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Speed is how long a chip takes for what takes it long.
type Speed struct {
	Chip       string
	RSA, P256  time.Duration // to make a key, RSA-2048 or P-256
	Sign       time.Duration // by P-256
	RSAPrivate time.Duration // a signature or decryption by RSA-2048
	Verify     time.Duration // a signature by P-256
}

// Speeds are those that wolfTPM publishes of its benchmark (README.md of
// https://github.com/wolfSSL/wolfTPM). Of a larger key, and of a command that is
// not published, they say nothing: see [Stopwatch].
var Speeds = []Speed{
	{"Infineon SLB9670", 2196 * time.Millisecond, 231 * time.Millisecond, 69 * time.Millisecond, 163 * time.Millisecond, 114 * time.Millisecond},
	{"ST ST33TP", 7455 * time.Millisecond, 220 * time.Millisecond, 42 * time.Millisecond, 248 * time.Millisecond, 74 * time.Millisecond},
	{"Microchip ATTPM20", 5276 * time.Millisecond, 153 * time.Millisecond, 59 * time.Millisecond, 118 * time.Millisecond, 43 * time.Millisecond},
	{"Nations Z32H330", 2184 * time.Millisecond, 52 * time.Millisecond, 23 * time.Millisecond, 133 * time.Millisecond, 37 * time.Millisecond},
	{"Nuvoton NPCT650", 4479 * time.Millisecond, 148 * time.Millisecond, 190 * time.Millisecond, 541 * time.Millisecond, 265 * time.Millisecond},
	{"Nuvoton NPCT750", 3409 * time.Millisecond, 84 * time.Millisecond, 56 * time.Millisecond, 70 * time.Millisecond, 39 * time.Millisecond},
}

const (
	otherCommand = 10 * time.Millisecond // an estimate: a command without a time of its own
	larger       = 3                     // an estimate: a key of more than 2,048 bits, or 256, takes so many times as long
)

// Stopwatch counts how long a chip would have taken for the commands that a TPM
// was given; its Rewrite is for [NewProxy]. A key of P-384 or RSA-3072 takes three
// times as long as the one that is published, and any other command 10 ms. Both
// are estimates.
type Stopwatch struct {
	Speed Speed
	// Sleep is what each command waits for besides; nil: nothing.
	Sleep func(time.Duration)

	mu  sync.Mutex
	lap Lap
}

// Lap is what a [Stopwatch] counted.
type Lap struct {
	Time     time.Duration
	RSA      int // RSA keys that were made
	Commands []Took
}

// Took is one command.
type Took struct {
	Command tpm2.TPMCC
	Time    time.Duration
}

// Rewrite is a [Rewrite].
func (s *Stopwatch) Rewrite(command, response []byte) []byte {
	took := s.Speed.of(command, response)
	s.mu.Lock()
	code := tpm2.TPMCC(codeOf(command))
	s.lap.Time += took
	s.lap.Commands = append(s.lap.Commands, Took{code, took})
	if template := templateOf(command); template != nil && template.Type == tpm2.TPMAlgRSA && succeeded(response) {
		s.lap.RSA++
	}
	s.mu.Unlock()
	if s.Sleep != nil {
		s.Sleep(took)
	}
	return response
}

// Lap returns what was counted since the last call of it.
func (s *Stopwatch) Lap() Lap {
	s.mu.Lock()
	defer s.mu.Unlock()
	lap := s.lap
	s.lap = Lap{}
	return lap
}

func succeeded(response []byte) bool {
	return len(response) >= 10 && binary.BigEndian.Uint32(response[6:]) == 0
}

// of is how long the chip takes for a command. A refusal comes at once.
func (s Speed) of(command, response []byte) time.Duration {
	if !succeeded(response) {
		return otherCommand
	}
	if template := templateOf(command); template != nil {
		return s.ofCreation(template)
	}
	switch tpm2.TPMCC(codeOf(command)) {
	case tpm2.TPMCCSign:
		return s.ofSignature(parameters(response, 0))
	case tpm2.TPMCCQuote, tpm2.TPMCCCertify, tpm2.TPMCCCertifyCreation, tpm2.TPMCCGetTime, tpm2.TPMCCNVCertify:
		_, signature := sized(parameters(response, 0))
		return s.ofSignature(signature)
	case tpm2.TPMCCRSADecrypt:
		message, _ := sized(parameters(command, 1))
		return times(s.RSAPrivate, len(message) > 256)
	case tpm2.TPMCCActivateCredential:
		_, rest := sized(parameters(command, 2))
		if secret, _ := sized(rest); len(secret) >= 256 {
			return times(s.RSAPrivate, len(secret) > 256)
		}
		return s.Sign // one multiplication, as for a signature
	case tpm2.TPMCCECDHZGen:
		return s.Sign
	case tpm2.TPMCCVerifySignature:
		if _, signature := sized(parameters(command, 1)); algorithm(signature) == tpm2.TPMAlgECDSA {
			return s.Verify
		}
	}
	return otherCommand
}

func times(t time.Duration, isLarger bool) time.Duration {
	if isLarger {
		return larger * t
	}
	return t
}

func (s Speed) ofCreation(template *tpm2.TPMTPublic) time.Duration {
	if rsa, err := template.Parameters.RSADetail(); err == nil {
		return times(s.RSA, rsa.KeyBits > 2048)
	}
	if ecc, err := template.Parameters.ECCDetail(); err == nil {
		return times(s.P256, ecc.CurveID != tpm2.TPMECCNistP256)
	}
	return otherCommand
}

func (s Speed) ofSignature(signature []byte) time.Duration {
	const head = 4 // algorithm and hash
	if len(signature) < head {
		return otherCommand
	}
	number, _ := sized(signature[head:])
	if algorithm(signature) == tpm2.TPMAlgECDSA {
		return times(s.Sign, len(number) > 32)
	}
	return times(s.RSAPrivate, len(number) > 256)
}

func algorithm(b []byte) tpm2.TPMAlgID {
	if len(b) < 2 {
		return tpm2.TPMAlgNull
	}
	return tpm2.TPMAlgID(binary.BigEndian.Uint16(b))
}

// templateOf is by what a command makes a key; nil if it makes none.
func templateOf(command []byte) *tpm2.TPMTPublic {
	const ccCreateLoaded = 0x191
	switch codeOf(command) {
	case ccCreatePrimary, ccCreate, ccCreateLoaded:
	default:
		return nil
	}
	_, rest := sized(parameters(command, 1)) // inSensitive
	template, _ := sized(rest)
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](template)
	if err != nil {
		return nil
	}
	return area
}

// parameters are those of a frame with so many handles (Part 1, section 18).
func parameters(frame []byte, handles int) []byte {
	const header, sessions = 10, 0x8002
	at := header + 4*handles
	if len(frame) < at {
		return nil
	}
	if binary.BigEndian.Uint16(frame) != sessions {
		return frame[at:]
	}
	if len(frame) < at+4 {
		return nil
	}
	size := uint64(binary.BigEndian.Uint32(frame[at:])) // of the sessions, or in a response of the parameters
	at += 4
	if isCommand := handles > 0; isCommand {
		at = int(min(uint64(at)+size, uint64(len(frame))))
	}
	return frame[at:]
}

// sized is what has its length before it, and what comes after it.
func sized(b []byte) (content, rest []byte) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	return b[2 : 2+n], b[2+n:]
}
