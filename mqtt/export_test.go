package mqtt

import (
	"context"
	"net"
)

// SetNetwork has connections go to a server of the test.
func (d *Dialer) SetNetwork(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	d.cfg.Network = dial
}
