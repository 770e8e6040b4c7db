package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/keyvet/keyvet/mqtt/localiot"
)

// up puts up one healthy device and keeps its TPM and its cloud running.
func up(ctx context.Context, dir, thing string, out io.Writer) error {
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
	cloud, err := localiot.Start(localiot.Options{Dir: filepath.Join(dir, "cloud")})
	if err != nil {
		return err
	}
	defer cloud.Close()
	d, err := newDevice(ctx, cloud, filepath.Join(dir, thing), thing)
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

Ctrl-C ends it. Reports that arrive:
`, thing, d.tpm.Address(), cloud.Endpoint(), cloud.CAFile(), d.config)
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
