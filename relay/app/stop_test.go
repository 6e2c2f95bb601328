package app

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// upload is a client that needs longer for its mail than the end lasts.
func (w *world) upload() {
	p := w.now
	p.clients.Go(func() { <-p.ctx.Done() })
}

// A client that is slow with its mail when the end begins has all of the end's
// time. Meanwhile the queue begins no calls, and those that are under way end by
// themselves: whoever has the mail does not get it again after the next start.
func TestTheEndCutsOffNoCall(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, 4 * time.Second, 9 * time.Second} {
		inVirtualTime(t, "[delivery]\nwait = \"0s\"\n", func(w *world) {
			w.must(w.box.SetLatency(takes))
			for i := range 300 {
				w.hand("shop@sandbox.example", "s", fmt.Sprintf("bob+%d@example.net", i))
			}
			w.pass(takes / 2)
			w.upload()
			w.pass(takes / 3)
			before := w.box.Stats()
			w.stop(w.now.drainTime())
			if n := w.box.Stats().Calls - before.Calls - before.InFlight; n > 0 {
				t.Errorf("%d calls began after the end did", n)
			}
			w.boot()
			w.pass(5 * time.Minute)
			if s := w.box.Stats(); s.ByStatus[200] != 300 || s.Duplicates > 0 || s.Keys != 300 {
				t.Errorf("calls of %s: %d mails were sent to %d recipients", takes, s.ByStatus[200], s.Keys)
			}
		})
	}
}

// A mail that comes late in the end is not begun with a call that the end would
// cut off: it is queued, and sent after the next start.
func TestAMailThatComesLateInTheEnd(t *testing.T) {
	for _, late := range []time.Duration{0, 5 * time.Second, 16 * time.Second, 24 * time.Second} {
		inVirtualTime(t, "", func(w *world) {
			w.must(w.box.SetLatency(9 * time.Second))
			p := w.now
			var got string
			p.clients.Go(func() {
				time.Sleep(late)
				got = w.handTo(p, "shop@sandbox.example", "s", "bob@example.net")
			})
			w.stop(p.drainTime())
			want := "250 2.0.0 accepted"
			if late > 14*time.Second {
				want = "250 2.0.0 queued"
			}
			if !strings.HasPrefix(got, want) {
				t.Errorf("after %s: %q, want %s", late, got, want)
			}
			w.boot()
			w.pass(time.Minute)
			if s := w.box.Stats(); s.ByStatus[200] != 1 || s.Calls != 1 {
				t.Errorf("after %s: %d calls, %d accepted", late, s.Calls, s.ByStatus[200])
			}
		})
	}
}
