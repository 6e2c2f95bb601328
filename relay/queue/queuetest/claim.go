package queuetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var claimTests = []test{
	{"order within a lane", queue.Options{}, orderInLane},
	{"round robin", queue.Options{}, roundRobin},
	{"round robin over calls", queue.Options{}, roundRobinOverCalls},
	{"a new lane does not wait for a backlog", queue.Options{}, newLane},
	{"urgent mail", queue.Options{}, urgent},
	{"limits", queue.Options{}, limits},
	{"passing over", queue.Options{}, passingOver},
	{"the latest first", queue.Options{}, latestFirst},
	{"not before it is due", queue.Options{}, notBeforeDue},
	{"a clock that was set back", queue.Options{}, clockSetBack},
	{"an old mail that comes back goes first", queue.Options{}, comesBack},
	{"what it says", queue.Options{}, whatAClaimSays},
	{"until the owner is gone", queue.Options{}, untilTheOwnerIsGone},
	{"next due", queue.Options{}, nextDue},
	{"many due at once", queue.Options{}, manyDue},
	{"concurrent", queue.Options{}, concurrentClaims},
	{"nonsense", queue.Options{}, func(s *suite) {
		if _, err := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now}); err == nil {
			s.Fatalf("no error for a claim of nothing")
		}
	}},
}

func orderInLane(s *suite) {
	s.put("a@b", "1", "2")
	s.put("a@b", "3")
	s.put("a@b", "4")
	s.equal("first", addrs(s.claim(3)), "1 2 3")
	s.equal("rest", addrs(s.claim(3)), "4")
	s.equal("nothing", addrs(s.claim(3)), "")
}

func roundRobin(s *suite) {
	s.put("a@b", "a1", "a2", "a3", "a4", "a5")
	s.put("b@b", "b1", "b2")
	s.put("", "n1")
	got := s.claim(100)
	s.equal("number", len(got), 8)
	turns := map[string]int{}
	for i, c := range got[:3] {
		turns[c.Mail.Lane] = i
	}
	s.equal("lanes in the first round", len(turns), 3)
	perLane := map[string]string{}
	for _, c := range got {
		perLane[c.Mail.Lane] += c.Addr
	}
	s.equal("order", perLane, map[string]string{"a@b": "a1a2a3a4a5", "b@b": "b1b2", "": "n1"})
	s.equal("the long lane's rest", addrs(got[5:]), "a3 a4 a5")
}

func roundRobinOverCalls(s *suite) {
	for lane := range 5 {
		for range 3 {
			s.put(fmt.Sprintf("%d@b", lane), fmt.Sprint(lane))
		}
	}
	for round := range 3 {
		seen := map[string]bool{}
		for _, max := range []int{2, 1, 2} {
			for _, c := range s.claim(max) {
				if seen[c.Addr] {
					s.Fatalf("round %d: lane %s twice", round, c.Addr)
				}
				seen[c.Addr] = true
			}
		}
		s.equal("lanes", len(seen), 5)
	}
}

func newLane(s *suite) {
	for range 50 {
		s.put("bulk@b", "bulk")
	}
	for range 10 {
		s.claim(1)
	}
	s.put("app@b", "reset")
	got := addrs(s.claim(2))
	if got != "reset bulk" && got != "bulk reset" {
		s.Fatalf("claimed %q: the new lane has to wait", got)
	}
}

func urgent(s *suite) {
	for range 3 {
		s.put("a@b", "slow")
	}
	m := s.mail("a@b", "fast")
	m.Urgent = true
	s.must(s.Enqueue(s.ctx, m))
	got := addrs(s.claim(2))
	if got != "fast slow" && got != "slow fast" {
		s.Fatalf("claimed %q: urgent mail waits behind its own lane", got)
	}
	s.must(s.Enqueue(s.ctx, func() queue.Mail {
		m := s.mail("a@b", "fast2")
		m.Urgent = true
		return m
	}()))
	s.equal("over the limit", addrs(s.claimLimited(5, map[string]int{"b": 0})), "fast2")
}

func limits(s *suite) {
	for i := range 4 {
		s.put("a@limited", fmt.Sprint("a", i))
		s.put("b@limited", fmt.Sprint("b", i))
	}
	s.put("z@free", "z0", "z1", "z2")
	s.put("nobody", "n0") // a lane without a domain
	count := func(claims []queue.Claim) map[string]int {
		n := map[string]int{}
		for _, c := range claims {
			n[c.Mail.Domain]++
		}
		return n
	}
	s.equal("none", count(s.claimLimited(2, map[string]int{"limited": 0, "": 0})), map[string]int{"free": 2})
	s.equal("three", count(s.claimLimited(20, map[string]int{"limited": 3, "": 0, "free": 1})), map[string]int{"limited": 3, "free": 1})
	s.equal("none again", count(s.claimLimited(20, map[string]int{"limited": 0, "": 0})), map[string]int{})
	at, due, err := s.NextDue(s.ctx, queue.ClaimRequest{Now: s.now, Limits: map[string]int{"limited": 0, "": 0}})
	s.must(err)
	if due && !at.After(s.now) {
		s.Fatalf("NextDue %v: what the limits stop is not due", at)
	}
	s.equal("the rest", count(s.claim(20)), map[string]int{"limited": 5, "": 1})
}

