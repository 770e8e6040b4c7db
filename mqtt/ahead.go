package mqtt

import (
	"context"
	"net"
	"sync"
	"time"
)

// aheadFor is how long a connection that was made ahead is held: a server ends one
// on which nothing comes.
const aheadFor = 5 * time.Second

// ahead is a connection that is made before a session is asked for.
type ahead struct {
	cancel context.CancelFunc

	mu   sync.Mutex
	conn net.Conn // nil: not made yet, failed, taken or given up
}

// Ahead begins to connect to the first endpoint: it looks up the name and makes the
// TCP connection, and sends nothing over it. A Dial within five seconds has it, if
// it is there by then. The credential is not used, and need not be known.
func (d *Dialer) Ahead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, aheadFor)
	a := &ahead{cancel: cancel}
	d.network.early = a
	cfg := d.cfg
	go func() {
		conn, err := d.through(&cfg)(ctx, "tcp", cfg.Endpoints[0])
		if err != nil {
			return // a Dial has the same trouble, and says so
		}
		a.mu.Lock()
		a.conn = conn
		a.mu.Unlock()
		<-ctx.Done() // taken, given up or too old
		if conn := a.take(); conn != nil {
			conn.Close()
		}
	}()
}

func (a *ahead) take() net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.conn
	a.conn = nil
	return conn
}

// made returns the connection that was made ahead to an endpoint; nil if there is
// none.
func (d *Dialer) made(endpoint string) net.Conn {
	a := d.network.early
	d.network.early = nil
	if a == nil || endpoint != d.cfg.Endpoints[0] {
		return nil
	}
	conn := a.take()
	a.cancel()
	return conn
}
