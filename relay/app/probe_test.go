package app

import (
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// The queue takes no mail, and has none with which its workers could test an API
// that was down: then the mail of clients does it, one at a time.
func TestClientsProbeWhenTheQueueCannot(t *testing.T) {
	inVirtualTime(t, "", func(w *world) {
		full := *w.now.config()
		full.Queue.MinFree = 1 << 60
		_, err := w.now.reload(t.Context(), &full)
		w.must(err)
		w.must(w.box.SetOutage(sandbox.OutageUnavailable))
		for i := range 20 {
			if got := w.hand("shop@sandbox.example", "s", "bob@example.net"); !strings.HasPrefix(got, "452") {
				t.Fatalf("mail %d during the outage: %s", i, got)
			}
		}
		if !w.now.accounts[0].pace.State().Breaker.Open {
			t.Fatal("the breaker is closed")
		}
		before := w.box.Stats().Calls
		minutes := harness.Scaled(15, 60)
		for range 60 * minutes {
			w.hand("shop@sandbox.example", "s", "bob@example.net")
			w.pass(time.Second)
		}
		if n := w.box.Stats().Calls - before; n < minutes || n > minutes+15 { // after a minute at most once a minute
			t.Errorf("%d calls in %d minutes of outage", n, minutes)
		}
		w.must(w.box.SetOutage(sandbox.OutageNone))
		w.pass(time.Minute)
		for i := range 3 {
			if got := w.hand("shop@sandbox.example", "s", "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 accepted") {
				t.Errorf("mail %d after the outage: %s", i, got)
			}
		}
	})
}

// While the queue takes mail no client waits for the test of an API that hangs.
func TestClientsDoNotProbeWhenTheQueueCan(t *testing.T) {
	inVirtualTime(t, "", func(w *world) {
		w.must(w.box.SetOutage(sandbox.OutageUnavailable))
		for range 10 {
			w.hand("shop@sandbox.example", "s", "bob@example.net")
		}
		w.must(w.box.SetOutage(sandbox.OutageHang))
		for range harness.Scaled(300, 1000) {
			begun := time.Now()
			got := w.hand("shop@sandbox.example", "s", "bob@example.net")
			if took := time.Since(begun); took > 0 || !strings.HasPrefix(got, "250 2.0.0 queued") {
				t.Fatalf("%s after %s", got, took)
			}
			w.pass(time.Second)
		}
	})
}
