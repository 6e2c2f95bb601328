package smtpd

import (
	"cmp"
	"context"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// slowClients take memory and then keep it.
type slowClients struct {
	number    int
	announced int  // by each
	sent      int  // by each, at once
	apart     bool // each from an address of its own
	chunks    bool // by BDAT
	tls       bool
	wait      time.Duration // for memory, before a client is told to come again
}

// Clients that take memory and then send an octet at a time, above the least
// rate, do not keep it from others: neither what they announced nor, when
// somebody waits for it, what they sent.
func TestSlowClientsAndMemory(t *testing.T) {
	const half = 8 << 20 // of the budget: what mail may take while it comes
	for name, slow := range map[string]slowClients{
		"as much as is allowed, from one address": {number: 30, announced: half, wait: soon()},
		"as much as is allowed, from many":        {number: 30, announced: half, wait: soon(), apart: true},
		"together all there is":                   {number: 30, announced: half / 30, wait: soon()},
		"sent, from one address":                  {number: 8, announced: half / 8, sent: half / 8},
		"sent, from many":                         {number: 30, sent: half / 32, apart: true},
		"chunks, from many":                       {number: 8, sent: half / 8, apart: true, chunks: true},
		"in TLS, from many":                       {number: 8, sent: half / 8, apart: true, tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewPedanticRegistry()
			s := start(t, &fakeBackend{}, func(o *Options) {
				o.Memory, o.Metrics = budget.New(2*half, reg), reg
				o.Limits.IdleTime, o.Limits.MessageTime, o.Limits.MemoryWait = time.Minute, time.Minute, cmp.Or(slow.wait, o.Limits.MemoryWait)
				o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true}
			})
			ctx, cancel := context.WithCancel(t.Context())
			var clients, begun sync.WaitGroup
			defer clients.Wait()
			defer cancel()
			for i := range slow.number {
				begun.Add(1)
				clients.Go(func() { slow.run(ctx, t, s, i, begun.Done) })
			}
			begun.Wait()
			began := time.Now()
			c := dial(t, s)
			_ = c.rw.SetDeadline(time.Now().Add(time.Minute))
			c.want("220 ")
			c.do("EHLO client", "250 ", "MAIL FROM:<a@b.test> SIZE="+strconv.Itoa(5<<20), "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ")
			c.send("\r\n" + lines(5<<20-10) + ".\r\n")
			c.want("250 2.0.0 queued")
			t.Logf("an honest client was served in %v; %v slow ones gave way", time.Since(began).Round(time.Millisecond),
				series(t, reg, "smtp2rest_memory_gave_way_total")[""])
		})
	}
}

// run is one of them. It tells when it has sent what it sends at once.
func (slow slowClients) run(ctx context.Context, t *testing.T, s *Server, i int, begun func()) {
	begun = sync.OnceFunc(begun)
	defer begun()
	from := "127.0.0.1"
	if slow.apart {
		from = "127.0.0." + strconv.Itoa(i+2)
	}
	c := dialFrom(t, s, from)
	defer c.conn.Close()
	_ = c.rw.SetDeadline(time.Now().Add(time.Minute))
	c.want("220 ")
	if slow.tls {
		c.do("EHLO client", "250 ", "STARTTLS", "220 ")
		if err := c.secure(nil); err != nil {
			t.Error(err)
			return
		}
	}
	announce := ""
	if slow.announced > 0 {
		announce = " SIZE=" + strconv.Itoa(slow.announced)
	}
	c.do("EHLO client", "250 ", "MAIL FROM:<a@b.test>"+announce, "250 ", "RCPT TO:<c@d.test>", "250 ")
	content := "\r\n" + lines(slow.sent)
	if slow.chunks {
		c.send("BDAT " + strconv.Itoa(len(content)) + "\r\n" + content)
		begun()
		<-ctx.Done() // it is silent, which is allowed for a while
		return
	}
	for code := ""; code != "354"; begun() {
		if ctx.Err() != nil {
			return
		}
		c.send("DATA\r\n")
		code = c.reply()[:3]
	}
	c.send(content)
	c.dribble(ctx)
}

// dialFrom connects from an address of this machine.
func dialFrom(t testing.TB, s *Server, from string) *client {
	t.Helper()
	return dialTo(t, s.Addrs()[0].String(), from)
}

func dialTo(t testing.TB, address, from string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return newClient(t, conn)
}

// dribble sends an octet at a time, 200 in a second, until ctx ends.
func (c *client) dribble(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := io.WriteString(c.rw, "x"); err != nil {
			return
		}
	}
}

// lines is n octets, or a few less, of content.
func lines(n int) string {
	line := strings.Repeat("x", 98) + "\r\n"
	return strings.Repeat(line, n/len(line))
}

// Who had to give way hears it at the end of the message, and may send another.
func TestGivingWayIsTold(t *testing.T) {
	for name, end := range map[string]string{"DATA": "\r\n.\r\n", "BDAT": "BDAT 2 LAST\r\nxx"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &fakeBackend{}
			reg := prometheus.NewPedanticRegistry()
			s := start(t, b, func(o *Options) { o.Memory = budget.New(4<<20, reg) })
			c := dial(t, s)
			c.open()
			content := "\r\n" + lines(1<<20)
			if name == "DATA" {
				c.do("DATA", "354 ")
				c.send(content)
				for series(t, reg, "smtp2rest_memory_used_bytes")[""] < 1<<20 { // it comes
					runtime.Gosched()
				}
			} else {
				c.send("BDAT " + strconv.Itoa(len(content)) + "\r\n" + content)
				c.want("250 ")
			}
			other := dialFrom(t, s, "127.0.0.2")
			other.data()
			other.send("\r\n" + lines(3<<19) + ".\r\n")
			other.want("250 2.0.0 queued")
			c.send(end)
			c.want("452 4.3.1 out of memory")
			c.do("RSET", "250 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", "x\r\n.", "250 2.0.0 queued")
			if got := b.took(); len(got) != 2 {
				t.Errorf("took %d", len(got))
			}
		})
	}
}
