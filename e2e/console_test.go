//go:build e2e

package e2e

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// console is what a machine has said on its serial port in one boot.
type console struct {
	file *os.File // the same, to be read afterwards

	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed, and replaced, with each piece
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(b)
	close(c.changed)
	c.changed = make(chan struct{})
	return c.file.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// tail is the end of it, for a message.
func (c *console) tail() string {
	text := c.String()
	return text[max(0, len(text)-6000):]
}

// wait returns the first match with its submatches, unless the machine ends first.
func (c *console) wait(pattern *regexp.Regexp, ended <-chan struct{}) ([]string, error) {
	late := time.After(patience)
	for off := false; ; {
		c.mu.Lock()
		changed := c.changed
		match := pattern.FindStringSubmatch(c.text.String())
		c.mu.Unlock()
		if match != nil {
			return match, nil
		}
		if off {
			return nil, errors.New("the machine is off")
		}
		select {
		case <-changed:
		case <-ended:
			off = true // there may be a last word
		case <-late:
			return nil, errors.New("it does not come")
		}
	}
}
