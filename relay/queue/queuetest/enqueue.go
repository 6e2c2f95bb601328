package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var enqueueTests = []test{
	{"kept as it came", queue.Options{}, keptAsItCame},
	{"sizes", queue.Options{}, sizes},
	{"the same id is the same mail", queue.Options{MaxMails: 1}, sameID},
	{"all or none", queue.Options{MaxMails: 2}, allOrNone},
	{"full of bytes", queue.Options{MaxBytes: 1000}, fullOfBytes},
	{"a reserve for bounces", queue.Options{MaxMails: 1}, reserveOfMails},
	{"a reserve of bytes for bounces", queue.Options{MaxBytes: 1000}, reserveOfBytes},
	{"failed mail takes no place of mail that waits", queue.Options{MaxMails: 2}, failedApart},
	{"sent mail takes no room", queue.Options{MaxMails: 1}, sentTakesNoRoom},
	{"partly settled", queue.Options{}, partlySettled},
	{"nothing to do", queue.Options{}, nothingToDo},
	{"refused", queue.Options{}, refused},
	{"wakes", queue.Options{}, enqueueWakes},
	{"cancelled", queue.Options{}, cancelled},
	{"concurrent", queue.Options{}, concurrentEnqueue},
}

func keptAsItCame(s *suite) {
	m := s.mail("ann@example.com", "bob@example.net", "eve@example.net")
	m.Message.Raw = []byte("From: x\r\n\r\n\x00\xff.\r\n")
	m.Urgent, m.BounceOf = true, "other"
	s.must(s.Enqueue(s.ctx, m))
	for range 2 {
		got := s.get(m.Message.ID)
		s.equal("lane", got.Lane+got.Domain, "ann@example.comexample.com")
		s.equal("flags", fmt.Sprint(got.Urgent, got.BounceOf, got.Damaged), "trueotherfalse")
		s.equal("size", got.Size, len(m.Message.Raw))
		s.equal("client", got.Message.Client, m.Message.Client)
		s.equal("from", got.Message.From, m.Message.From)
		if !got.Message.ReceivedAt.Equal(s.now) {
			s.Fatalf("received %v, want %v", got.Message.ReceivedAt, s.now)
		}
		if got.Message.Raw != nil || len(got.Recipients) != 2 {
			s.Fatalf("Get: %+v", got)
		}
		for n, r := range got.Recipients {
			if r.Number != n || r.Addr != m.Recipients[n].Addr || r.State != queue.Waiting || r.Attempts != 0 || !r.Since.Equal(s.now) {
				s.Fatalf("recipient %d: %+v", n, r)
			}
		}
		raw, err := s.raw(m.Message.ID)
		s.must(err)
		s.equal("raw", []byte(raw), m.Message.Raw)
		s.reopen()
	}
	_, err := s.Get(s.ctx, "nobody")
	s.wantErr(err, queue.ErrNotFound)
	_, err = s.raw("nobody")
	s.wantErr(err, queue.ErrNotFound)
}

func sizes(s *suite) {
	empty := s.mail("a@b", "x@y")
	empty.Message.Raw = nil
	s.must(s.Enqueue(s.ctx, empty))
	raw, err := s.raw(empty.Message.ID)
	s.must(err)
	s.equal("empty", raw, "")
	for _, n := range []int{0, 1, 4000, 4096, 100_000, 128 << 10, 128<<10 + 1, 3 << 20} {
		m := s.mail("a@b", "x@y")
		m.Message.Raw = bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n]
		s.must(s.Enqueue(s.ctx, m))
		s.reopen()
		raw, err := s.raw(m.Message.ID)
		s.must(err)
		if raw != string(m.Message.Raw) {
			s.Fatalf("a mail of %d bytes came back different, %d bytes", n, len(raw))
		}
	}
}

func sameID(s *suite) {
	m := s.mail("a@b", "x@y")
	s.must(s.Enqueue(s.ctx, m))
	again := m
	again.Message.Raw = bytes.Repeat([]byte("x"), 300_000)
	again.Lane = "other@b"
	s.must(s.Enqueue(s.ctx, again)) // even though the queue is full
	s.equal("lane", s.get(m.Message.ID).Lane, "a@b")
	s.must(s.Settle(s.ctx, s.done(s.claimOne())))
	s.must(s.Enqueue(s.ctx, again))
	s.equal("states", s.states(m.Message.ID), "sent")
	s.equal("claims", len(s.claim(10)), 0)
	twice := s.mail("a@b", "x@y")
	s.must(s.Enqueue(s.ctx, twice, twice))
	s.equal("count", s.count(), "waiting 1, sending 0, held 0, sent 1, failed 0, mails 1, unbounced 0")
}

