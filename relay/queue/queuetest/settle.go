package queuetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var settleTests = []test{
	{"done", queue.Options{}, settleDone},
	{"later", queue.Options{}, settleLater},
	{"not an attempt", queue.Options{}, notAnAttempt},
	{"gave up", queue.Options{}, settleGaveUp},
	{"repeated", queue.Options{}, repeated},
	{"stale among others", queue.Options{}, staleAmongOthers},
	{"bounded history", queue.Options{}, boundedHistory},
	{"counts a mark", queue.Options{}, countsMark},
	{"forget what was sent", queue.Options{ForgetSent: true}, forgetSent},
	{"purge", queue.Options{}, purge},
	{"purge what failed", queue.Options{}, purgeFailed},
	{"nonsense", queue.Options{}, func(s *suite) {
		s.put("a@b", "x@y")
		if err := s.Settle(s.ctx, queue.Settlement{Token: s.claimOne().Token}); err == nil || errors.Is(err, queue.ErrStale) {
			s.Fatalf("a settlement without a result: %v", err)
		}
		s.wantErr(s.Settle(s.ctx, queue.Settlement{Token: queue.Token{Mail: "none"}, Result: queue.Done}), queue.ErrStale)
	}},
}

func settleDone(s *suite) {
	id := s.put("a@b", "x@y", "z@y")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[0])))
	raw, err := s.raw(id)
	s.must(err)
	if raw == "" {
		s.Fatalf("the content is gone while a recipient is open")
	}
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	s.reopen()
	s.equal("states", s.states(id), "sent sent")
	r := s.get(id).Recipients[1]
	last, _ := r.Last()
	if last.Outcome.MessageID != "msg_z@y" || last.Outcome.Status != 200 || last.Outcome.Kind != relay.Accepted || !r.Ended.Equal(s.now) {
		s.Fatalf("recipient: %+v", r)
	}
	s.equal("claims", len(s.claim(5)), 0)
}

func settleLater(s *suite) {
	id := s.put("a@b", "x@y")
	due := s.now.Add(time.Minute)
	s.must(s.Settle(s.ctx, s.later(s.claimOne(), due)))
	r := s.get(id).Recipients[0]
	if r.State != queue.Waiting || !r.Due.Equal(due) || r.Attempts != 1 {
		s.Fatalf("recipient: %+v", r)
	}
	last, _ := r.Last()
	o := last.Outcome
	s.equal("outcome", fmt.Sprintf("%v %v %v %v %v", o.Kind, o.Status, o.Detail, o.Cause, o.Took), "unavailable 503 busy private 1s")
	s.now = due
	c := s.claimOne()
	s.equal("attempt", c.Attempt, 2)
	s.must(s.Settle(s.ctx, s.later(c, time.Time{})))
	s.equal("at once", s.claimOne().Attempt, 3)
}

func notAnAttempt(s *suite) {
	id := s.put("a@b", "x@y")
	for range 3 {
		c := s.claimOne()
		s.equal("attempt", c.Attempt, 1)
		x := s.later(c, s.now)
		x.NotAnAttempt = true
		s.must(s.Settle(s.ctx, x))
	}
	r := s.get(id).Recipients[0]
	last, _ := r.Last()
	s.equal("recipient", fmt.Sprint(r.Attempts, len(r.History), last.NotAnAttempt), "0 3 true")
}

func settleGaveUp(s *suite) {
	id := s.put("a@b", "x@y", "z@y")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.gaveUp(claims[0]), s.done(claims[1])))
	s.equal("states", s.states(id), "failed sent")
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 1, failed 1, mails 1, unbounced 1")
	n, err := s.Purge(s.ctx, s.now.Add(time.Hour), 100)
	s.must(err)
	s.equal("purged", n, 0)
	_, err = s.raw(id) // kept whole
	s.must(err)
	if r := s.get(id).Recipients[0]; !r.Ended.Equal(s.now) {
		s.Fatalf("recipient: %+v", r)
	}
}

func repeated(s *suite) {
	id := s.put("a@b", "x@y")
	c := s.claimOne()
	for range 2 {
		s.must(s.Settle(s.ctx, s.later(c, s.now)))
	}
	s.must(s.Settle(s.ctx, s.done(c))) // the first word stands
	s.must(s.Settle(s.ctx, s.gaveUp(c), s.gaveUp(c)))
	r := s.get(id).Recipients[0]
	s.equal("recipient", fmt.Sprint(r.State, r.Attempts, len(r.History)), "waiting 1 1")
	c = s.claimOne()
	s.must(s.Settle(s.ctx, s.done(c), s.done(c)))
	s.must(s.Settle(s.ctx, s.done(c)))
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 1, failed 0, mails 0, unbounced 0")
}

