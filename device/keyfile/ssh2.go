package keyfile

import (
	"encoding/base64"
	"strings"
)

// addSSH2 reads a public key in the form of RFC 4716, section 3: headers, which
// go on where a line ends in a backslash, then base64 of the same bytes that
// OpenSSH has.
func (c *contents) addSSH2(at place, text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	body, header := "", false
	for _, line := range lines[1 : len(lines)-1] {
		header = header || strings.Contains(line, ":")
		if !header {
			body += strings.TrimSpace(line)
		}
		header = header && strings.HasSuffix(line, `\`)
	}
	blob, err := base64.StdEncoding.DecodeString(body)
	if err != nil || len(blob) == 0 {
		c.lose(at, "damaged SSH2 public key: not base64 between BEGIN and END")
		return
	}
	o, err := parseSSH(blob, "")
	o.openSSH = true
	c.add(at, o, err)
}
