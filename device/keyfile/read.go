// Package keyfile finds the public keys in a file: certificates and chains,
// certificate requests, public and private keys, in PEM and DER, in the forms
// of PKCS#1 (RFC 8017), PKCS#8 (RFC 5958), SEC 1 (RFC 5915) and
// SubjectPublicKeyInfo (RFC 5280); OpenSSH public and private keys; the TPM's
// TPM2B_PUBLIC and TPMT_PUBLIC; and the TSS2 PRIVATE KEY of tpm2-openssl.
//
// It reads keys that crypto/x509 and x/crypto/ssh refuse, since those are the
// ones to be judged: points off their curve, even moduli, odd exponents,
// certificates that cannot be parsed. It judges nothing itself, decrypts
// nothing, and reports every object that it could not read as a [device.Gap].
//
// Not read: PKCS#7, PKCS#12, Java key stores, PuTTY keys, RFC 4716 keys, JWK.
package keyfile

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/device"
)

const (
	maxFileBytes = 1 << 20 // a bundle of all public CAs has about 220 KB
	maxObjects   = 1000    // of one file, keys and gaps together
)

// Read returns every key in the file at path, in the order of the file, and a
// gap for each object, or the whole file, that could not be read. Only regular
// files of at most 1 MiB are opened. A key is called path, or path#1, path#2 …
// where there are several.
//
// A private key whose certificate is in the same file is in that certificate's
// Private; any other is a key of its own, whose Partner says whether it is that
// of a request or public key of the file.
func Read(path string) ([]device.Key, []device.Gap) {
	f, err := Load(path)
	if err != nil {
		return nil, []device.Gap{{What: path, Why: err.Error()}}
	}
	return f.Keys()
}

// File is a file as it was read once: what is vetted of it and what is used of it
// are the same bytes.
type File struct {
	Path string
	Data []byte

	mode  fs.FileMode
	place *device.Place
}

// Load reads a regular file of at most 1 MiB.
func Load(path string) (*File, error) {
	data, info, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	return &File{Path: path, Data: data, mode: info.Mode(), place: placeOf(path, info)}, nil
}

// Keys returns every key in the file; see [Read].
func (f *File) Keys() ([]device.Key, []device.Gap) {
	keys, gaps := parse(f.Data, f.Path, f.mode)
	for _, k := range keys {
		if k.Private != nil {
			k.Private.Place = f.place
		}
	}
	return keys, gaps
}

// ReadFrom is [Read] for an open stream called name, "-" for standard input.
// It reads at most 1 MiB and waits as long as r does.
func ReadFrom(r io.Reader, name string) ([]device.Key, []device.Gap) {
	data, err := readAll(r)
	if err != nil {
		return nil, []device.Gap{{What: name, Why: err.Error()}}
	}
	return parse(data, name, 0)
}

func readRegular(path string) ([]byte, fs.FileInfo, error) {
	// Looked at before it is opened: opening some devices, such as a
	// watchdog, does something. Looked at again after, since it may have been
	// replaced; O_NONBLOCK is for a FIFO that came in between.
	info, err := os.Stat(path)
	if err == nil {
		err = refuse(info)
	}
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err == nil {
		err = refuse(info)
	}
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	data, err := readAll(f)
	return data, info, err
}

func refuse(info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return errors.New("a directory, not a file")
	case !mode.IsRegular():
		return errors.New("not a regular file")
	case info.Size() > maxFileBytes:
		return fmt.Errorf("too large for a key file: %d bytes, at most %d are read", info.Size(), maxFileBytes)
	}
	return nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("too large for a key file: more than %d bytes", maxFileBytes)
	}
	return data, nil
}

// withoutPath drops the path from an error of package os: the gap names it already.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// object is one key as it was found.
type object struct {
	public crypto.PublicKey
	spki   []byte // DER, nil if there is none
	odd    string // what of the encoding breaks the standards

	certificate bool
	x509        *x509.Certificate // nil if there is none, or it could not be parsed
	x509Error   string
	request     *device.Answer // of a certificate request

	private     bool
	privateSPKI []byte                      // of the public key that the private key makes; nil if it makes none
	wrapped     bool                        // the private key is under a key of a TPM's
	numbers     device.Answer               // see [device.PrivateFile]
	test        func(*effort) device.Answer // what else there is to ask of the numbers; nil for nothing
	partner     device.Answer               // see [device.PrivateFile]
}

// contents collects what is found in one file.
type contents struct {
	name    string
	objects []object
	gaps    []device.Gap
	effort  effort // that is left
}

// gap notes what could not be read; where is "" for the whole file.
func (c *contents) gap(where, why string) {
	what := c.name
	if where != "" {
		what += ": " + where
	}
	c.gaps = append(c.gaps, device.Gap{What: what, Why: why})
}

func (c *contents) full() bool { return len(c.objects)+len(c.gaps) >= maxObjects }

// add notes an object, or the gap where it should have been.
func (c *contents) add(where string, o object, err error) {
	if err != nil {
		c.gap(where, err.Error())
		return
	}
	if o.test != nil {
		o.numbers, o.test = o.test(&c.effort), nil
	}
	c.objects = append(c.objects, o)
}

func parse(data []byte, name string, mode fs.FileMode) ([]device.Key, []device.Gap) {
	c := &contents{name: name, effort: maxEffort}
	c.read(data)
	return c.keys(mode), c.gaps
}

// keys makes keys of the objects: certificates with their chains, private keys
// with their certificates.
func (c *contents) keys(mode fs.FileMode) []device.Key {
	merged := c.pair()
	var pool []*x509.Certificate
	for _, o := range c.objects {
		if o.x509 != nil {
			pool = append(pool, o.x509)
		}
	}
	issuers := device.NewIssuers(pool)
	var keys []device.Key
	for i, o := range c.objects {
		if merged[i] {
			continue
		}
		k := device.Key{Role: device.RoleFile, Source: "file:" + c.name, Public: o.public, SPKI: o.spki, Request: o.request, CertificateError: o.x509Error, Encoding: o.odd}
		if o.x509 != nil {
			k.Chain, k.Beside = issuers.Chain(o.x509), pool
		}
		if o.private {
			k.Private = &device.PrivateFile{Path: c.name, Mode: mode, SPKI: o.privateSPKI, Wrapped: o.wrapped, Numbers: o.numbers, Partner: o.partner}
		}
		keys = append(keys, k)
	}
	for i := range keys {
		keys[i].ID = c.name
		if len(keys) > 1 {
			keys[i].ID = fmt.Sprintf("%s#%d", c.name, i+1)
		}
	}
	return keys
}

// oneLine makes text of outside bytes fit for a message.
func oneLine(s string) string {
	const most = 160
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}
