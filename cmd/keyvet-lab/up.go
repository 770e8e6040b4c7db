package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

type upOptions struct {
	dir, thing, addr    string
	claim, quotas, jitr bool
}

// up puts up one healthy device and keeps its TPM and its cloud running.
func up(ctx context.Context, opts upOptions, out io.Writer) error {
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
	fmt.Fprintf(out, `thing     %s
TPM       %s
endpoint  %s (CA %s)
config    %s

Try, in another terminal:
  keyvet check -config %[5]s
  keyvet run -once -config %[5]s
  keyvet status -config %[5]s

  export KEYVET_LAB=%[6]s
  keyvet-lab things
  keyvet-lab job create %[1]s
  keyvet-lab help

Ctrl-C ends it. Reports that arrive:
`, opts.thing, d.tpm.Address(), cloud.Endpoint(), cloud.CAFile(), d.config, dir)
	for {
		m, err := cloud.WaitMessage(ctx, "keyvet/+/report")
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		fmt.Fprintf(out, "%s  %s\n", m.Time.Format("15:04:05"), summary(m.Payload))
	}
}
