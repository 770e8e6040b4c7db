// Keyvet-blocklist builds, verifies and inspects the lists of weak keys that
// keyvet looks keys up in. It runs on the build host.
package main

import (
	"context"
	"errors"
	"io/fs"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

var program = &cli.Program{
	Name:    "keyvet-blocklist",
	About:   "keyvet-blocklist makes the lists of weak keys (.kvf) in which keyvet looks.",
	Version: version, Commit: commit,
	Notes: `FILE "embedded" is the list inside this program. The sets of weak keys that
Debian's OpenSSL made (CVE-2008-0166) are rsa1024, rsa2048, rsa3072, rsa4096,
p256, p384 and p521, those of its ssh-keygen rsa1024-ssh to rsa4096-ssh.

exit status: 0 all is well, 1 a list or the data is bad, 2 wrong usage,
3 a file could not be read or written, or the run was interrupted`,
	Examples: []string{
		"keyvet-blocklist build -out weak.kvf -data sets -sets rsa2048,rsa4096",
		`keyvet-blocklist build -out ours.kvf -spki-sha256 leaked.txt -name "leaked in 2024"`,
		"keyvet-blocklist verify -data sets weak.kvf",
		"keyvet-blocklist verify -sample 100 embedded",
		"keyvet-blocklist inspect -json embedded",
	},
	Commands: []cli.Command{
		{
			Name: "generate", Short: "make the keys of a set, 32,768 for each origin",
			Long: `Makes the keys of a set and writes their fingerprints to DIR. Started again
after an interruption, it resumes. RSA-2048 takes hours and RSA-4096 days of a
core, P-256 and P-384 minutes, P-521 longer.`,
			New: generate,
		},
		{Name: "build", Short: "make a list", New: build},
		{Name: "verify", Args: "FILE", Short: "check structure and digest of a list, and that keys are found", Least: 1, Most: 1, New: verify},
		{Name: "inspect", Args: "FILE", Short: "show what a list covers", Least: 1, Most: 1, New: inspect},
	},
}

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = ""
)

// errUsage marks an error in the command line.
type errUsage struct{ error }

func main() { cli.Main(program) }

// action has the exit status say what an error means.
func action(do func(ctx context.Context, s cli.IO, args []string) error) cli.Action {
	return func(ctx context.Context, s cli.IO, args []string) int {
		err := do(ctx, s, args)
		var wrong errUsage
		var path *fs.PathError
		switch {
		case err == nil:
			return cli.Pass
		case errors.As(err, &wrong):
			return s.Misused(err.Error())
		case errors.Is(err, context.Canceled):
			s.Fail(errors.New("interrupted"))
			return cli.Undecided
		}
		s.Fail(err)
		if errors.As(err, &path) {
			return cli.Undecided
		}
		return cli.Fail
	}
}
