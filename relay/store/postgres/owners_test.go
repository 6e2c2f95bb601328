package postgres

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
)

// newMail is a mail of a lane.
func newMail(lane string, recipients ...string) queue.Mail {
	now := time.Now()
	m := queue.NewMail(relay.Message{ID: relay.NewID(now), From: lane, Recipients: recipients, Raw: []byte("Subject: x\r\n\r\nhello\r\n"), ReceivedAt: now})
	m.Lane, m.Domain = lane, "example.com"
	return m
}

func (q opened) put(t testing.TB, mails ...queue.Mail) {
	t.Helper()
	must(t, q.Enqueue(t.Context(), mails...))
}

func (q opened) claimAll(t testing.TB, max int) []queue.Claim {
	t.Helper()
	claims, err := q.Claim(t.Context(), queue.ClaimRequest{Now: time.Now(), Max: max})
	must(t, err)
	return claims
}

func done(c queue.Claim) queue.Settlement {
	return queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now(), Outcome: relay.Outcome{Kind: relay.Accepted, Status: 200}}
}

func addrs(claims []queue.Claim) string {
	var all []string
	for _, c := range claims {
		all = append(all, c.Addr)
	}
	return fmt.Sprint(all)
}

// cut ends what a queue does by itself, as if its machine had stopped.
func (q opened) cut() { q.stop(); q.loops.Wait() }

// expire has a lease end now by the clock of the database.
func expire(t testing.TB, d *DB, id int64) {
	d.exec(t, "UPDATE smtp2rest.relays SET expires = clock_timestamp() - interval '1 ms' WHERE id = $1", id)
}

// TestTwoOwners: two relays share a queue. What one claims the other does not get,
// until the lease ends; then it is claimed again, as an attempt of which nobody knows
// what became, and the first one's word comes too late.
func TestTwoOwners(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(s.Database())
	a, b := start(t, Options{URL: url, Queue: queue.Options{ForgetSent: true}}), start(t, Options{URL: url, Queue: queue.Options{ForgetSent: true}})
	a.put(t, newMail("x@example.com", "1", "2"), newMail("y@example.com", "3"))
	mine, theirs := a.claimAll(t, 1), b.claimAll(t, 1)
	if got := addrs(slices.Concat(mine, theirs)); got != "[1 3]" {
		t.Fatalf("claimed %s: the lanes take turns over both relays", got)
	}
	n, err := b.Hold(t.Context(), queue.Filter{Recipient: "1"})
	if must(t, err); n != 1 {
		t.Fatalf("%d held", n)
	}
	n, err = b.Release(t.Context(), queue.Filter{Recipient: "1"})
	if must(t, err); n != 1 {
		t.Fatalf("%d released", n)
	}
	a.cut()
	if freed, err := b.number(t.Context(), "SELECT smtp2rest.reap_1($1, $2)", b.lease.owner(), partLease); err != nil || freed != 0 {
		t.Fatalf("%d freed while the lease holds, %v", freed, err)
	}
	if got := addrs(b.claimAll(t, 5)); got != "[2]" {
		t.Fatalf("claimed %s while the lease holds", got)
	}
	expire(t, b.d, a.lease.owner())
	if freed, err := b.number(t.Context(), "SELECT smtp2rest.reap_1($1, $2)", b.lease.owner(), partLease); err != nil || freed != 1 {
		t.Fatalf("%d freed, %v", freed, err)
	}
	if _, err := a.Claim(t.Context(), queue.ClaimRequest{Now: time.Now(), Max: 1}); !errors.Is(err, errNoLease) {
		t.Fatalf("a claim without a lease: %v", err)
	}
	again := b.claimAll(t, 5)
	if addrs(again) != "[1]" || !again[0].Unknown || again[0].Attempt != 2 || again[0].Token.Fence <= mine[0].Token.Fence {
		t.Fatalf("claimed again: %+v", again)
	}
	// The owner that is gone cannot settle any more; its loops have ended, so by the function.
	if err := a.settleSome([]call[*settle]{{what: &settle{what: []queue.Settlement{done(mine[0])}}}}); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Get(t.Context(), again[0].Token.Mail); err != nil || m.Recipients[0].State != queue.Claimed {
		t.Fatalf("%+v, %v", m.Recipients, err)
	}
	must(t, b.Settle(t.Context(), done(again[0])))
}

