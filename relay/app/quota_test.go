package app

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// TestQuota holds the queue's workers to the account's quota in virtual time:
// all of it is used, and almost nothing is asked in vain. BenchmarkQuota is
// the same in real time.
func TestQuota(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, tt := range []struct {
		name    string
		quota   quota
		atLeast float64
		limited float64 // at most
	}{
		{"configured", quota{10, 5, true, 0, time.Minute}, 0.98, 0.005},
		{"found", quota{5, 5, false, 2 * time.Minute, 90 * time.Second}, 0.9, 0.01},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := sandbox.New(sandbox.Options{Rate: tt.quota.allowed, Burst: tt.quota.burst, Latency: 30 * time.Millisecond, Keep: -1})
				dial, stop := servePipe(box.Handler())
				got := tt.quota.run(t, box, dial)
				stop()
				if err := box.Stop(t.Context()); err != nil {
					t.Error(err)
				}
				if got.quota < tt.atLeast || got.limited > tt.limited {
					t.Errorf("%s; want %.0f %% and at most %.1f %%", got, 100*tt.atLeast, 100*tt.limited)
				}
				t.Log(got)
			})
		})
	}
}

// BenchmarkQuota measures in real time, over a real network: a minute with the
// rate configured, and a minute after three without.
func BenchmarkQuota(b *testing.B) {
	const allowed = 50
	for _, bb := range []struct {
		name  string
		quota quota
	}{
		{"configured/burst=50", quota{allowed, allowed, true, 0, time.Minute}},
		{"configured/burst=25", quota{allowed, allowed / 2, true, 0, time.Minute}},
		{"found/burst=50", quota{allowed, allowed, false, 3 * time.Minute, time.Minute}},
		{"found/burst=25", quota{allowed, allowed / 2, false, 3 * time.Minute, time.Minute}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for range b.N {
				box := sandbox.New(sandbox.Options{Rate: allowed, Burst: bb.quota.burst, Latency: 30 * time.Millisecond, Keep: -1})
				if err := box.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				got := bb.quota.run(b, box, nil)
				if err := box.Stop(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op") // the length of the measurement says nothing
				b.ReportMetric(100*got.quota, "%quota")
				b.ReportMetric(100*got.limited, "%429")
			}
		})
	}
}

// servePipe serves HTTP on a network in memory, on which time can stand still.
func servePipe(h http.Handler) (dial func(context.Context, string, string) (net.Conn, error), stop func()) {
	l := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // until Close
	}()
	return l.dial, func() {
		_ = server.Close()
		<-done
	}
}

type pipes struct {
	conns chan net.Conn
	shut  chan struct{}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { close(l.shut); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}
