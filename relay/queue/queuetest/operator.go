package queuetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var operatorTests = []test{
	{"hold and release", queue.Options{}, holdRelease},
	{"hold what is being tried", queue.Options{}, holdClaimed},
	{"retry what waits", queue.Options{}, retryWaiting},
	{"retry what failed", queue.Options{}, retryFailed},
	{"drop", queue.Options{}, drop},
	{"drop the last but the sent", queue.Options{}, dropPartly},
	{"many at once", queue.Options{}, manyAtOnce},
	{"stats", queue.Options{}, stats},
	{"damaged", queue.Options{}, damaged},
	{"damaged while being tried", queue.Options{}, damagedClaimed},
}

var listTests = []test{
	{"filters", queue.Options{}, filters},
	{"pages", queue.Options{}, pages},
	{"what an entry says", queue.Options{}, entry},
	{"a bad cursor", queue.Options{}, func(s *suite) {
		if _, _, err := s.List(s.ctx, queue.Filter{Cursor: "nonsense"}); err == nil {
			s.Fatalf("no error")
		}
	}},
}

// list is all addresses that match, over all pages.
func (s *suite) list(f queue.Filter) string {
	s.Helper()
	var all []string
	for {
		entries, next, err := s.List(s.ctx, f)
		s.must(err)
		for _, e := range entries {
			all = append(all, e.Recipient.Addr)
		}
		if f.Cursor = next; next == "" {
			return strings.Join(all, " ")
		}
	}
}

// applied checks how many recipients an operator's call applied to.
func (s *suite) applied(n int, err error, want int) {
	s.Helper()
	s.must(err)
	if n != want {
		s.Fatalf("applied to %d recipients, want %d", n, want)
	}
}

func holdRelease(s *suite) {
	id := s.put("a@b", "1", "2", "3")
	other := s.put("a@b", "other")
	n, err := s.Hold(s.ctx, queue.Filter{ID: id, Recipient: "2"})
	s.applied(n, err, 1)
	s.equal("claims", addrs(s.claim(9)), "1 3 other")
	s.reopen()
	s.equal("states", s.states(id), "waiting held waiting")
	_ = other
	for _, c := range s.claim(9) {
		s.must(s.Settle(s.ctx, s.done(c)))
	}
	s.woken()
	n, err = s.Release(s.ctx, queue.Filter{ID: id})
	s.applied(n, err, 1)
	if !s.woken() {
		s.Fatalf("Release does not wake")
	}
	s.equal("claims", addrs(s.claim(9)), "2")
	// A held recipient keeps its due time.
	m := s.mail("a@b", "late")
	m.Recipients[0].Due = s.now.Add(time.Hour)
	s.must(s.Enqueue(s.ctx, m))
	f := queue.Filter{ID: m.Message.ID}
	n, err = s.Hold(s.ctx, f)
	s.applied(n, err, 1)
	n, err = s.Hold(s.ctx, f)
	s.applied(n, err, 0)
	n, err = s.Release(s.ctx, f)
	s.applied(n, err, 1)
	s.equal("claims", addrs(s.claim(9)), "")
	s.now = s.now.Add(time.Hour)
	s.must(s.Settle(s.ctx)) // nothing to settle is no error
	s.equal("claims", addrs(s.claim(9)), "late")
}

func holdClaimed(s *suite) {
	id := s.put("a@b", "1", "2", "3", "4")
	claims := s.claim(4)
	n, err := s.Hold(s.ctx, queue.Filter{ID: id})
	s.applied(n, err, 4)
	n, err = s.Release(s.ctx, queue.Filter{ID: id, Recipient: "4"})
	s.applied(n, err, 1)
	s.equal("states", s.states(id), "sending sending sending sending")
	s.must(s.Settle(s.ctx, s.later(claims[0], s.now), s.done(claims[1]), s.later(claims[3], s.now)))
	s.equal("states", s.states(id), "held sent sending waiting")
	s.reopen()
	s.equal("claims", addrs(s.claim(9)), "4")
	s.equal("states", s.states(id), "held sent held sending")
	s.must(s.Settle(s.ctx, s.done(claims[2]))) // late, but nobody else has it
	s.equal("states", s.states(id), "held sent sent sending")
}

func retryWaiting(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.later(s.claimOne(), s.now.Add(time.Hour))))
	s.woken()
	n, err := s.Retry(s.ctx, queue.Filter{ID: id}, s.now)
	s.applied(n, err, 1)
	if !s.woken() {
		s.Fatalf("Retry does not wake")
	}
	s.equal("attempt", s.claimOne().Attempt, 2)
	n, err = s.Retry(s.ctx, queue.Filter{ID: id}, s.now)
	s.applied(n, err, 0)
}

