package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

// wycheproof is every key in the test vectors of Wycheproof, once: those of groups,
// and those of single tests of ECDH, many of which are invalid.
func wycheproof(dir string, c *comparison) error {
	names, err := filepath.Glob(filepath.Join(dir, "wycheproof", "testvectors_v1", "*.json"))
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s/wycheproof holds no test vectors: fill it by packaging/corpora/fetch", dir)
	}
	if err != nil {
		return err
	}
	seen := make(map[[32]byte]bool)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var file struct {
			Groups []map[string]json.RawMessage `json:"testGroups"`
		}
		if json.Unmarshal(data, &file) != nil {
			continue // of another form: no keys
		}
		for i, group := range file.Groups {
			keys := keysOf(group)
			var tests []map[string]json.RawMessage
			_ = json.Unmarshal(group["tests"], &tests) // none: no keys
			for _, test := range tests {
				keys = append(keys, keysOf(test)...)
			}
			for _, k := range keys {
				if sum := sha256.Sum256(k.der); !seen[sum] {
					seen[sum] = true
					c.key(fmt.Sprintf("%s %d %s", filepath.Base(name), i, k.comment), k)
				}
			}
		}
	}
	return nil
}

type key struct {
	der     []byte
	private bool
	comment string
}

// keysOf are the keys in DER, in hex or PEM, of a group or test.
func keysOf(object map[string]json.RawMessage) (keys []key) {
	text := func(name string) (s string) {
		_ = json.Unmarshal(object[name], &s) // another type: no key
		return s
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		switch name {
		case "publicKeyDer", "publicKeyAsn", "public", "keyDer", "privateKeyPkcs8":
			if der, err := hex.DecodeString(text(name)); err == nil && len(der) > 2 && der[0] == 0x30 {
				keys = append(keys, key{der, name == "privateKeyPkcs8", text("comment")})
			}
		case "publicKeyPem", "keyPem", "privateKeyPem":
			if block, _ := pem.Decode([]byte(text(name))); block != nil {
				keys = append(keys, key{block.Bytes, name == "privateKeyPem", text("comment")})
			}
		}
	}
	return keys
}

// key compares whether a key is one: keyvet does not read it, or finds a flaw that
// is CRITICAL; or OpenSSL does not read it, or finds no point of its curve.
func (c *comparison) key(name string, k key) {
	const corpus = "Wycheproof"
	c.object(corpus)
	keys, gaps, found := c.judge(corpus, name, k.der, check.Env{Now: time.Now()})
	ours := ""
	for _, g := range gaps {
		ours += "does not read it: " + g.Why + " "
	}
	for _, f := range found {
		if f.Severity == device.Critical {
			ours += fmt.Sprintf("CRITICAL %s: %s ", f.ReasonCode, f.Message)
		}
	}
	if ours == "" && k.comment == "" {
		return // of a group, so a good one: OpenSSL need not be asked
	}
	theirs := c.openssl.key(k.der, k.private)
	if (ours == "") == (theirs == nil) {
		return
	}
	opinion := "takes it"
	if theirs != nil {
		opinion = theirs.Error()
	}
	if ours == "" {
		ours = "reads it: " + keys[0].Algorithm()
	}
	c.add(corpus, name, ours, opinion)
}
