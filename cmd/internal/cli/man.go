package cli

import (
	"fmt"
	"strings"
)

// Man returns the program's man page, in mdoc(7). What the table of commands says
// takes the place of the lines @synopsis@, @commands@ and @examples@ of text.
func (p *Program) Man(text string) string {
	var synopsis, commands, examples strings.Builder
	all := append(p.commands(), Command{Name: "help", Args: "[COMMAND]", Short: "the overview, or all about a command"})
	commands.WriteString(".Bl -tag -width Ds\n")
	for _, c := range all {
		usage := ".Cm " + c.Name + "\n"
		for _, f := range flagsOf(&c) {
			usage += ".Op " + f.mdoc() + "\n"
		}
		usage += argsMdoc(c.Args)
		synopsis.WriteString(".Nm\n" + usage)
		fmt.Fprintf(&commands, ".It Xo\n%s.Xc\n", usage)
		if c.Long == "" {
			commands.WriteString(flow(strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."))
		}
		commands.WriteString(flow(c.Long))
		if flags := flagsOf(&c); len(flags) > 0 {
			commands.WriteString(".Pp\n.Bl -tag -width Ds -compact\n")
			for _, f := range flags {
				fmt.Fprintf(&commands, ".It %s\n%s", f.mdoc(), flow(f.text))
			}
			commands.WriteString(".El\n")
		}
		if c.Notes != "" {
			commands.WriteString(".Pp\n" + flow(c.Notes))
		}
	}
	commands.WriteString(".El\n")
	for _, e := range p.Examples {
		examples.WriteString(".Dl " + roff(e) + "\n")
	}
	header := fmt.Sprintf(".\\\" Made of testdata/%s.1 and of the program's table of commands by: make documents\n", p.Name)
	return header + strings.NewReplacer("@synopsis@\n", synopsis.String(), "@commands@\n", commands.String(), "@examples@\n", examples.String()).Replace(text)
}

func (f oneFlag) mdoc() string {
	if f.value == "" {
		return "Fl " + roff(f.name)
	}
	return "Fl " + roff(f.name) + " Ar " + roff(f.value)
}

// argsMdoc is what follows the flags, such as "[FILE ...]".
func argsMdoc(args string) string {
	inside, optional := strings.CutPrefix(args, "[")
	inside, closed := strings.CutSuffix(inside, "]")
	switch {
	case args == "":
		return ""
	case optional && closed && !strings.ContainsAny(inside, "[]"):
		return ".Op Ar " + roff(inside) + "\n"
	}
	return ".Ar " + roff(args) + "\n"
}

// flow is a text of the table: paragraphs, which are filled, and lines that begin
// with spaces, which are not.
func flow(text string) string {
	var b strings.Builder
	literal, begun := false, false
	end := func() {
		if literal {
			b.WriteString(".Ed\n")
		}
		literal = false
	}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, " \n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case line == "":
			end()
			if begun {
				b.WriteString(".Pp\n")
			}
			begun = false
			continue
		case indented && !literal:
			b.WriteString(".Bd -literal -compact\n")
			literal = true
		case !indented:
			end()
			line = sentences(line)
		}
		begun = true
		for part := range strings.SplitSeq(line, "\n") {
			b.WriteString(roff(part) + "\n")
		}
	}
	end()
	return b.String()
}

// sentences puts each sentence of a line on a line of its own, as mdoc wants it.
func sentences(line string) string {
	words := strings.Fields(line)
	var b strings.Builder
	for i, word := range words {
		b.WriteString(word)
		if i+1 == len(words) {
			break
		}
		next, end := words[i+1][0], len(word)-1
		switch ends := end > 0 && strings.ContainsRune(".!?", rune(word[end])) && word[end-1] != '.'; {
		case ends && (next == '"' || next >= 'A' && next <= 'Z'):
			b.WriteByte('\n')
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// roff keeps text from being read as a request, and quotes and hyphens as they are.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
