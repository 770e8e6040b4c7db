package tpm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/attempts"
)

// errHierarchyPassword: a hierarchy has a password other than the one that
// keyvet was given, or than the empty one.
var errHierarchyPassword = errors.New("the hierarchy's password was refused")

// passwordOf names, for messages, where the password of a hierarchy would be.
var passwordOf = map[tpm2.TPMHandle]struct{ hierarchy, key string }{
	tpm2.TPMRHOwner:       {"owner", "tpm.owner_auth_file"},
	tpm2.TPMRHEndorsement: {"endorsement", "tpm.endorsement_auth_file"},
}

// hierarchy returns a hierarchy with what proves that its use is allowed: the
// empty password, or an HMAC by the one in the operator's file, which itself
// does not go over the bus, unless there is a zero byte in it. These passwords count towards no lockout.
func (t *TPM) hierarchy(h tpm2.TPMHandle) (tpm2.AuthHandle, error) {
	auth := tpm2.AuthHandle{Handle: h, Auth: tpm2.PasswordAuth(nil)}
	path := t.passwordFile(h)
	if path == "" {
		return auth, nil
	}
	password, err := readPassword(path)
	if err != nil {
		return auth, fmt.Errorf("%s: %w", passwordOf[h].key, err)
	}
	const nonceSize = 16
	switch {
	case bytes.IndexByte(bytes.TrimRight(password, "\x00"), 0) >= 0: // go-tpm v0.9.8 makes no HMAC with such a key: hmacKeyFromAuthValue ends it at the first zero
		auth.Auth = tpm2.PasswordAuth(password)
	case len(password) > 0:
		auth.Auth = tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth(password))
	}
	return auth, nil
}

func (t *TPM) passwordFile(h tpm2.TPMHandle) string {
	switch h {
	case tpm2.TPMRHOwner:
		return t.opts.OwnerAuthFile
	case tpm2.TPMRHEndorsement:
		return t.opts.EndorsementAuthFile
	}
	return ""
}

// ofHierarchy says what it means that a command was refused which a hierarchy
// had to allow.
func (t *TPM) ofHierarchy(h tpm2.TPMHandle, err error) error {
	if !hasPassword(err) {
		return err
	}
	p := passwordOf[h]
	if path := t.passwordFile(h); path != "" {
		return fmt.Errorf("the %s hierarchy has another password than the one in %s (%s), or none: %w: %w", p.hierarchy, path, p.key, errHierarchyPassword, err)
	}
	return fmt.Errorf("the %s hierarchy has a password: name a file that holds it as %s: %w: %w", p.hierarchy, p.key, errHierarchyPassword, err)
}

const (
	maxPasswordFile = 1 << 10
	maxPassword     = 64 // bytes: the longest digest (Part 2, TPM2B_AUTH)
)

// readPassword reads a password from a file as tpm2-tools does after "file:":
// without the line ends at its end, the bytes as they are, after "str:" likewise,
// and after "hex:" as hexadecimal digits.
func readPassword(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // nobody may write to a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("%s is not a file", path)
	case mode.Perm()&0o027 != 0:
		return nil, fmt.Errorf("%s can be read or changed by others (mode %04o): `chmod 600 %s`, or 640 for a group that may read it", path, mode.Perm(), path)
	}
	b := make([]byte, maxPasswordFile+1)
	n, err := f.Read(b)
	if err != nil && n > 0 || err != nil && info.Size() > 0 {
		return nil, err
	}
	if n > maxPasswordFile {
		return nil, fmt.Errorf("%s is longer than %d bytes: it holds no password of a TPM", path, maxPasswordFile)
	}
	b = bytes.TrimRight(b[:n], "\r\n")
	if text, ok := bytes.CutPrefix(b, []byte("hex:")); ok {
		b = make([]byte, hex.DecodedLen(len(text)))
		if _, err := hex.Decode(b, text); err != nil {
			return nil, fmt.Errorf("%s: after hex: it must hold an even number of hexadecimal digits", path) // not which: they are secret
		}
	} else {
		b = bytes.TrimPrefix(b, []byte("str:"))
	}
	if len(b) > maxPassword {
		return nil, fmt.Errorf("%s: a password has at most %d bytes", path, maxPassword)
	}
	return b, nil
}

// hasPassword reports whether the TPM refused a password.
func hasPassword(err error) bool {
	return errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)
}

// byEmptyPassword has a key used that must have the empty password, unless it
// refused it before: see package attempts. where is its handle or what holds it,
// called what messages call it.
func (t *TPM) byEmptyPassword(key tpm2.AuthHandle, area *tpm2.TPMTPublic, where, called string, use func() error) error {
	o := attempts.Object{Address: t.address, Name: hex.EncodeToString(key.Name.Buffer), Where: where}
	var err error
	if area.ObjectAttributes.NoDA {
		err = t.opts.Attempts.Exempt(o, use, hasPassword)
	} else {
		err = t.opts.Attempts.Protected(o, t.readLockout, use, hasPassword)
	}
	switch {
	case hasPassword(err), errors.Is(err, attempts.ErrRefused):
		t.read.properties.Store(nil) // the count of failures among them
		return fmt.Errorf("%s has a password, which keyvet has no way to give: make the key without one: %w", called, err)
	case errors.Is(err, attempts.ErrTooClose):
		return fmt.Errorf("%s may have a password: wait until the TPM forgets the failures, or clear them by its lockout password (`tpm2_dictionarylockout -c`): %w", called, err)
	case errors.Is(err, tpm2.TPMRCLockout):
		return explain(err)
	}
	return err
}

// readLockout reads how close the TPM is to its dictionary-attack lockout.
func (t *TPM) readLockout() (attempts.Lockout, error) {
	s, err := t.readState()
	return s.lockout, err
}

// unkept is for callers that keep nothing.
var unkept attempts.Memory