func allOrNone(s *suite) {
	s.put("a@b", "x@y")
	two := []queue.Mail{s.mail("a@b", "x@y"), s.mail("a@b", "x@y")}
	s.wantErr(s.Enqueue(s.ctx, two...), queue.ErrFull)
	s.equal("count", s.count(), "waiting 1, sending 0, held 0, sent 0, failed 0, mails 1, unbounced 0")
	for _, m := range two {
		_, err := s.Get(s.ctx, m.Message.ID)
		s.wantErr(err, queue.ErrNotFound)
	}
	s.must(s.Enqueue(s.ctx, two[0]))
	s.reopen()
	s.wantErr(s.Enqueue(s.ctx, two[1]), queue.ErrFull)
}

func fullOfBytes(s *suite) {
	m := s.mail("a@b", "x@y")
	m.Message.Raw = make([]byte, 1001)
	s.wantErr(s.Enqueue(s.ctx, m), queue.ErrFull)
	m.Message.Raw = make([]byte, 600)
	s.must(s.Enqueue(s.ctx, m))
	n := s.mail("a@b", "x@y")
	n.Message.Raw = make([]byte, 401)
	s.wantErr(s.Enqueue(s.ctx, n), queue.ErrFull)
	n.Message.Raw = make([]byte, 400)
	s.must(s.Enqueue(s.ctx, n))
	st, err := s.Stats(s.ctx)
	s.must(err)
	s.equal("bytes", st.Bytes, 1000)
	dropped, err := s.Drop(s.ctx, queue.Filter{ID: m.Message.ID})
	s.must(err)
	s.equal("dropped", dropped, 1)
	s.must(s.Enqueue(s.ctx, s.mail("a@b", "x@y")))
}

// bounceMail is a bounce of so many bytes.
func (s *suite) bounceMail(size int) queue.Mail {
	b := s.mail("", "a@b")
	b.BounceOf, b.Urgent = "other", true
	b.Message.Raw = make([]byte, size)
	return b
}

func reserveOfMails(s *suite) {
	s.put("a@b", "x@y")
	s.wantErr(s.Enqueue(s.ctx, s.bounceMail(10), s.mail("a@b", "x@y")), queue.ErrFull)
	for n := 0; n < queue.ReservedMails; n += 100 {
		var bounces []queue.Mail
		for range 100 {
			bounces = append(bounces, s.bounceMail(10))
		}
		s.must(s.Enqueue(s.ctx, bounces...))
	}
	s.wantErr(s.Enqueue(s.ctx, s.bounceMail(10)), queue.ErrFull)
	s.wantErr(s.Enqueue(s.ctx, s.mail("a@b", "x@y")), queue.ErrFull)
	s.reopen()
	s.equal("count", s.count(), "waiting 1001, sending 0, held 0, sent 0, failed 0, mails 1001, unbounced 0")
}

func reserveOfBytes(s *suite) {
	full := s.mail("a@b", "x@y")
	full.Message.Raw = make([]byte, 1000)
	s.must(s.Enqueue(s.ctx, full))
	for range 2 {
		s.must(s.Enqueue(s.ctx, s.bounceMail(queue.ReservedBytes/2)))
	}
	s.wantErr(s.Enqueue(s.ctx, s.bounceMail(1)), queue.ErrFull)
}

func sentTakesNoRoom(s *suite) {
	first := s.put("a@b", "x@y", "z@y")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.done(claims[0])))
	s.wantErr(s.Enqueue(s.ctx, s.mail("a@b", "x@y")), queue.ErrFull)
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	_, err := s.raw(first)
	s.wantErr(err, queue.ErrNotFound)
	s.put("a@b", "x@y")
}

func partlySettled(s *suite) {
	m := s.mail("a@b", "sent@y", "failed@y", "told@y", "held@y", "later@y", "now@y")
	tried := queue.Attempt{Started: s.now, Outcome: relay.Outcome{Kind: relay.Ambiguous, Detail: "no answer", Cause: errors.New("eof")}}
	for i, state := range []queue.State{queue.Sent, queue.Failed, queue.Failed, queue.Held, queue.Waiting, queue.Waiting} {
		r := &m.Recipients[i]
		r.State, r.Attempts, r.History = state, 1, []queue.Attempt{tried}
		if state == queue.Sent || state == queue.Failed {
			r.Ended = s.now
		}
	}
	m.Recipients[2].Bounced = true
	m.Recipients[4].Due = s.now.Add(time.Hour)
	s.must(s.Enqueue(s.ctx, m))
	s.equal("count", s.count(), "waiting 2, sending 0, held 1, sent 1, failed 2, mails 1, unbounced 1")
	c := s.claimOne()
	s.equal("claim", fmt.Sprint(c.Addr, c.Attempt, c.Unknown, c.Token.Recipient), "now@y2 false 5")
	last, ok := s.get(m.Message.ID).Recipients[5].Last()
	if !ok || last.Outcome.Kind != relay.Ambiguous || last.Outcome.Cause.Error() != "eof" || !last.Started.Equal(s.now) {
		s.Fatalf("history: %+v", last)
	}
	s.now = s.now.Add(time.Hour)
	s.must(s.Settle(s.ctx, s.done(c)))
	s.equal("claim", s.claimOne().Addr, "later@y")
}

