// Command image is of the build host: it writes keyvet's configuration into an
// image from the variables of a build system, and refuses an image in which
// keyvet could not work, by the rules that keyvet itself has on the device.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

func main() { cli.Main(program(os.Getenv)) }

// program is of one environment.
func program(env func(string) string) *cli.Program {
	v := variables(env)
	return &cli.Program{
		Name:  "keyvet-image",
		About: "keyvet-image configures keyvet in the image of a device, on the build host.",
		Notes: `The environment has the variables of the build system, such as
KEYVET_ENDPOINTS="HOST:PORT ..." (docs/images.md).

exit status: 0 well, 2 wrong`,
		Commands: []cli.Command{
			{
				Name: "write", Args: "DIR", Short: "write keyvet's configuration into an image", Least: 1, Most: 1,
				Long: "Writes the files of keyvet's configuration below DIR, from the environment.",
				New: func(*flag.FlagSet) cli.Action {
					return func(_ context.Context, s cli.IO, args []string) int { return v.write(args[0]).say(s) }
				},
			},
			{
				Name: "check", Args: "DIR", Short: "refuse an image on which keyvet could not work", Least: 1, Most: 1,
				Long: `Reads the root file system at DIR as keyvet will on the device, and says what
keyvet would refuse, by keyvet's own rules.`,
				New: func(f *flag.FlagSet) cli.Action {
					readOnly := f.Bool("read-only", false, "the root file system is mounted read-only")
					return func(_ context.Context, s cli.IO, args []string) int { return v.check(args[0], *readOnly).say(s) }
				},
			},
		},
	}
}

// say says what there is to say, and returns the exit status.
func (o outcome) say(s cli.IO) int {
	line := func(text string) { fmt.Fprintln(s.Err, cli.Wrap(text, cli.Width(s.Err), 0, 2)) }
	for _, text := range o.warnings {
		line("warning: " + text)
	}
	for _, err := range o.wrong {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			line("error: " + text)
		}
	}
	if len(o.wrong) > 0 || !o.done {
		return cli.Usage
	}
	return cli.Pass
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
