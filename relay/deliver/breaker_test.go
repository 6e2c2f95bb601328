package deliver

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// starts returns when calls came, counted from the first.
func starts(calls []sandbox.Call) []time.Duration {
	var all []time.Duration
	for _, c := range calls {
		all = append(all, c.Time.Sub(calls[0].Time))
	}
	return all
}

// gaps returns the times between calls.
func gaps(calls []sandbox.Call) []time.Duration {
	var all []time.Duration
	for i := 1; i < len(calls); i++ {
		all = append(all, calls[i].Time.Sub(calls[i-1].Time).Round(time.Millisecond))
	}
	return all
}

// subjects returns the subjects of accepted calls, in order.
func subjects(calls []sandbox.Call) []string {
	var all []string
	for _, c := range calls {
		if c.MessageID != "" {
			all = append(all, c.Subject)
		}
	}
	return all
}

// While the API is down, only one probe at a time is claimed, with growing gaps. The
// rest of the queue uses no attempts.
func TestAnOutageIsCheap(t *testing.T) {
	inBubble(t, plan{workers: 1}, func(r *rig) {
		r.must(r.box.SetOutage(sandbox.OutageUnavailable))
		var ids []string
		for range 100 {
			ids = append(ids, r.keep(shop, "s", "bob@example.net"))
		}
		r.pass(time.Hour)
		calls := r.calls("")
		if len(calls) < 20 {
			r.t.Fatalf("%d calls in an hour of outage", len(calls))
		}
		want := []time.Duration{0, 0, 0, 0} // five failures open it
		for gap := 2 * time.Second; len(want) < len(calls)-1; gap = min(gap*2, time.Minute) {
			want = append(want, gap)
		}
		if got := gaps(calls); !slices.Equal(got, want) {
			t.Errorf("the gaps between calls are %v, want %v", got, want)
		}
		tried, attempts := 0, 0
		for _, id := range ids {
			rcpt := r.mail(id).Recipients[0]
			attempts += rcpt.Attempts
			if rcpt.Attempts > 0 {
				tried++
			}
		}
		if attempts != len(calls) || tried > len(calls) {
			t.Errorf("%d calls spent %d attempts of %d mails", len(calls), attempts, tried)
		}
		if s := r.pace.State().Breaker; !s.Open {
			t.Error("the breaker is closed")
		}
		if n := r.log.count("breaker open"); n != 1 {
			t.Errorf("the log says %d times that the breaker is open", n)
		}
	})
}

// While a probe hangs, there is no other call.
func TestOneProbeAtATime(t *testing.T) {
	inBubble(t, plan{workers: 6}, func(r *rig) {
		r.must(r.box.SetOutage(sandbox.OutageHang))
		for range 100 {
			r.keep(shop, "s", "bob@example.net")
		}
		r.pass(time.Minute) // the first calls time out
		before := len(r.calls(""))
		if !r.pace.State().Breaker.Open || before > 14 {
			r.t.Fatalf("%d calls, breaker %+v", before, r.pace.State().Breaker)
		}
		for range 3600 {
			r.pass(time.Second)
			if n := r.box.Stats().InFlight; n > 1 {
				r.t.Fatalf("%d calls at once", n)
			}
		}
		if after := len(r.calls("")); after == before {
			t.Error("nobody probes")
		}
	})
}

// When the API is back, the backlog drains in order, at the account's rate, without a
// burst.
func TestTheBacklogDrainsInOrderWithoutABurst(t *testing.T) {
	const mails = 60
	inBubble(t, plan{rate: 5, burst: 20, workers: 1}, func(r *rig) {
		r.must(r.box.SetKey("another"))
		var want []string
		for i := range mails {
			subject := string(rune('A'+i/10)) + string(rune('0'+i%10))
			r.keep(shop, subject, "bob@example.net")
			want = append(want, subject)
			r.pass(time.Second)
		}
		r.pass(time.Hour)
		refused := len(r.calls(""))
		r.must(r.box.SetKey(key))
		r.pass(time.Hour)
		calls := r.calls("")[refused:]
		if len(calls) != mails {
			r.t.Fatalf("%d calls, want %d", len(calls), mails)
		}
		if got := subjects(calls); !slices.Equal(got, want) {
			t.Errorf("the order is %v", got)
		}
		for i, gap := range gaps(calls) {
			if gap < 200*time.Millisecond {
				t.Errorf("%s between calls %d and %d at a rate of 5/s", gap, i, i+1)
			}
		}
		if all := starts(calls); all[mails-1] > 13*time.Second {
			t.Errorf("it took %s", all[mails-1])
		}
	})
}

