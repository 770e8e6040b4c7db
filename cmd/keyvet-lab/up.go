package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

type upOptions struct {
	dir, thing, addr    string
	bad                 string // a key of bad; "" is a healthy device
	claim, quotas, jitr bool
}

// up puts up one device and keeps its TPM and its cloud running.
func up(ctx context.Context, opts upOptions, out io.Writer) error {
	wrong, known := bad[opts.bad]
	switch err := awsiot.CheckThingName(opts.thing); {
	case err != nil:
		return fmt.Errorf("-thing: %w", err)
	case opts.bad != "" && !known:
		return fmt.Errorf("-bad %q: give roca, debian or firmware", opts.bad)
	case opts.bad == "debian" && opts.claim:
		return errors.New("-bad debian is about the key of a certificate that the device has: leave out -claim")
	}
	dir := opts.dir
	if dir == "" {
		temp, err := os.MkdirTemp("", "keyvet-lab-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		dir = temp
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cloudOptions := localiot.Options{Dir: cloudDir(dir), Addr: opts.addr, Quotas: opts.quotas, JITR: opts.jitr}
	if opts.addr != "" {
		host, _, err := net.SplitHostPort(opts.addr)
		if err != nil || host == "" {
			return fmt.Errorf("-addr %q is not host:port", opts.addr)
		}
		cloudOptions.Names = []string{host}
	}
	cloud, err := localiot.Start(cloudOptions)
	if err != nil {
		return err
	}
	defer cloud.Close()
	socket, err := control(dir, cloud)
	if err != nil {
		return err
	}
	defer socket.Close()
	d, err := newDevice(ctx, cloud, filepath.Join(dir, opts.thing), opts.thing, opts.claim)
	if err != nil {
		return err
	}
	defer d.tpm.Stop()
	if err := d.boot(); err != nil {
		return err
	}
	state := "healthy"
	if known {
		cleanup, err := wrong.spoil(d, cloud)
		if err != nil {
			return err
		}
		defer cleanup()
		state = strings.ToLower(wrong.title[:1]) + wrong.title[1:] + ": check and run exit 1"
	}
	if !d.fresh && opts.bad != "firmware" {
		state = "as it was left"
	}
	keyvet, lab := "keyvet", "keyvet-lab"
	if _, err := exec.LookPath(keyvet); err != nil {
		if beside, err := neighbour(keyvet); err == nil {
			keyvet, lab = beside, filepath.Join(filepath.Dir(beside), lab)
		}
	}
	style := terminal.Of(out)
	io.WriteString(out, style.Rows([]terminal.Row{
		{Name: "thing", Values: []string{opts.thing}}, {Name: "state", Values: []string{state}}, {Name: "TPM", Values: []string{d.tpm.Address()}},
		{Name: "endpoint", Values: []string{cloud.Endpoint() + " (CA " + cloud.CAFile() + ")"}}, {Name: "config", Values: []string{d.config}},
	}))
	fmt.Fprintf(out, `
Try, in another terminal:
  %[4]s check -config %[2]s
  %[4]s run -once -config %[2]s
  %[4]s status -config %[2]s
  %[6]s -once    (with the log of its boot)

  export KEYVET_LAB=%[3]s
  %[5]s things
  %[5]s report %[1]s
  %[5]s job create %[1]s
  %[5]s help

Ctrl-C ends it. Reports that arrive:
`, opts.thing, d.config, dir, keyvet, lab, d.runScript())
	for {
		m, err := cloud.WaitMessage(ctx, "keyvet/+/report")
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		io.WriteString(out, style.Text(m.Time.Format("15:04:05")+"  "+summary(m.Payload)))
	}
}
