package keyfile

import (
	"fmt"

	"github.com/keyvet/keyvet/device"
)

// place is where in a file an object begins.
type place struct {
	line  int    // counted from 1; 0 in a file that is not text
	label string // of a PEM block
}

// name names the place of the object of that number.
func (p place) name(number int) string {
	switch {
	case p.label != "":
		return fmt.Sprintf("object %d (%s, line %d)", number, p.label, p.line)
	case p.line > 0:
		return fmt.Sprintf("line %d", p.line)
	case number > 1:
		return fmt.Sprintf("object %d", number)
	}
	return ""
}

// contents collects what is found in one file. Its objects are counted from 1,
// those that cannot be read and those that hold no key among them.
type contents struct {
	name    string
	objects []object
	gaps    []device.Gap
	effort  effort // that is left
	number  int    // of the last object

	passed   []string // labels of those without a key
	lineKeys int      // keys of OpenSSH lines among objects
	many     bool     // what is collected is one part of many
}

// gap notes why the whole file, or the rest of it, cannot be read; where is ""
// for the whole file.
func (c *contents) gap(where, why string) {
	what := c.name
	if where != "" {
		what += ": " + where
	}
	c.gaps = append(c.gaps, device.Gap{What: what, Why: why})
}

// lose counts an object and notes why it cannot be read.
func (c *contents) lose(at place, why string) {
	c.number++
	c.gap(at.name(c.number), why)
}

// pass counts an object in which no key can be, and says so in a minor gap.
func (c *contents) pass(at place, why string) {
	c.lose(at, why)
	c.gaps[len(c.gaps)-1].Minor = true
}

// remark says of the object read last what leaves the verdict as it is.
func (c *contents) remark(at place, why string) {
	c.gap(at.name(c.number), why)
	c.gaps[len(c.gaps)-1].Minor = true
}

// add notes an object, or the gap where it should have been.
func (c *contents) add(at place, o object, err error) {
	if err != nil {
		c.lose(at, err.Error())
		return
	}
	if o.test != nil {
		o.numbers, o.test = o.test(&c.effort), nil
	}
	c.number++
	o.number, o.line = c.number, at.line
	c.objects = append(c.objects, o)
}

// full reports whether no more is read. Lines of OpenSSH do not count.
func (c *contents) full() bool { return len(c.objects)-c.lineKeys+len(c.gaps) >= maxObjects }