// Mail that is passed over keeps its place, and whose turn it is stays as it was.
func passingOver(s *suite) {
	over := []string{s.put("a@b", "bad1", "bad2", "bad3"), s.put("a@b", "bad4")}
	s.put("a@b", "a1")
	alone := s.put("c@b", "bad5")
	s.put("d@b", "d1")
	pass := func(max int, ids ...string) string {
		claims, err := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now, Max: max, PassOver: ids})
		s.must(err)
		return addrs(claims)
	}
	s.equal("behind two mails", pass(1, over...), "a1")
	s.equal("lanes with nothing else", pass(1, append(over, alone)...), "d1")
	s.equal("an id that is not there", pass(1, "nothing"), "bad1")
	s.equal("the others", pass(5, over...), "bad5")
	s.equal("not passed over any more", pass(5), "bad2 bad3 bad4")
}

// The lane of the mail that came last goes first when it is asked for, and has
// its turn all the same.
func latestFirst(s *suite) {
	other := s.put("a@b", "a1", "a2")
	s.put("m@b", "m1", "m2", "m3")
	third := s.put("z@b", "z1", "z2")
	held := s.mail("z@c", "not due")
	held.Recipients[0].Due = s.now.Add(time.Hour)
	s.must(s.Enqueue(s.ctx, held))
	bad := s.put("n@b", "bad")
	last := s.put("m@b", "m4")
	latest := func(max int, over ...string) string {
		claims, err := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now, Max: max, PassOver: over, Latest: true})
		s.must(err)
		return addrs(claims)
	}
	s.equal("the oldest of its lane", latest(1), "m1")
	s.equal("it was no turn", addrs(s.claim(1)), "a1")
	s.equal("no lane that has what is passed over", latest(1, last, bad), "z1")
	s.equal("unless all have", latest(1, bad, last, other, third), "m2")
	s.equal("the others after it, once each", latest(4, bad), "m3 z2 a2 m4")
	s.equal("the rest", latest(5), "bad")
}

func notBeforeDue(s *suite) {
	m := s.mail("a@b", "later", "now")
	m.Recipients[0].Due = s.now.Add(time.Second)
	s.must(s.Enqueue(s.ctx, m))
	s.equal("now", addrs(s.claim(5)), "now")
	s.now = s.now.Add(999 * time.Millisecond)
	s.equal("too early", addrs(s.claim(5)), "")
	s.now = s.now.Add(time.Millisecond)
	s.equal("due", addrs(s.claim(5)), "later")
}

// What is due later than anything can be waits no longer than the rest.
func clockSetBack(s *suite) {
	due := s.now.Add(time.Hour)
	m := s.mail("a@b", "1", "2", "3")
	m.Recipients[0].Due = due
	m.Recipients[1].Due = due.Add(time.Millisecond)
	m.Recipients[2].Due = due.Add(10 * 365 * 24 * time.Hour)
	s.must(s.Enqueue(s.ctx, m))
	r := queue.ClaimRequest{Now: s.now, Max: 9, MaxWait: time.Hour}
	at, ok, err := s.NextDue(s.ctx, r)
	s.must(err)
	s.equal("due", fmt.Sprint(at.Sub(s.now), ok), "0s true")
	claims, err := s.Claim(s.ctx, r)
	s.must(err)
	s.equal("claims", addrs(claims), "2 3")
	at, ok, err = s.NextDue(s.ctx, r)
	s.must(err)
	s.equal("due", fmt.Sprint(at.Sub(s.now), ok), "1h0m0s true")
	s.must(s.Settle(s.ctx, s.later(claims[0], due.Add(time.Hour))))
	s.equal("without a bound", len(s.claim(9)), 0)
}

func comesBack(s *suite) {
	s.put("a@b", "old")
	c := s.claimOne()
	s.put("a@b", "new1")
	s.put("a@b", "new2")
	s.must(s.Settle(s.ctx, s.later(c, s.now.Add(time.Second))))
	s.equal("meanwhile", addrs(s.claim(1)), "new1")
	s.now = s.now.Add(time.Second)
	s.equal("back", addrs(s.claim(2)), "old new2")
}

