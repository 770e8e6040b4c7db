package cli

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

func (p *Program) help(s IO, args []string) int {
	if len(args) == 0 || len(args) == 1 && args[0] == "help" {
		return s.print(p.Overview())
	}
	c, rest := p.find(args)
	switch {
	case c == nil && p.first(args[0]+" ") != "":
		var lines strings.Builder
		for _, c := range p.Commands {
			if strings.HasPrefix(c.Name, args[0]+" ") {
				fmt.Fprintln(&lines, p.usageLine(&c))
			}
		}
		return s.print(lines.String())
	case c == nil:
		return p.unknown(s, args)
	case len(rest) > 0:
		return s.Misused("help takes one command")
	}
	return s.print(p.HelpOn(c))
}

// Overview is the text of `help`.
func (p *Program) Overview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nusage: %s COMMAND ...\n\n", p.About, p.Name)
	all := append(p.commands(), Command{Name: "help", Args: "[COMMAND]", Short: "this text, or all about a command"})
	wide := 0
	for _, c := range all {
		wide = max(wide, len(c.Name))
	}
	for _, c := range all {
		fmt.Fprintf(&b, "  %-*s  %s\n", wide, c.Name, c.Short)
	}
	if p.Notes != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(p.Notes))
	}
	if len(p.Examples) > 0 {
		fmt.Fprintf(&b, "\nexamples:\n")
		for _, e := range p.Examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	return b.String()
}

// HelpOn is the text of `help COMMAND`.
func (p *Program) HelpOn(c *Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s\n", p.usageLine(c))
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if flags := flagsOf(c); len(flags) > 0 {
		wide := 0
		for _, f := range flags {
			wide = max(wide, len(f.head()))
		}
		b.WriteByte('\n')
		for _, f := range flags {
			fmt.Fprintf(&b, "  %-*s  %s\n", wide, f.head(), Wrap(f.text, textWidth, wide+4, wide+4))
		}
	}
	if c.Notes != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Notes))
	}
	return b.String()
}

// usageLine is wrapped to the width, each further line under the first flag.
func (p *Program) usageLine(c *Command) string {
	start := p.Name + " " + c.Name
	words := []string{}
	for _, f := range flagsOf(c) {
		words = append(words, "["+f.head()+"]")
	}
	if c.Args != "" {
		words = append(words, c.Args)
	}
	line, lines := start, []string{}
	indent := strings.Repeat(" ", len("usage: ")+len(start))
	for _, w := range words {
		if len(line)+1+len(w)+len("usage: ") > textWidth && line != start {
			lines, line = append(lines, line), indent
		}
		line += " " + w
	}
	return strings.Join(append(lines, line), "\n")
}

// oneFlag is a flag as it is shown.
type oneFlag struct{ name, value, text string }

func (f oneFlag) head() string { return strings.TrimSpace("-" + f.name + " " + f.value) }

func flagsOf(c *Command) []oneFlag {
	if c.New == nil {
		return nil
	}
	set := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	c.New(set)
	var all []oneFlag
	set.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			value = ""
		}
		all = append(all, oneFlag{f.Name, value, text})
	})
	slices.SortStableFunc(all, func(a, b oneFlag) int { return strings.Compare(a.name, b.name) })
	return all
}