func retryFailed(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	s.now = s.now.Add(time.Hour)
	n, err := s.Retry(s.ctx, queue.Filter{States: []queue.State{queue.Failed}}, s.now)
	s.applied(n, err, 1)
	s.equal("count", s.count(), "waiting 1, sending 0, held 0, sent 0, failed 0, mails 1, unbounced 0")
	s.equal("bounces", s.bounces(0), "")
	st, err := s.Stats(s.ctx)
	s.must(err)
	if !st.Oldest.Equal(noon) {
		s.Fatalf("oldest %v, want %v", st.Oldest, noon)
	}
	c := s.claimOne()
	if c.Attempt != 1 || !c.Since.Equal(s.now) {
		s.Fatalf("claim: %+v", c)
	}
	s.equal("history", len(s.get(id).Recipients[0].History), 1)
	s.must(s.Settle(s.ctx, s.done(c)))
	s.equal("states", s.states(id), "sent")
}

func drop(s *suite) {
	id := s.put("a@b", "1", "2", "3")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.gaveUp(claims[0])))
	n, err := s.Drop(s.ctx, queue.Filter{ID: id})
	s.applied(n, err, 3)
	_, err = s.Get(s.ctx, id)
	s.wantErr(err, queue.ErrNotFound)
	_, err = s.raw(id)
	s.wantErr(err, queue.ErrNotFound)
	s.wantErr(s.Settle(s.ctx, s.later(claims[1], s.now)), queue.ErrStale)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
	s.reopen()
	s.equal("claims", len(s.claim(9)), 0)
}

func dropPartly(s *suite) {
	id := s.put("a@b", "1", "2", "3")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	n, err := s.Drop(s.ctx, queue.Filter{ID: id, Recipient: "1"})
	s.applied(n, err, 1)
	m := s.get(id)
	s.equal("numbers", fmt.Sprint(m.Recipients[0].Number, m.Recipients[1].Number), "1 2")
	c := s.claimOne()
	s.equal("number", c.Token.Recipient, 2)
	n, err = s.Drop(s.ctx, queue.Filter{ID: id})
	s.applied(n, err, 1) // sent ones stay listed
	s.equal("states", s.states(id), "sent")
	_, err = s.raw(id)
	s.wantErr(err, queue.ErrNotFound)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 1, failed 0, mails 0, unbounced 0")
}

func manyAtOnce(s *suite) {
	const n = 1300
	for range 13 {
		m := s.mail("a@b")
		for range n / 13 {
			m.Recipients = append(m.Recipients, queue.Recipient{Addr: "x"})
		}
		s.must(s.Enqueue(s.ctx, m))
	}
	got, err := s.Hold(s.ctx, queue.Filter{})
	s.applied(got, err, n)
	s.equal("claims", len(s.claim(9)), 0)
	got, err = s.Release(s.ctx, queue.Filter{States: []queue.State{queue.Held}})
	s.applied(got, err, n)
	got, err = s.Drop(s.ctx, queue.Filter{Sender: "A@b"})
	s.applied(got, err, n)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
}

func stats(s *suite) {
	st, err := s.Stats(s.ctx)
	s.must(err)
	if !st.Oldest.IsZero() || st.Bytes != 0 {
		s.Fatalf("empty: %+v", st)
	}
	m := s.mail("a@b", "1", "2")
	s.must(s.Enqueue(s.ctx, m))
	s.now = s.now.Add(time.Minute)
	held := s.mail("c@d", "3")
	s.must(s.Enqueue(s.ctx, held))
	n, err := s.Hold(s.ctx, queue.Filter{ID: held.Message.ID})
	s.applied(n, err, 1)
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[0])))
	for range 2 {
		st, err = s.Stats(s.ctx)
		s.must(err)
		if !st.Oldest.Equal(noon) || st.Bytes != m.Size+held.Size {
			s.Fatalf("stats: %+v", st)
		}
		s.reopen()
	}
	s.must(s.Settle(s.ctx, s.done(s.claimOne())))
	st, err = s.Stats(s.ctx)
	s.must(err)
	if !st.Oldest.Equal(held.Message.ReceivedAt) {
		s.Fatalf("oldest: %v", st.Oldest)
	}
}

