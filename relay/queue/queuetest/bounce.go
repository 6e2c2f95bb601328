package queuetest

import (
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var bounceTests = []test{
	{"when nothing is open", queue.Options{}, bounceWhenDone},
	{"after the grace", queue.Options{}, bounceAfterGrace},
	{"marked with its mail in one step", queue.Options{MaxMails: 1}, bouncedOnce},
	{"nobody to tell", queue.Options{}, bounceNobody},
	{"told once, even after a retry", queue.Options{}, bounceAfterRetry},
	{"dropped meanwhile", queue.Options{}, bounceDropped},
	{"limit and order", queue.Options{}, bounceOrder},
}

// bounces lists what is due in one line: id and numbers.
func (s *suite) bounces(grace time.Duration) string {
	s.Helper()
	due, err := s.BouncesDue(s.ctx, s.now, grace, 10)
	s.must(err)
	line := ""
	for _, b := range due {
		line += b.Mail.Message.ID
		for _, r := range b.Failed {
			line += fmt.Sprint(" ", r.Number)
		}
		line += ";"
	}
	return line
}

func bounceWhenDone(s *suite) {
	id := s.put("a@b", "1", "2", "3")
	claims := s.claim(3)
	s.must(s.Settle(s.ctx, s.gaveUp(claims[0]), s.done(claims[1])))
	s.equal("one is open", s.bounces(time.Hour), "")
	s.must(s.Settle(s.ctx, s.gaveUp(claims[2])))
	s.equal("none is open", s.bounces(time.Hour), id+" 0 2;")
	due, err := s.BouncesDue(s.ctx, s.now, time.Hour, 1)
	s.must(err)
	b := due[0]
	last, ok := b.Failed[0].Last()
	if !ok || last.Outcome.Status != 422 || len(b.Mail.Recipients) != 3 || b.Mail.Message.From != "a@b" {
		s.Fatalf("bounce: %+v", b)
	}
}

func bounceAfterGrace(s *suite) {
	id := s.put("a@b", "1", "2")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claim(1)[0])))
	s.now = s.now.Add(time.Hour - time.Millisecond)
	s.equal("too early", s.bounces(time.Hour), "")
	s.now = s.now.Add(time.Millisecond)
	s.equal("after the grace", s.bounces(time.Hour), id+" 0;")
	s.now = s.now.Add(-10 * time.Hour)
	s.equal("a clock that was set back", s.bounces(time.Hour), id+" 0;")
	s.must(s.Bounced(s.ctx, id, []int{0}, nil))
	s.equal("bounced", s.bounces(time.Hour), "")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claim(1)[0])))
	s.equal("the other", s.bounces(time.Hour), id+" 1;")
}

func bouncedOnce(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	b := s.mail("", "a@b")
	b.Message.ID = queue.BounceID(id, []int{0})
	b.BounceOf = id
	for range 2 {
		s.woken()
		s.must(s.Bounced(s.ctx, id, []int{0}, &b)) // although the queue is full
		s.equal("due", s.bounces(0), "")
		s.equal("count", s.count(), "waiting 1, sending 0, held 0, sent 0, failed 1, mails 2, unbounced 0")
		s.reopen()
	}
	c := s.claimOne()
	s.equal("claim", c.Addr+c.Mail.BounceOf, "a@b"+id)
	other := b
	other.Message.ID = queue.BounceID(id, []int{0, 1})
	s.must(s.Bounced(s.ctx, id, []int{0}, &other))
	_, err := s.Get(s.ctx, other.Message.ID)
	s.wantErr(err, queue.ErrNotFound)
	if !s.get(id).Recipients[0].Bounced {
		s.Fatalf("not marked")
	}
}

func bounceNobody(s *suite) {
	id := s.put("", "x@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	s.must(s.Bounced(s.ctx, id, []int{0}, nil))
	s.equal("due", s.bounces(0), "")
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 1, mails 1, unbounced 0")
}

func bounceAfterRetry(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	s.must(s.Bounced(s.ctx, id, []int{0}, nil))
	n, err := s.Retry(s.ctx, queue.Filter{ID: id}, s.now)
	s.must(err)
	s.equal("retried", n, 1)
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	s.equal("due", s.bounces(0), "")
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 1, mails 1, unbounced 0")
}

func bounceDropped(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	n, err := s.Drop(s.ctx, queue.Filter{ID: id})
	s.must(err)
	s.equal("dropped", n, 1)
	b := s.mail("", "a@b")
	s.wantErr(s.Bounced(s.ctx, id, []int{0}, &b), queue.ErrNotFound)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
}

func bounceOrder(s *suite) {
	var ids []string
	open := s.put("a@b", "1", "2")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claim(1)[0])))
	for range 3 {
		ids = append(ids, s.put("c@d", "x@y"))
	}
	for _, c := range s.claim(10) {
		if c.Token.Mail != open {
			s.must(s.Settle(s.ctx, s.gaveUp(c)))
		}
	}
	due, err := s.BouncesDue(s.ctx, s.now, time.Hour, 2)
	s.must(err)
	s.equal("number", len(due), 2)
	s.equal("order", due[0].Mail.Message.ID+due[1].Mail.Message.ID, ids[0]+ids[1])
}