// A refused key opens the breaker at once. However long that lasts, no mail fails or
// bounces for it. When the key works, mail flows again by itself.
func TestAWrongKeyLosesNoMail(t *testing.T) {
	inBubble(t, plan{schedule: hours(6)}, func(r *rig) {
		first := r.keep(shop, "before", "bob@example.net")
		r.pass(time.Minute)
		r.wantStates(first, "sent")
		r.must(r.box.SetKey("rotated"))
		var ids []string
		for range 30 {
			ids = append(ids, r.keep(shop, "s", "bob@example.net", "ann@example.net"))
		}
		r.pass(time.Second)
		if n := r.box.Stats().ByStatus[401]; n < 1 || n > 4 { // as many as there are workers
			t.Errorf("%d calls were refused before the breaker opened", n)
		}
		r.pass(12 * time.Hour)
		for _, id := range ids {
			r.wantStates(id, "waiting waiting")
			for _, rcpt := range r.mail(id).Recipients {
				if rcpt.Attempts != 0 {
					t.Errorf("a refused key spent %d attempts", rcpt.Attempts)
				}
			}
		}
		if r.log.count("level=ERROR", "breaker open", "the API refuses the key") != 1 {
			t.Error("the log does not say loudly that the key is refused")
		}
		r.must(r.box.SetKey(key))
		r.pass(2 * time.Minute) // the longest gap between probes is one
		for _, id := range ids {
			r.wantStates(id, "sent sent")
		}
		if n := len(r.bounces()); n != 0 {
			t.Errorf("%d bounces for the operator's mistake", n)
		}
	})
}

// Whoever corrects the key does not have to wait for the next of the rare probes.
func TestAKeyThatWasMendedIsTriedAtOnce(t *testing.T) {
	inBubble(t, plan{schedule: hours(6)}, func(r *rig) {
		r.must(r.box.SetKey("rotated"))
		id := r.keep(shop, "s", "bob@example.net")
		r.pass(12 * time.Hour)
		r.wantStates(id, "waiting")
		r.must(r.box.SetKey(key))
		r.pace.Probe()
		r.engine.use(r.options(slog.New(slog.DiscardHandler)).Settings)
		r.pass(time.Second)
		r.wantStates(id, "sent")
	})
}

// If the API refuses some mails, whatever it answers, that is no outage for others. A
// few mails that always fail must not be used for every probe.
func TestMailsThatAlwaysFailHoldUpNobody(t *testing.T) {
	for _, bad := range []string{"forbidden@example.net", "down@example.net"} {
		inBubble(t, plan{schedule: retry.Schedule{First: 5 * time.Second, Max: 15 * time.Minute, MaxAge: 48 * time.Hour}}, func(r *rig) {
			for range 12 {
				r.keep(shop, "bad", bad)
			}
			good := r.keep(shop, "good", "bob@example.net")
			other := r.keep("other@sandbox.example", "good", "ann@example.net")
			r.pass(10 * time.Minute)
			r.wantStates(good, "sent")
			r.wantStates(other, "sent")
		})
	}
}

// An application whose sender the API always forbids (403) goes on sending. Its mail
// is kept, tried later and later, and never bounces. All other mail is sent as if it
// were not there.
func TestASenderThatIsForbiddenHoldsUpNobody(t *testing.T) {
	inBubble(t, plan{schedule: retry.Schedule{First: time.Minute, Max: time.Hour, MaxAge: 48 * time.Hour}}, func(r *rig) {
		var bad []string
		for i := range 40 {
			bad = append(bad, r.keep("unverified@sandbox.example", "bad", fmt.Sprintf("forbidden+x%d@example.net", i)))
			r.pass(8 * time.Second)
			good := r.keep(shop, "good", "bob@example.net")
			r.pass(2 * time.Second)
			if i > 0 {
				r.wantStates(good, "sent")
			}
		}
		if n := r.log.count("breaker open"); n != 1 {
			t.Errorf("the API was taken to be down %d times", n)
		}
		before := r.box.Stats().ByStatus[403]
		r.pass(60 * time.Hour)
		for _, id := range bad {
			r.wantStates(id, "waiting")
		}
		if n := r.box.Stats().ByStatus[403] - before; n > len(bad)*60*3 {
			t.Errorf("%d calls for %d mails in 60 hours", n, len(bad))
		}
		if n := len(r.bounces()); n > 0 {
			t.Errorf("%d bounces", n)
		}
	})
}

// If very many senders have mail that the API cannot take, a good sender's turn does
// not come after all of theirs.
func TestManySendersOfBadMailHoldUpNobody(t *testing.T) {
	for _, bad := range []string{"forbidden", "down", "reset"} {
		inBubble(t, plan{schedule: retry.Schedule{First: 5 * time.Second, Max: 15 * time.Minute, MaxAge: 48 * time.Hour}}, func(r *rig) {
			keepBad := func(i int) {
				r.keep(fmt.Sprintf("a%d@sandbox.example", i), "bad", fmt.Sprintf("%s+x%d@example.net", bad, i))
			}
			for i := range 60 {
				keepBad(i)
			}
			r.pass(time.Minute)
			r.wantSentSoon(bad)
			for i := range 60 { // and they go on
				keepBad(60 + i)
				r.pass(time.Second)
			}
			r.wantSentSoon(bad)
		})
	}
}

func (r *rig) wantSentSoon(what string) {
	r.t.Helper()
	good := r.keep("zoe@sandbox.example", "good", "bob@example.net")
	for waited := time.Duration(0); r.mail(good).Recipients[0].State != queue.Sent; waited += time.Second {
		if waited > 3*time.Minute {
			r.t.Fatalf("%s: good mail waits for longer than the next two probes", what)
		}
		r.pass(time.Second)
	}
}
