package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// openssl asks the program of that name.
type openssl struct{ scratch string }

// facts are what is compared of a certificate; the serial number is in hex.
type facts struct {
	serial   string
	from, to time.Time
}

func (f facts) String() string {
	return fmt.Sprintf("serial %s, valid from %s to %s", f.serial, f.from.Format(time.RFC3339), f.to.Format(time.RFC3339))
}

func (openssl) run(input []byte, args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", errors.New(reason(errs.String(), err))
	}
	return out.String(), nil
}

// reason is the line of OpenSSL's errors that says most.
func reason(text string, err error) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "error ") { // of verify
			return line
		}
	}
	for _, line := range lines {
		if f := strings.Split(line, ":"); len(f) > 5 && f[1] == "error" {
			return f[5]
		}
	}
	return fmt.Sprintf("%s (%v)", lines[0], err)
}

// certificate reads a certificate in PEM.
func (o openssl) certificate(data []byte) (f facts, err error) {
	out, err := o.run(data, "x509", "-noout", "-serial", "-dates")
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "serial":
			negative := strings.HasPrefix(value, "-")
			f.serial = strings.ToLower(strings.TrimLeft(strings.TrimPrefix(value, "-"), "0"))
			if f.serial == "" {
				f.serial = "0"
			}
			if negative {
				f.serial = "-" + f.serial
			}
		case "notBefore":
			f.from, err = instant(value)
		case "notAfter":
			f.to, err = instant(value)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// instant reads a time as OpenSSL prints it: "Jan  1 00:00:00 2025 GMT", the year
// in as few digits as it takes.
func instant(s string) (time.Time, error) {
	f := strings.Fields(s)
	if len(f) != 5 {
		return time.Time{}, fmt.Errorf("%q is no time", s)
	}
	f[3] = fmt.Sprintf("%04s", f[3])
	at, err := time.Parse("Jan 2 15:04:05 2006 MST", strings.Join(f, " "))
	return at.Truncate(time.Second).UTC(), err
}

// verify holds a chain in PEM files against trusted certificates at a time.
func (o openssl) verify(at time.Time, trusted, untrusted, leaf []byte) error {
	dir, err := os.MkdirTemp(o.scratch, "")
	if err != nil {
		return err
	}
	args := []string{"verify", "-partial_chain", "-attime", strconv.FormatInt(at.Unix(), 10)}
	for _, part := range []struct {
		flag string
		data []byte
	}{{"-CAfile", trusted}, {"-untrusted", untrusted}, {"", leaf}} {
		if len(part.data) == 0 {
			continue
		}
		name := filepath.Join(dir, "part"+part.flag+".pem")
		if err := os.WriteFile(name, part.data, 0o600); err != nil {
			return err
		}
		if part.flag != "" {
			args = append(args, part.flag)
		}
		args = append(args, name)
	}
	_, err = o.run(nil, args...)
	return err
}

// selfSigned checks the signature of a certificate by its own key.
func (o openssl) selfSigned(data []byte) error {
	dir, err := os.MkdirTemp(o.scratch, "")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "self.pem")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return err
	}
	_, err = o.run(nil, "verify", "-no_check_time", "-check_ss_sig", "-CAfile", name, name)
	return err
}

// key reads a key in DER.
func (o openssl) key(der []byte, private bool) error {
	args := []string{"pkey", "-inform", "DER", "-noout"}
	if !private {
		args = append(args, "-pubin", "-pubcheck")
	}
	_, err := o.run(der, args...)
	return err
}

// certificates are the PEM blocks of certificates, each in PEM of its own.
func certificates(data []byte) (all [][]byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
		}
	}
	return all
}