// TestLeaseEnds: a relay that cannot renew claims nothing more, and its claims are lost
// before its lease ends. When the database is back it goes on.
func TestLeaseEnds(t *testing.T) {
	s := pgtest.Start(t)
	a := start(t, Options{URL: s.URL(s.Database()), lease: 6 * time.Second})
	a.put(t, newMail("x@example.com", "1", "2"))
	c := a.claimAll(t, 1)[0]
	begun := time.Now()
	s.Stop()
	<-c.Lost
	if took := time.Since(begun); took > 6*time.Second {
		t.Errorf("lost after %s, and the lease is 6 s", took)
	}
	if _, err := a.Claim(t.Context(), queue.ClaimRequest{Now: time.Now(), Max: 1}); err == nil {
		t.Error("claimed without a lease")
	}
	s.Restart()
	var again []queue.Claim
	for len(again) < 2 {
		claims, err := a.Claim(t.Context(), queue.ClaimRequest{Now: time.Now(), Max: 2})
		if err != nil {
			wait(t.Context(), 50*time.Millisecond)
			continue
		}
		again = append(again, claims...)
	}
	if addrs(again) != "[1 2]" && addrs(again) != "[2 1]" {
		t.Errorf("claimed %s", addrs(again))
	}
	for _, c := range again {
		must(t, a.Settle(t.Context(), done(c)))
	}
}

// TestClockApart: a relay whose clock is an hour off makes nothing due too early or too
// late for another, and reads times by its own clock.
func TestClockApart(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(s.Database())
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		right := start(t, Options{URL: url})
		wrong := start(t, Options{URL: url, now: func() time.Time { return time.Now().Add(off) }})
		m := newMail("x@example.com", "now", "later")
		m.Message.ReceivedAt = time.Now().Add(off)
		m.Recipients[1].Due = time.Now().Add(off + 10*time.Minute)
		wrong.put(t, m)
		if got := addrs(right.claimAll(t, 5)); got != "[now]" {
			t.Errorf("%s off: the other claims %s", off, got)
		}
		at, ok, err := right.NextDue(t.Context(), queue.ClaimRequest{Now: time.Now()})
		must(t, err)
		if in := time.Until(at); !ok || in < 9*time.Minute || in > 11*time.Minute {
			t.Errorf("%s off: due in %s for the other", off, in)
		}
		got, err := wrong.Get(t.Context(), m.Message.ID)
		must(t, err)
		if d := got.Recipients[1].Due.Sub(m.Recipients[1].Due); d.Abs() > time.Second {
			t.Errorf("%s off: its own time came back %s apart", off, d)
		}
		n, err := right.Drop(t.Context(), queue.Filter{})
		if must(t, err); n != 2 {
			t.Errorf("%d dropped", n)
		}
	}
}

// TestLostClaim: what was claimed by a statement whose answer was lost waits again, as if
// it had not been claimed.
func TestLostClaim(t *testing.T) {
	s := pgtest.Start(t)
	a := start(t, Options{URL: s.URL(s.Database())})
	a.put(t, newMail("x@example.com", "1", "2"))
	a.claimAll(t, 1)
	a.d.exec(t, "SELECT smtp2rest.claim_1($1, '', $2, 0, 5, '{}', '{}', '{}', false)", a.lease.owner(), time.Now().UnixMilli())
	if got := addrs(a.claimAll(t, 5)); got != "[]" {
		t.Fatalf("claimed %s", got)
	}
	a.lease.lostAnswer()
	a.lease.tidy(t.Context())
	claims := a.claimAll(t, 5)
	if addrs(claims) != "[2]" || claims[0].Unknown || claims[0].Attempt != 1 {
		t.Fatalf("claimed %+v", claims)
	}
}

// TestLostAndThere: a relay whose claims are Lost goes on as another, although its lease
// has not ended in the database yet, so that what nobody settled is claimed again.
func TestLostAndThere(t *testing.T) {
	s := pgtest.Start(t)
	a := start(t, Options{URL: s.URL(s.Database()), lease: time.Hour})
	a.put(t, newMail("x@example.com", "1"))
	c, before := a.claimAll(t, 1)[0], a.lease.owner()
	a.lease.mu.Lock()
	a.lease.timer.Reset(0)
	a.lease.mu.Unlock()
	<-c.Lost
	must(t, a.lease.renew(t.Context()))
	if a.lease.owner() == before {
		t.Fatal("it is the same owner")
	}
	expire(t, a.d, before)
	a.lease.tidy(t.Context())
	again := a.claimAll(t, 1)
	if addrs(again) != "[1]" || !again[0].Unknown {
		t.Fatalf("claimed %+v", again)
	}
	must(t, a.Settle(t.Context(), done(again[0])))
}