func nothingToDo(s *suite) {
	m := s.mail("a@b", "x@y")
	m.Recipients[0] = queue.Recipient{Addr: "x@y", State: queue.Sent, Ended: s.now}
	s.must(s.Enqueue(s.ctx, m))
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 1, failed 0, mails 0, unbounced 0")
	n, err := s.Purge(s.ctx, s.now.Add(time.Second), 10)
	s.must(err)
	s.equal("purged", n, 1)
}

func refused(s *suite) {
	claimed := s.mail("a@b", "x@y")
	claimed.Recipients[0].State = queue.Claimed
	nameless := s.mail("a@b", "x@y")
	nameless.Message.ID = ""
	for _, m := range []queue.Mail{claimed, nameless, s.mail("a@b")} {
		if err := s.Enqueue(s.ctx, s.mail("a@b", "x@y"), m); err == nil {
			s.Fatalf("enqueued %+v", m)
		}
	}
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
}

func enqueueWakes(s *suite) {
	s.woken()
	s.put("a@b", "x@y")
	s.put("a@b", "x@y")
	if !s.woken() || s.woken() {
		s.Fatalf("Wake has not exactly one value after two mails")
	}
}

func cancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.wantErr(s.Enqueue(ctx, s.mail("a@b", "x@y")), context.Canceled)
	_, err := s.Claim(ctx, queue.ClaimRequest{Now: s.now, Max: 1})
	s.wantErr(err, context.Canceled)
	_, _, err = s.List(ctx, queue.Filter{})
	s.wantErr(err, context.Canceled)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 0, failed 0, mails 0, unbounced 0")
}

func concurrentEnqueue(s *suite) {
	var mails [8][]queue.Mail
	for w := range mails {
		for range 25 {
			mails[w] = append(mails[w], s.mail(fmt.Sprintf("w%d@b", w), "x@y", "z@y"))
		}
	}
	errs := make([]error, len(mails))
	var wg sync.WaitGroup
	for w := range mails {
		wg.Go(func() {
			for _, m := range mails[w] {
				errs[w] = errors.Join(errs[w], s.Enqueue(s.ctx, m))
			}
		})
	}
	wg.Wait()
	s.must(errors.Join(errs[:]...))
	s.reopen()
	s.equal("count", s.count(), "waiting 400, sending 0, held 0, sent 0, failed 0, mails 200, unbounced 0")
	for w := range mails {
		for _, m := range mails[w] {
			raw, err := s.raw(m.Message.ID)
			s.must(err)
			s.equal("raw", raw, string(m.Message.Raw))
		}
	}
}

// failedApart: mail that was given up takes no room from mail that waits, but
// there is a bound for it too.
func failedApart(s *suite) {
	fail := func() {
		s.Helper()
		s.must(s.Settle(s.ctx, s.gaveUp(s.claimOne())))
	}
	s.put("a@b", "1")
	fail()
	s.put("a@b", "2", "3")
	s.put("a@b", "4")
	s.wantErr(s.Enqueue(s.ctx, s.mail("a@b", "5")), queue.ErrFull)
	s.equal("counts", s.failed(), "3 mails, 1 failed")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.gaveUp(claims[0])))
	s.equal("counts", s.failed(), "3 mails, 1 failed") // the other recipient is open
	s.must(s.Settle(s.ctx, s.done(claims[1])))
	s.equal("counts", s.failed(), "3 mails, 2 failed")
	s.put("a@b", "6")
	s.wantErr(s.Enqueue(s.ctx, s.mail("a@b", "7")), queue.ErrFull)
	n, err := s.Retry(s.ctx, queue.Filter{Recipient: "1"}, s.now)
	s.applied(n, err, 1)
	s.equal("counts", s.failed(), "4 mails, 1 failed")
	n, err = s.Drop(s.ctx, queue.Filter{States: []queue.State{queue.Failed}})
	s.applied(n, err, 1)
	s.reopen()
	s.equal("counts", s.failed(), "3 mails, 0 failed")
}

func (s *suite) failed() string {
	s.Helper()
	st, err := s.Stats(s.ctx)
	s.must(err)
	if (st.FailedMails == 0) != (st.FailedBytes == 0) || st.FailedBytes > st.Bytes {
		s.Fatalf("%+v", st)
	}
	return fmt.Sprintf("%d mails, %d failed", st.Mails, st.FailedMails)
}
