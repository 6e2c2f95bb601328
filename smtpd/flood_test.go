package smtpd

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// A connectionFlood opens connections as fast as it can, from some addresses,
// until the test's part is over.
type connectionFlood struct {
	t         *testing.T
	server    *Server
	addresses int

	opened, served, refused atomic.Int64
}

// run has a few clients for each way of being a nuisance, and returns when all
// have closed what they held.
func (f *connectionFlood) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range 3 {
		for _, way := range []func(ctx context.Context, c *net.TCPConn){f.leave, f.listen, f.stay} {
			all.Go(func() {
				for n := i; ctx.Err() == nil; n++ {
					from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%f.addresses))}
					d := net.Dialer{LocalAddr: from, Timeout: patience}
					conn, err := d.DialContext(ctx, "tcp", f.server.Addrs()[0].String())
					if err != nil {
						if ctx.Err() == nil {
							f.t.Errorf("connecting: %v", err)
						}
						return
					}
					f.opened.Add(1)
					all.Go(func() {
						defer conn.Close()
						_ = conn.SetDeadline(time.Now().Add(patience))
						way(ctx, conn.(*net.TCPConn))
					})
				}
			})
		}
	}
	all.Wait()
}

// leave closes at once, by a reset.
func (f *connectionFlood) leave(_ context.Context, c *net.TCPConn) { _ = c.SetLinger(0) }

// listen hears what there is to hear: a greeting, or why there is none, and
// then the end.
func (f *connectionFlood) listen(ctx context.Context, c *net.TCPConn) {
	first := make([]byte, 512)
	n, err := c.Read(first)
	switch said := string(first[:n]); {
	case strings.HasPrefix(said, "220 "):
		f.served.Add(1)
	case said == "421 4.7.0 too many connections, try again later\r\n":
		f.refused.Add(1)
		if _, err := c.Read(first); !errors.Is(err, io.EOF) {
			f.t.Errorf("after 421: %v", err)
		}
	default:
		f.t.Errorf("heard %q, %v", said, err)
	}
}

// stay says half a line and keeps the connection, if it is let in.
func (f *connectionFlood) stay(ctx context.Context, c *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	first := make([]byte, 512)
	n, err := c.Read(first)
	switch said := string(first[:n]); {
	case strings.HasPrefix(said, "220 "):
		f.served.Add(1)
		_, _ = io.WriteString(c, "EHLO fl")
		_, _ = io.Copy(io.Discard, c)
	case strings.HasPrefix(said, "421 "):
		f.refused.Add(1)
	case ctx.Err() == nil:
		f.t.Errorf("heard %q, %v", said, err)
	}
}

// Many more connections than are allowed, as fast as they come: who is beyond a
// limit is told so and is gone, what is held stays as small as the limits say,
// and where the flood comes from few addresses another is served meanwhile.
func TestFloodOfConnections(t *testing.T) {
	const inAll, perAddress = 200, 20
	for name, tt := range map[string]struct {
		addresses int
		honest    bool // are served meanwhile
	}{
		"from few addresses":                   {addresses: 8, honest: true},
		"from more than there is room for all": {addresses: 40},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			s := start(t, &fakeBackend{}, func(o *Options) {
				o.Metrics = reg
				o.Limits.Connections, o.Limits.ConnectionsPerAddress = inAll, perAddress
			})
			f := &connectionFlood{t: t, server: s, addresses: tt.addresses}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(patience, cancel) // a deadline would be an error of its own to whoever connects
			before, ended, flooded := live(), make(chan struct{}), time.Now()
			go func() { defer close(ended); f.run(ctx) }()
			var slowest time.Duration
			served, most, grown := 0, 0, int64(0)
			look := time.NewTicker(20 * time.Millisecond)
			defer look.Stop()
			for once := true; once || ctx.Err() == nil && (f.opened.Load() < int64(harness.Scaled(1000, 2000)) || f.refused.Load() == 0); <-look.C {
				once = false
				began := time.Now()
				if tt.honest {
					c := dial(t, s)
					c.data()
					c.do("x\r\n.", "250 2.0.0 queued", "QUIT", "221 ")
					_ = c.conn.Close()
					served++
				}
				slowest = max(slowest, time.Since(began))
				s.connections.mu.Lock()
				most = max(most, len(s.connections.conns))
				s.connections.mu.Unlock()
				grown = max(grown, int64(live())-int64(before))
			}
			cancel()
			<-ended
			t.Logf("%d connections in %v, %d served, %d told 421; at most %d at once, %d KiB of memory (these clients' as well); %d honest clients served, in %v at most",
				f.opened.Load(), time.Since(flooded).Round(time.Millisecond), f.served.Load(), f.refused.Load(), most, grown>>10, served, slowest)
			limits := series(t, reg, "smtp2rest_smtp_limits_total")
			told := limits[string(limitConnections)] + limits[string(limitAddress)]
			switch {
			case f.opened.Load() < 1000:
				t.Errorf("only %d connections are no flood", f.opened.Load())
			case most > inAll || tt.honest && most > tt.addresses*perAddress+1:
				t.Errorf("%d connections at once", most)
			case told < float64(f.refused.Load()) || f.refused.Load() == 0:
				t.Errorf("%v were turned away, %d heard it", told, f.refused.Load())
			case grown > 80<<20: // ten times what was seen
				t.Errorf("%d KiB of memory", grown>>10)
			}
			waitFor(t, s, 0)
			c := dial(t, s)
			c.data()
			c.do("x\r\n.", "250 2.0.0 queued")
			waitFor(t, s, 1) // those of the flood that the kernel handed over later are gone as well
			s.connections.mu.Lock()
			defer s.connections.mu.Unlock()
			if n := len(s.connections.from); n != 1 {
				t.Errorf("the server knows %d addresses", n)
			}
		})
	}
}
