package keyfile

import "bytes"

// form is one format of a file, or of what is in a PEM block: what its bytes
// look like, and what reads them. To add a format is to add a line to [forms]
// or, for text between BEGIN and END, to [blocks].
type form struct {
	is   func(data []byte) bool
	read func(c *contents, at place, data []byte)
}

// forms are tried in turn; text is what is none of them. (Functions, since some
// forms hold others.)
func forms() []form {
	return []form{
		{begins("\xff\xfe"), refused("UTF-16 text: save it as plain ASCII")},
		{begins("\xfe\xff"), refused("UTF-16 text: save it as plain ASCII")},
		{begins("-\x00-\x00"), refused("UTF-16 text: save it as plain ASCII")},
		{begins("\x00-\x00-"), refused("UTF-16 text: save it as plain ASCII")},
		{begins("\xfe\xed\xfe\xed"), refused("a Java key store: export the certificate as PEM")},
		{begins("\xce\xce\xce\xce"), refused("a Java key store: export the certificate as PEM")},
		{begins("\xba\xdc\xc0\xde"), refused("a tpm2-tools context: export the key with `tpm2_readpublic`")},
		{begins("PuTTY-User-Key-File-"), refused("a PuTTY key: export it in OpenSSH form")},
		{begins("age-encryption.org/"), refused("encrypted by age: decrypt it first")},
		{begins("\x1f\x8b"), refused("compressed by gzip: unpack it first")},
		{begins("BZh"), refused("compressed by bzip2: unpack it first")},
		{begins("\xfd7zXZ\x00"), refused("compressed by xz: unpack it first")},
		{begins("\x28\xb5\x2f\xfd"), refused("compressed by zstd: unpack it first")},
		{begins("PK\x03\x04"), refused("a ZIP archive: unpack it first")},
		{begins("SSH PRIVATE KEY FILE FORMAT 1."), refused("an SSH-1 private key, which no OpenSSH uses since 7.6")},
		{isKeybox, refused("a GnuPG keybox: export the keys with gpg --export")},
		{begins(opensshMagic), (*contents).addOpenSSH},
		{isWrapped, (*contents).addWrapped},
		{isDER, (*contents).addDER},
		{isOpenPGP, (*contents).addOpenPGP},
		{looksTPM, (*contents).addTPM},
	}
}

// block reads what stands between BEGIN and END, which are the first and the
// last line of text.
type block func(c *contents, at place, text string)

// blocks are the labels that need a reader of their own; between all others
// stands the base64 of one of the forms.
func blocks() map[string]block {
	return map[string]block{
		"PGP PUBLIC KEY BLOCK":       (*contents).addArmour,
		"PGP PRIVATE KEY BLOCK":      (*contents).addArmour,
		"SSH2 PUBLIC KEY":            (*contents).addSSH2,
		"SSH2 PRIVATE KEY":           refusedBlock("a private key of SSH2's own form: give its public key"),
		"SSH2 ENCRYPTED PRIVATE KEY": refusedBlock("a private key of SSH2's own form: give its public key"),
		"TSS2 KEY BLOB":              refusedBlock("a TSS2 KEY BLOB, the old form of a TSS2 private key: write it as TSS2 PRIVATE KEY, or give its public key"),
		"AGE ENCRYPTED FILE":         refusedBlock("encrypted by age: decrypt it first"),
		"PGP MESSAGE":                refusedBlock("an OpenPGP message: decrypt it first"),

		// No key can be in these.
		"X509 CRL":              passedOver,
		"DH PARAMETERS":         passedOver,
		"X9.42 DH PARAMETERS":   passedOver,
		"DSA PARAMETERS":        passedOver,
		"EC PARAMETERS":         passedOver,
		"SM2 PARAMETERS":        passedOver,
		"ATTRIBUTE CERTIFICATE": passedOver,
		"PGP SIGNATURE":         passedOver,
	}
}

func begins(prefix string) func([]byte) bool {
	return func(data []byte) bool { return bytes.HasPrefix(data, []byte(prefix)) }
}

func refused(why string) func(*contents, place, []byte) {
	return func(c *contents, at place, _ []byte) { c.lose(at, why) }
}

func refusedBlock(why string) block {
	return func(c *contents, at place, _ string) { c.lose(at, why) }
}

func passedOver(c *contents, at place, _ string) {
	c.number++
	c.passed = append(c.passed, at.label)
}

// read reads a whole file, which must hold a key.
func (c *contents) read(data []byte) {
	c.readFile(data)
	if len(c.objects)+len(c.gaps) == 0 && len(c.passed) > 0 {
		c.gap("", "no key in it, only "+c.passed[0])
	}
}

func (c *contents) readFile(data []byte) {
	switch {
	case len(data) == 0:
		c.gap("", "empty file")
	case c.readForm(place{}, data):
	default:
		data = bytes.TrimPrefix(data, []byte("\ufeff"))
		switch {
		case isJSON(data):
			c.readJSON(data)
		case isText(data), bytes.Contains(data, []byte("-----BEGIN ")):
			c.readText(string(data))
		case data[0] == 0x30:
			_, _, err := outer(data)
			c.lose(place{}, err.Error())
		default:
			c.gap("", notAKey)
		}
	}
}

// readForm reports whether data was of one of the forms.
func (c *contents) readForm(at place, data []byte) bool {
	for _, f := range forms() {
		if f.is(data) {
			f.read(c, at, data)
			return true
		}
	}
	return false
}