func whatAClaimSays(s *suite) {
	m := s.mail("a@b", "x@y")
	s.must(s.Enqueue(s.ctx, m))
	c := s.claimOne()
	s.equal("claim", fmt.Sprint(c.Addr, c.Attempt, c.Unknown, c.Token.Mail, c.Token.Recipient),
		fmt.Sprint("x@y", 1, false, m.Message.ID, 0))
	if c.Mail.Message.ID != m.Message.ID || c.Mail.Message.Client != m.Message.Client || c.Mail.Size != m.Size || !c.Since.Equal(s.now) {
		s.Fatalf("claim: %+v", c)
	}
	s.equal("states", s.states(m.Message.ID), "sending")
	s.equal("attempts", s.get(m.Message.ID).Recipients[0].Attempts, 1)
}

// No clock ends a claim: only its owner's end does.
func untilTheOwnerIsGone(s *suite) {
	id := s.put("a@b", "x@y")
	first := s.claimOne()
	started := s.now
	s.now = s.now.Add(10 * 365 * 24 * time.Hour)
	s.equal("however long it takes", len(s.claim(5)), 0)
	_, ok, err := s.NextDue(s.ctx, queue.ClaimRequest{Now: s.now})
	s.must(err)
	s.equal("something is due", ok, false)
	s.reopen()
	second := s.claimOne()
	if !second.Unknown || second.Attempt != 2 || second.Token.Fence <= first.Token.Fence {
		s.Fatalf("second claim: %+v", second)
	}
	s.wantErr(s.Settle(s.ctx, s.done(first)), queue.ErrStale)
	s.equal("states", s.states(id), "sending")
	s.must(s.Settle(s.ctx, s.later(second, s.now)))
	h := s.get(id).Recipients[0].History
	if len(h) != 2 || !h[0].Unknown || !h[0].Started.Equal(started) || h[1].Unknown {
		s.Fatalf("history: %+v", h)
	}
	third := s.claimOne()
	if third.Unknown {
		s.Fatalf("the attempt before was settled: %+v", third)
	}
	// A word that comes late still counts while nobody else claimed.
	s.reopen()
	s.must(s.Settle(s.ctx, s.done(third)))
	s.equal("states", s.states(id), "sent")
}

func nextDue(s *suite) {
	next := func() string {
		at, ok, err := s.NextDue(s.ctx, queue.ClaimRequest{Now: s.now})
		s.must(err)
		if !ok {
			return "none"
		}
		return at.Sub(s.now).String()
	}
	s.equal("empty", next(), "none")
	m := s.mail("a@b", "x@y")
	m.Recipients[0].Due = s.now.Add(time.Hour)
	s.must(s.Enqueue(s.ctx, m))
	s.equal("in an hour", next(), "1h0m0s")
	s.put("a@b", "z@y")
	s.equal("at once", next(), "0s")
	s.claimOne()
	s.equal("what is claimed is not due", next(), "1h0m0s")
	s.now = s.now.Add(2 * time.Hour)
	s.equal("overdue", next(), "0s")
}

func manyDue(s *suite) {
	const n = 2500
	due := s.now.Add(time.Hour)
	m := s.mail("a@b")
	for range n {
		m.Recipients = append(m.Recipients, queue.Recipient{Addr: "x", Due: due})
	}
	s.must(s.Enqueue(s.ctx, m))
	s.now = due
	last := -1
	for got := 0; got < n; {
		claims := s.claim(500)
		if len(claims) == 0 {
			s.Fatalf("%d of %d claimed, then none", got, n)
		}
		for _, c := range claims {
			if c.Token.Recipient <= last {
				s.Fatalf("recipient %d after %d", c.Token.Recipient, last)
			}
			last = c.Token.Recipient
		}
		got += len(claims)
	}
}

func concurrentClaims(s *suite) {
	const mails, workers = 200, 8
	for i := range mails {
		s.put(fmt.Sprintf("%d@b", i%7), "x@y", "z@y")
	}
	var mu sync.Mutex
	seen := map[queue.Token]bool{}
	errs := make([]error, workers)
	work := func() error {
		for {
			claims, err := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now, Max: 3})
			if err != nil || len(claims) == 0 {
				return err
			}
			for _, c := range claims {
				key := queue.Token{Mail: c.Token.Mail, Recipient: c.Token.Recipient}
				mu.Lock()
				twice := seen[key]
				seen[key] = true
				mu.Unlock()
				if twice {
					return fmt.Errorf("claimed twice: %+v", c.Token)
				}
				if err := s.Settle(s.ctx, s.done(c)); err != nil {
					return err
				}
			}
		}
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = work() })
	}
	wg.Wait()
	s.must(errors.Join(errs...))
	s.equal("claimed", len(seen), 2*mails)
	s.equal("count", s.count(), "waiting 0, sending 0, held 0, sent 400, failed 0, mails 0, unbounced 0")
}
