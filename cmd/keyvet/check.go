package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/accept"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/format"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

var checkCommand = cli.Command{
	Name: "check", Args: "[FILE|DIR ...]", Most: -1,
	Short: "test keys here and now; changes nothing, needs no network",
	Long: `Tests keys here and now. It changes nothing that the TPM keeps, and needs no
network. With FILEs or DIRs it tests only those, and the TPM if -tpm is given;
without, all that the configuration names: the TPM, the device's certificate and
key, its CA certificates and further files.

FILE is a certificate, chain, CSR, CRL, public or private key in PEM, DER or JWK
(PKCS#1, PKCS#7, PKCS#8, SEC 1, SPKI), an OpenSSH or SSH2 key, certificate,
authorized_keys or known_hosts, an OpenPGP key, a TPM2B_PUBLIC or TPMT_PUBLIC,
or a TSS2 PRIVATE KEY. It may be a pipe; "-" is standard input. Every object in
a file is tested; one that cannot be read is named. The certificates of the
other FILEs are looked up in a CRL.

Of a DIR and those below it every regular file is searched for keys. Links are
not followed. A file that holds no key is counted; one that is meant to hold a
key, but cannot be read, is named and leaves the verdict open.`,
	Notes: `exit status: 0 pass (warnings included), 1 a key or the firmware fails,
2 wrong usage or configuration, 3 undecided: something could not be checked`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+", if it is there")
		address := f.String("tpm", "", "`ADDR` of the TPM: /dev/tpmrm0, unix:PATH or tcp:HOST:PORT (raw TPM commands, as swtpm), spi:/dev/spidevB.C[?speed=10MHz], i2c:/dev/i2c-N[?addr=0x2e]")
		lists := cli.Files(f, "blocklist", "look keys up in the list `F`, too; repeatable")
		only := f.String("only", "", "ask only these checks: `ID,...`")
		failOn := f.String("fail-on", "", "a finding below this `SEVERITY` (low, medium, high, critical) does not fail the exit status")
		accepted := f.String("accept", "", "count the findings that `F` names as warnings, besides those of the configuration (keyvet.toml(5), \"Accepting a finding\")")
		form := f.String("format", "", "`FORM` of the output: "+strings.Join(formNames(), ", "))
		asJSON := f.Bool("json", false, "the same as -format json")
		thorough := f.Bool("thorough", false, "search Debian's generator for keys that no list covers: minutes to hours of all processors; resumed after an interruption")
		verbose := f.Bool("v", false, "also show what passed")
		return func(ctx context.Context, s cli.IO, files []string) int {
			o, err := readOutput(*form, *asJSON, *failOn)
			if err != nil {
				return s.Misused("check: " + err.Error())
			}
			asked, err := checkIDs(*only)
			if err != nil {
				return s.Misused("check: " + err.Error())
			}
			cfg, err := config.Load(*configPath)
			if err != nil {
				s.Fail(err)
				return cli.Usage
			}
			var further []device.Acceptance
			if given(f, "accept") {
				if further, err = accept.Load(*accepted); err != nil {
					s.Fail(err)
					return cli.Usage
				}
			}
			if *address != "" {
				if err := tpm.CheckAddress(*address); err != nil {
					return s.Misused(fmt.Sprintf("check: -tpm %q: %v", *address, err))
				}
			}
			if given(f, "tpm") || len(files) > 0 {
				cfg.TPM.Address = *address
			}
			c := &vet.Check{
				Config: *cfg, Agent: maker(), Progress: screen{s}.progress, Blocklists: *lists,
				Files: files, Accept: further, Stdin: vet.Stdin{Reader: s.In, Typed: cli.IsTerminal(s.In)}, Only: asked, Verbose: *verbose || o.form == "junit",
			}
			if *thorough {
				if len(asked) > 0 && !slices.Contains(asked, "debian") {
					return s.Misused("check: -thorough is about the check debian, which -only leaves out")
				}
				c.Thorough = &vet.Thorough{Show: newSearchLine(s.Err).show}
				if dir, err := os.UserCacheDir(); err == nil {
					c.Thorough.Dir = filepath.Join(dir, "keyvet")
				}
			}
			if os.Getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(softLimit)
			}
			r := c.Report(ctx, device.TriggerManual)
			return screen{s}.report(r, o)
		}
	},
}

// softLimit is what a check of many files keeps to, if it can, in bytes.
const softLimit = 90 << 20

// configUsage begins the text of the flag -config.
const configUsage = "configuration `F` (default /etc/keyvet/keyvet.toml and its fragments)"

// given reports whether a flag is on the command line.
func given(f *flag.FlagSet, name string) (yes bool) {
	f.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

// output is how the result of a check is shown, and what it takes to fail.
type output struct {
	form  string
	least device.Severity // of a finding that fails the exit status
}

// forms are how a report can be shown.
var forms = map[string]func(screen, *device.Report) error{
	"table": screen.table,
	"json":  func(s screen, r *device.Report) error { return s.json(r) },
	"line":  func(s screen, r *device.Report) error { return format.Line(s.Out, r) },
	"sarif": func(s screen, r *device.Report) error { return format.SARIF(s.Out, r) },
	"junit": func(s screen, r *device.Report) error { return format.JUnit(s.Out, r) },
}

func formNames() []string { return []string{"table", "line", "json", "sarif", "junit"} }

func readOutput(form string, asJSON bool, failOn string) (o output, err error) {
	switch {
	case asJSON && form != "" && form != "json":
		return o, fmt.Errorf("-json and -format %s are two forms", form)
	case asJSON:
		form = "json"
	}
	o = output{cmp.Or(form, "table"), device.Severity(strings.ToUpper(cmp.Or(failOn, string(device.Low))))}
	if forms[o.form] == nil {
		return o, fmt.Errorf("-format %q: %s", form, oneOf(form, formNames()))
	}
	if !slices.Contains(device.Severities, o.least) {
		var names []string
		for _, s := range device.Severities {
			names = append(names, strings.ToLower(string(s)))
		}
		return o, fmt.Errorf("-fail-on %q: %s", failOn, oneOf(failOn, names))
	}
	return o, nil
}

// checkIDs reads a list of the ids of checks.
func checkIDs(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	var ids []string
	for id := range strings.SplitSeq(list, ",") {
		id = strings.TrimSpace(id)
		if !slices.Contains(vet.Checks(), id) {
			return nil, fmt.Errorf("-only %q: %s", id, oneOf(id, vet.Checks()))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// oneOf says what a word must be, and which was meant.
func oneOf(word string, names []string) string {
	text := "must be one of " + strings.Join(names, ", ")
	if n, ok := cli.Nearest(strings.ToLower(word), names); ok {
		text = fmt.Sprintf("did you mean %q? It %s", n, text)
	}
	return text
}

// report shows a report, and returns the exit status that it asks for.
func (s screen) report(r *device.Report, o output) int {
	if err := forms[o.form](s, r); err != nil {
		s.Fail(fmt.Errorf("write the result: %w", err))
		return cli.Undecided
	}
	return exitStatus(r.VerdictFrom(o.least))
}
