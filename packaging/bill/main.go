// Command bill lists the modules linked into the device binary, with their
// checksums and licences, and the licences of those in the other programs. It
// writes them as an SBOM, as the copyright files of the packages, and as the two
// include files of the Yocto recipe.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const usage = `usage:
  bill sbom BINARY VERSION   CycloneDX of a built binary
  bill copyright [-tools]    the licences of all that is linked, with their texts
  bill yocto [-C DIR]        writes keyvet-go-mods.inc and keyvet-licenses.inc

To be run in the keyvet module.
`

// recipeDir is where the include files of the recipe are, from the module's root.
const recipeDir = "yocto/meta-keyvet/recipes-security/keyvet"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bill: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command\n" + usage)
	}
	fs := flag.NewFlagSet("bill", flag.ContinueOnError)
	dir, ofTools := fs.String("C", recipeDir, ""), fs.Bool("tools", false, "")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	programs := []string{device}
	if *ofTools {
		programs = tools
	}
	linked, err := linkedModules(programs...)
	if err != nil {
		return err
	}
	switch {
	case args[0] == "sbom" && fs.NArg() == 2:
		return sbom(out, fs.Arg(0), fs.Arg(1), linked)
	case args[0] == "copyright" && fs.NArg() == 0:
		return copyright(out, linked)
	case args[0] == "yocto" && fs.NArg() == 0:
		files, err := recipeFiles(linked)
		if err != nil {
			return err
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(*dir, name), content, 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("wrong usage\n" + usage)
}

// stale names the files in dir that are not as files has them.
func stale(dir string, files map[string][]byte) []string {
	var names []string
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			names = append(names, name)
		}
	}
	return names
}
