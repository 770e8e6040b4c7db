// Command image is of the build host: it writes keyvet's configuration into an
// image from the variables of a build system, and refuses an image in which
// keyvet could not work, by the rules that keyvet itself has on the device.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

const usage = `usage: image write DIR     the files of keyvet's configuration below DIR, from the
                           environment (KEYVET_ENDPOINTS="HOST:PORT …" …)
       image check [-read-only] DIR     whether keyvet can work on the root file system
                           at DIR; -read-only: it is mounted read-only
exit status: 0 well, 2 wrong
`

func main() { os.Exit(run(os.Args[1:], os.Getenv, os.Stderr)) }

func run(args []string, env func(string) string, stderr io.Writer) int {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	readOnly := f.Bool("read-only", false, "")
	if len(args) == 0 || f.Parse(args[1:]) != nil || f.NArg() != 1 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	v := variables(env)
	var o outcome
	switch args[0] {
	case "write":
		o = v.write(f.Arg(0))
	case "check":
		o = v.check(f.Arg(0), *readOnly)
	default:
		fmt.Fprint(stderr, usage)
		return 2
	}
	for _, text := range o.warnings {
		fmt.Fprintf(stderr, "warning: %s\n", text)
	}
	for _, err := range o.wrong {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "error: %s\n", line)
		}
	}
	if len(o.wrong) > 0 || !o.done {
		return 2
	}
	return 0
}

// outcome is what there is to say of an image.
type outcome struct {
	warnings []string
	wrong    []error
	done     bool // all of it was looked at
}

func (o *outcome) fail(err error) {
	if err != nil {
		o.wrong = append(o.wrong, err)
	}
}

func (o *outcome) warn(text string) { o.warnings = append(o.warnings, text) }

// variables are those of the build.
type variables func(name string) string

const prefix = "KEYVET_"

// get returns the variable KEYVET_name.
func (v variables) get(name string) string { return strings.TrimSpace(v(prefix + name)) }

func (v variables) is(name string) bool {
	switch strings.ToLower(v.get(name)) {
	case "", "0", "no", "n", "false", "f":
		return false
	}
	return true
}

// configured reads what is below root as keyvet will on the device, where a
// file that is made there may follow, and says what it lacks.
func (v variables) configured(root string, o *outcome) *config.Config {
	config.Root = root
	c, err := config.Load("")
	if err != nil {
		o.fail(relative(root, err))
		return nil
	}
	if lacks := c.ReadyToRun(); lacks != nil && v.is("PARTIAL") {
		o.warn(strings.ReplaceAll(lacks.Error(), "\n", "; ") + " (a fragment that is made on the device has to say it)")
	} else {
		o.fail(lacks)
	}
	if err := c.ReadyToRotate(); err != nil && c.Rotate.Before.Duration > 0 {
		o.fail(fmt.Errorf("rotate.before is set, but %w", err))
	}
	if name := c.Thing.Name; name != "" && name == v.get("MACHINE") {
		o.fail(fmt.Errorf("thing.name: %q is the name of the machine: every device of this image would be one thing. Set %q, \"cert:CN\" or \"template\"", name, config.NameOfEK))
	}
	return c
}

// relative takes the root off the names of files: they are the device's.
func relative(root string, err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), strings.TrimSuffix(root, "/")+"/", "/"))
}
