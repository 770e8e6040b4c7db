package cmd_test

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The README shows a terminal. Its picture is drawn from what the commands of the
// quick start with the mark "picture" really print.
const pictureFile = "../docs/terminal.svg"

var drawPicture = flag.Bool("picture", false, "draw docs/terminal.svg: make picture")

// A picture collects commands with their output.
type picture struct {
	t       *testing.T
	desk    *desk
	drawn   string // what the file shows, plainly
	lines   []string
	screens int
}

func newPicture(t *testing.T, d *desk) *picture {
	p := &picture{t: t, desk: d}
	if !*drawPicture {
		p.drawn = d.plain(shown(t, read(t, pictureFile)))
	}
	return p
}

// add draws the command of a block as a terminal shows it, or holds what is drawn
// to what the command prints now.
func (p *picture) add(block *fence, c command) {
	if block.marks["picture"] == "" {
		return
	}
	p.screens++
	run := p.desk.command("-c", c.line)
	if *drawPicture {
		run = p.desk.command("-c", `script -qec "$0" /dev/null`, c.line)
		run.Env = append(run.Env, "TERM=xterm-256color")
	}
	out, _ := run.CombinedOutput() // its status is that of the verdict
	if len(out) == 0 {
		p.t.Errorf("%s:%d: no output to draw", block.page, block.line)
	}
	if want := p.desk.plain("$ " + c.line + "\n" + string(out)); !*drawPicture && !strings.Contains(p.drawn, want) {
		p.t.Errorf("docs/terminal.svg shows another output than %q; make picture", want)
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(out), "\r", ""), p.desk.dir, "/home/you/keyvet")
	p.lines = append(p.lines, "$ "+c.line)
	p.lines = append(p.lines, strings.Split(strings.TrimRight(text, "\n"), "\n")...)
	p.lines = append(p.lines, "")
}

// end writes the file.
func (p *picture) end() {
	if p.screens != 2 {
		p.t.Errorf("the picture has %d screens, want a failing and a passing device", p.screens)
	}
	if *drawPicture {
		if err := os.WriteFile(pictureFile, []byte(svg(p.lines)), 0o644); err != nil {
			p.t.Error(err)
		}
	}
}

// colours of a terminal, by the number of the escape sequence.
var colours = map[string]string{"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "35": "#d2a8ff"}

var escape = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// svg draws lines of a terminal with their colours.
func svg(lines []string) string {
	const width, height, left = 8.4, 19, 16
	columns := 80
	for _, line := range lines {
		columns = max(columns, len([]rune(escape.ReplaceAllString(line, ""))))
	}
	lines = lines[:len(lines)-1] // the last one is empty
	w, h := float64(columns)*width+2*left, len(lines)*height+2*left
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" role="img" aria-label="keyvet check on a failing and on a passing device">`+"\n", w, h, w)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#161b22"/>`+"\n")
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14" fill="#c9d1d9" xml:space="preserve">`+"\n")
	for i, line := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d">`, left, left+height*i+14)
		colour := ""
		for line != "" {
			at := escape.FindStringSubmatchIndex(line)
			text, rest, next := line, "", colour
			if at != nil {
				text, rest, next = line[:at[0]], line[at[1]:], colours[line[at[2]:at[3]]]
			}
			if text != "" && colour != "" {
				fmt.Fprintf(&b, `<tspan fill="%s" font-weight="bold">%s</tspan>`, colour, escaped(text))
			} else {
				b.WriteString(escaped(text))
			}
			line, colour = rest, next
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

func escaped(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes all
	return b.String()
}

// shown is the text of a picture, line by line, without the marks beside a status,
// which only a terminal shows.
func shown(t *testing.T, picture []byte) string {
	t.Helper()
	var b strings.Builder
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			b.Write(text)
		}
	}
	return regexp.MustCompile(`[✓✗] |! WARN`).ReplaceAllStringFunc(b.String(), func(s string) string { return strings.TrimLeft(s, "✓✗! ") })
}

func TestSVG(t *testing.T) {
	got := svg([]string{"$ keyvet check", "\x1b[31m✗ FAIL\x1b[0m  a & b", ""})
	if !strings.Contains(got, `<tspan fill="#ff7b72" font-weight="bold">✗ FAIL</tspan>  a &amp; b</text>`) {
		t.Error(got)
	}
	if text := strings.Fields(shown(t, []byte(got))); strings.Join(text, " ") != "$ keyvet check FAIL a & b" {
		t.Errorf("%q", text)
	}
}