func staleAmongOthers(s *suite) {
	s.put("a@b", "1", "2", "3")
	old := s.claim(3)
	s.reopen()
	again := s.claim(1)
	err := s.Settle(s.ctx, s.done(old[0]), s.done(old[1]), s.done(old[2]))
	var stale *queue.StaleError
	if !errors.As(err, &stale) || len(stale.Tokens) != 1 || stale.Tokens[0] != old[0].Token {
		s.Fatalf("error %v", err)
	}
	s.equal("states", s.states(again[0].Token.Mail), "sending sent sent")
}

func boundedHistory(s *suite) {
	id := s.put("a@b", "x@y")
	for range queue.MaxHistory + 5 {
		s.must(s.Settle(s.ctx, s.later(s.claimOne(), s.now)))
		s.now = s.now.Add(time.Second)
	}
	r := s.get(id).Recipients[0]
	s.equal("history", len(r.History), queue.MaxHistory)
	s.equal("attempts", r.Attempts, queue.MaxHistory+5)
	if want := s.now.Add(-time.Second); !r.History[len(r.History)-1].Started.Equal(want) {
		s.Fatalf("the latest is %v, want %v", r.History[len(r.History)-1].Started, want)
	}
}

func countsMark(s *suite) {
	s.put("a@b", "1", "2")
	claims := s.claim(2)
	x, y := s.done(claims[0]), s.later(claims[1], s.now)
	x.Count, y.Count = "warm/b", "warm/b"
	s.must(s.Settle(s.ctx, x, y, x))
	s.must(s.Settle(s.ctx, x))
	stale := s.done(claims[1])
	stale.Token.Fence--
	stale.Count = "warm/b"
	s.wantErr(s.Settle(s.ctx, stale), queue.ErrStale)
	s.reopen()
	v, err := s.Mark(s.ctx, "warm/b")
	s.must(err)
	s.equal("mark", v, "2")
}

func forgetSent(s *suite) {
	id := s.put("a@b", "x@y", "z@y")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[0])))
	s.equal("states", s.states(id), "sent sending")
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	_, err := s.Get(s.ctx, id)
	s.wantErr(err, queue.ErrNotFound)
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
	// A failure keeps the whole mail, until it is dropped.
	id = s.put("a@b", "x@y", "z@y")
	claims = s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[0]), s.gaveUp(claims[1])))
	s.equal("states", s.states(id), "sent failed")
	n, err := s.Drop(s.ctx, queue.Filter{ID: id})
	s.must(err)
	s.equal("dropped", n, 1)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
}

func purge(s *suite) {
	for range 5 {
		s.put("a@b", "x@y", "z@y")
		for _, c := range s.claim(2) {
			s.must(s.Settle(s.ctx, s.done(c)))
		}
		s.now = s.now.Add(time.Minute)
	}
	open := s.put("a@b", "x@y")
	before := noon.Add(3*time.Minute - time.Second) // the first three
	total := 0
	for {
		n, err := s.Purge(s.ctx, before, 2)
		s.must(err)
		if n == 0 {
			break
		}
		total += n
	}
	s.equal("purged", total, 6)
	s.equal("count", s.count(), "waiting 1, sending 0, held 0, sent 4, failed 0, mails 1, unbounced 0")
	s.equal("states", s.states(open), "waiting")
}

// What failed long ago is removed when its sender was told, and nothing else is.
func purgeFailed(s *suite) {
	told := func(id string, recipients ...int) { s.must(s.Bounced(s.ctx, id, recipients, nil)) }
	fail := func(to ...string) string {
		id := s.put("a@b", to...)
		for _, c := range s.claim(len(to)) {
			s.must(s.Settle(s.ctx, s.gaveUp(c)))
		}
		s.now = s.now.Add(time.Minute)
		return id
	}
	for range 5 {
		told(fail("x@y", "z@y"), 0, 1)
	}
	untold := fail("x@y")
	retried := fail("retried@y")
	told(retried, 0)
	half := s.put("a@b", "failed@y", "held@y")
	n, err := s.Hold(s.ctx, queue.Filter{Recipient: "held@y"})
	s.applied(n, err, 1)
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	told(half, 0)
	n, err = s.Retry(s.ctx, queue.Filter{ID: retried}, s.now)
	s.applied(n, err, 1)
	s.now = s.now.Add(time.Hour)
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	told(retried, 0)
	late := s.now
	s.now = s.now.Add(time.Minute)

	purge := func(before time.Time) (total int) {
		for {
			n, err := s.PurgeFailed(s.ctx, before, 2)
			s.must(err)
			if n == 0 {
				return total
			}
			if n > 2 {
				s.Fatalf("%d in a step of 2", n)
			}
			total += n
		}
	}
	s.equal("the first three", purge(noon.Add(3*time.Minute-time.Second)), 3)
	s.equal("the others", purge(late), 2)
	s.equal("states", s.states(untold)+", "+s.states(retried)+", "+s.states(half), "failed, failed, failed held")
	s.equal("counts", s.failed(), "3 mails, 2 failed")
	told(untold, 0)
	s.equal("and what was told since", purge(s.now), 2)
	s.reopen()
	s.equal("counts", s.failed(), "1 mails, 0 failed")
	s.equal("sent mail", purge(s.now), 0)
}
