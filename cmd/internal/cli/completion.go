package cli

import (
	"fmt"
	"strings"
)

// Shells are those that [Program.Completion] knows.
var Shells = []string{"bash", "zsh", "fish"}

// Completion returns the program's completions for a shell, as a file to install.
func (p *Program) Completion(shell string) string {
	switch shell {
	case "bash":
		return p.bash()
	case "zsh":
		// zsh reads bash's own completions; one truth is enough.
		return fmt.Sprintf("#compdef %s\nautoload -U +X bashcompinit && bashcompinit\n%s", p.Name, p.bash())
	case "fish":
		return p.fish()
	}
	return ""
}

// firstWords are the first words of the commands, each once, and help.
func (p *Program) firstWords() []string {
	var words []string
	seen := map[string]bool{}
	for _, c := range append(p.commands(), Command{Name: "help"}) {
		if w, _, _ := strings.Cut(c.Name, " "); !seen[w] {
			seen[w] = true
			words = append(words, w)
		}
	}
	return words
}

// secondWords are those that follow a first word.
func (p *Program) secondWords(first string) []string {
	var words []string
	for _, c := range p.Commands {
		if w, ok := strings.CutPrefix(c.Name, first+" "); ok {
			words = append(words, w)
		}
	}
	return words
}

// isFile reports whether a flag's value is a file or a directory.
func isFile(value string) bool { return value == "F" || value == "FILE" || value == "DIR" }

// takesFiles reports whether a command's arguments are files.
func takesFiles(c Command) bool {
	return strings.Contains(c.Args, "FILE") || strings.Contains(c.Args, "REPORT") || strings.Contains(c.Args, "DIR")
}

func (p *Program) bash() string {
	var b strings.Builder
	name := "_" + strings.ReplaceAll(p.Name, "-", "_")
	fmt.Fprintf(&b, "# completions of %s, made by its own table of commands\n%s() {\n", p.Name, name)
	fmt.Fprint(&b, "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=\n")
	files, values := map[string]bool{}, map[string]bool{}
	fmt.Fprint(&b, "\tcase $prev in\n")
	for _, c := range p.commands() {
		for _, f := range flagsOf(&c) {
			switch {
			case len(p.Values[f.name]) > 0 && !values[f.name]:
				values[f.name] = true
				fmt.Fprintf(&b, "\t-%s)\n\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\treturn ;;\n", f.name, strings.Join(p.Values[f.name], " "))
			case len(p.Values[f.name]) == 0 && isFile(f.value) && !files[f.name]:
				files[f.name] = true
				fmt.Fprintf(&b, "\t-%s)\n\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n\t\treturn ;;\n", f.name)
			}
		}
	}
	fmt.Fprint(&b, "\tesac\n\tif [ \"$COMP_CWORD\" = 1 ]; then\n")
	fmt.Fprintf(&b, "\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\treturn\n\tfi\n", strings.Join(p.firstWords(), " "))
	for _, first := range p.firstWords() {
		if second := p.secondWords(first); len(second) > 0 {
			fmt.Fprintf(&b, "\tif [ \"$command\" = %s ]; then\n\t\tif [ \"$COMP_CWORD\" = 2 ]; then\n", first)
			fmt.Fprintf(&b, "\t\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\t\treturn\n\t\tfi\n\t\tcommand=\"%s ${COMP_WORDS[2]}\"\n\tfi\n", strings.Join(second, " "), first)
		}
	}
	fmt.Fprint(&b, "\tcase $command in\n")
	for _, c := range p.commands() {
		var flags []string
		for _, f := range flagsOf(&c) {
			flags = append(flags, "-"+f.name)
		}
		more := ""
		if takesFiles(c) {
			more = " files=yes"
		}
		fmt.Fprintf(&b, "\t%q) flags=%q%s ;;\n", c.Name, strings.Join(flags, " "), more)
	}
	fmt.Fprintf(&b, "\thelp) words=%q ;;\n\tesac\n", strings.Join(p.firstWords(), " "))
	fmt.Fprintf(&b, "\tcase $cur in\n\t-*) mapfile -t COMPREPLY < <(compgen -W \"$flags\" -- \"$cur\") ;;\n")
	fmt.Fprintf(&b, "\t*)\n\t\tif [ -n \"$words\" ]; then\n\t\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n")
	fmt.Fprintf(&b, "\t\telif [ -n \"$files\" ]; then\n\t\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n\t\tfi ;;\n\tesac\n}\ncomplete -o filenames -F %s %s\n", name, p.Name)
	return b.String()
}

func (p *Program) fish() string {
	var b strings.Builder
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	fmt.Fprintf(&b, "# completions of %s, made by its own table of commands\ncomplete -c %s -f\n", p.Name, p.Name)
	for _, first := range p.firstWords() {
		short := ""
		for _, c := range p.commands() {
			if c.Name == first {
				short = " -d " + quote(c.Short)
			}
		}
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -a %s%s\n", p.Name, first, short)
		for _, second := range p.secondWords(first) {
			fmt.Fprintf(&b, "complete -c %s -n '__fish_seen_subcommand_from %s' -a %s\n", p.Name, first, second)
		}
	}
	for _, c := range p.commands() {
		condition := "__fish_seen_subcommand_from " + c.Name
		if first, second, two := strings.Cut(c.Name, " "); two {
			condition = fmt.Sprintf("__fish_seen_subcommand_from %s; and __fish_seen_subcommand_from %s", first, second)
		}
		if takesFiles(c) {
			fmt.Fprintf(&b, "complete -c %s -n %s -F\n", p.Name, quote(condition))
		}
		for _, f := range flagsOf(&c) {
			more := ""
			switch {
			case len(p.Values[f.name]) > 0:
				more = " -x -a " + quote(strings.Join(p.Values[f.name], " "))
			case isFile(f.value):
				more = " -r -F"
			case f.value != "":
				more = " -x"
			}
			fmt.Fprintf(&b, "complete -c %s -n %s -o %s%s -d %s\n", p.Name, quote(condition), f.name, more, quote(firstLine(f.text)))
		}
	}
	return b.String()
}

// firstLine is as much of a text as a shell shows beside a flag.
func firstLine(text string) string {
	line, _, _ := strings.Cut(Wrap(text, 60, 0, 0), "\n")
	return line
}