func damaged(s *suite) {
	whole := s.put("c@d", "whole")
	id := s.put("a@b", "1", "2", "3")
	n, err := s.Hold(s.ctx, queue.Filter{ID: id, Recipient: "3"})
	s.applied(n, err, 1)
	s.damage(id)
	_, err = s.raw(id)
	s.wantErr(err, queue.ErrDamaged)
	s.equal("states", s.states(id), "failed failed held")
	if !s.get(id).Damaged {
		s.Fatalf("not marked as damaged")
	}
	s.equal("bounces", s.bounces(0), id+" 0 1;")
	n, err = s.Retry(s.ctx, queue.Filter{ID: id}, s.now)
	s.applied(n, err, 0)
	s.equal("claims", addrs(s.claim(9)), "whole")
	_, err = s.raw(whole)
	s.must(err)
}

func damagedClaimed(s *suite) {
	m := s.mail("a@b", "1", "2")
	m.Message.Raw = make([]byte, 1<<20)
	s.must(s.Enqueue(s.ctx, m))
	s.damage(m.Message.ID)
	c := s.claim(1)[0]
	_, err := s.raw(m.Message.ID)
	s.wantErr(err, queue.ErrDamaged)
	s.equal("states", s.states(m.Message.ID), "sending failed")
	x := s.gaveUp(c)
	x.Outcome = relay.Outcome{Detail: err.Error()}
	s.must(s.Settle(s.ctx, x))
	s.equal("states", s.states(m.Message.ID), "failed failed")
}

func (s *suite) damage(id string) {
	s.Helper()
	s.must(s.Close())
	s.must(s.backend.Damage(id))
	s.open()
}

func filters(s *suite) {
	s.put("ann@b", "1@y", "2@y")
	first := s.list(queue.Filter{})
	s.equal("all", first, "1@y 2@y")
	s.now = s.now.Add(time.Hour)
	eve := s.put("eve@b", "3@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claim(1)[0])))
	n, err := s.Hold(s.ctx, queue.Filter{ID: eve})
	s.applied(n, err, 1)
	claimed := s.claim(1)
	s.equal("claimed", addrs(claimed), "2@y")
	for _, tt := range []struct {
		filter queue.Filter
		want   string
	}{
		{queue.Filter{}, "1@y 2@y 3@y"},
		{queue.Filter{States: []queue.State{queue.Failed}}, "1@y"},
		{queue.Filter{States: []queue.State{queue.Held}}, "3@y"},
		{queue.Filter{States: []queue.State{queue.Claimed}}, "2@y"},
		{queue.Filter{States: []queue.State{queue.Waiting}}, ""},
		{queue.Filter{States: []queue.State{queue.Held, queue.Failed}}, "1@y 3@y"},
		{queue.Filter{Sender: "Ann@B"}, "1@y 2@y"},
		{queue.Filter{Sender: "ann"}, ""},
		{queue.Filter{Recipient: "2@Y"}, "2@y"},
		{queue.Filter{From: s.now}, "3@y"},
		{queue.Filter{Until: s.now}, "1@y 2@y"},
		{queue.Filter{From: noon.Add(time.Millisecond), Until: s.now}, ""},
		{queue.Filter{ID: eve}, "3@y"},
		{queue.Filter{ID: eve[:9]}, "3@y"},
		{queue.Filter{ID: eve[:2]}, "1@y 2@y 3@y"},
		{queue.Filter{ID: eve + "x"}, ""},
		{queue.Filter{ID: eve, Sender: "ann@b"}, ""},
		{queue.Filter{ID: eve, States: []queue.State{queue.Held}}, "3@y"},
	} {
		s.equal(fmt.Sprintf("%+v", tt.filter), s.list(tt.filter), tt.want)
	}
}

func pages(s *suite) {
	var want []string
	for range 7 {
		s.put("a@b", "x", "y", "z")
		want = append(want, "x y z")
	}
	for _, limit := range []int{1, 2, 20, 21, 22} {
		s.equal(fmt.Sprint("limit ", limit), s.list(queue.Filter{Limit: limit}), strings.Join(want, " "))
		page, _, err := s.List(s.ctx, queue.Filter{Limit: limit})
		s.must(err)
		s.equal("page", len(page), min(limit, 21))
	}
}

func entry(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.later(s.claimOne(), s.now)))
	s.must(s.Settle(s.ctx, s.later(s.claimOne(), s.now.Add(time.Hour))))
	entries, next, err := s.List(s.ctx, queue.Filter{})
	s.must(err)
	s.equal("entries", fmt.Sprint(len(entries), next), "1")
	e := entries[0]
	last, ok := e.Recipient.Last()
	if e.Mail.Message.ID != id || e.Mail.Message.From != "a@b" || e.Recipient.Attempts != 2 || !ok || len(e.Recipient.History) != 1 ||
		last.Outcome.Detail != "busy" || !e.Recipient.Due.Equal(s.now.Add(time.Hour)) || e.Mail.Size == 0 {
		s.Fatalf("entry: %+v", e)
	}
}
