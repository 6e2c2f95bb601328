package app

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// One mail that the API forbids holds up others for two seconds, however long it
// has waited; and as long as it waits, status says so.
func TestAMailThatIsForbidden(t *testing.T) {
	inVirtualTime(t, "", func(w *world) {
		whys := func() (words string) {
			local := admin.New(admin.Options{Queue: w.now.kept.queue, Version: "test", Pace: w.now.accounts[0].pace.State, Warnings: w.now.status})
			s, err := local.Status(context.Background())
			w.must(err)
			return s.State + ": " + s.Summary
		}
		w.hand("shop@sandbox.example", "bad", "forbidden@example.net")
		w.pass(time.Minute)
		for wait := time.Duration(0); wait < 30*time.Second; w.pass(time.Second) { // the next probe is far
			wait = time.Until(w.now.accounts[0].pace.State().Breaker.ProbeAt)
		}
		if got := whys(); !strings.HasPrefix(got, "degraded: the API forbids what it is sent (HTTP 403 the key may not send) since ") {
			t.Error(got)
		}
		w.hand("shop@sandbox.example", "good", "bob@example.net")
		w.pass(3 * time.Second)
		if n := w.box.Stats().ByStatus[200]; n != 1 {
			t.Errorf("%d were taken", n)
		}
		w.pass(time.Hour)
		if got := whys(); got != "degraded: the API forbids it (HTTP 403), and takes others; 1 mail waits" {
			t.Error(got)
		}
		_, err := w.now.kept.queue.Drop(context.Background(), queue.Filter{Recipient: "forbidden@example.net"})
		w.must(err)
		if got := whys(); got != "fine: mail flows; nothing waits" {
			t.Error(got)
		}
	})
}
