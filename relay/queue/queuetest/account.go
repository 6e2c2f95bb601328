package queuetest

import (
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var accountTests = []test{
	{"a claim is for one account", queue.Options{}, claimsOfOne},
	{"next due", queue.Options{}, nextDueOfOne},
	{"fair within an account", queue.Options{}, fairWithin},
	{"limits", queue.Options{}, limitsOfOne},
	{"the latest first", queue.Options{}, latestOfOne},
	{"names that begin alike", queue.Options{}, alikeNames},
	{"kept over a restart", queue.Options{}, accountKept},
	{"reassign", queue.Options{}, reassign},
	{"reassign what is being tried", queue.Options{}, reassignClaimed},
	{"filter and count", queue.Options{}, accountFilter},
	{"a bounce", queue.Options{}, bounceOfAccount},
	{"no such name", queue.Options{}, func(s *suite) {
		m := s.mail("a@b", "1")
		m.Message.Account = "a/b"
		if s.Enqueue(s.ctx, m) == nil {
			s.Fatalf("a slash is taken in the name of an account")
		}
	}},
}

// putFor enqueues a mail of an account and returns its id.
func (s *suite) putFor(account, lane string, recipients ...string) string {
	s.Helper()
	m := s.mail(lane, recipients...)
	m.Message.Account = account
	s.must(s.Enqueue(s.ctx, m))
	return m.Message.ID
}

func (s *suite) claimFor(account string, max int) []queue.Claim {
	s.Helper()
	c, err := s.Claim(s.ctx, queue.ClaimRequest{Account: account, Now: s.now, Max: max})
	s.must(err)
	for _, one := range c {
		s.equal("account of "+one.Addr, one.Mail.Message.Account, account)
	}
	return c
}

func claimsOfOne(s *suite) {
	s.put("a@b", "own")
	s.putFor("shop", "a@b", "s1", "s2")
	s.putFor("news", "a@b", "n1")
	s.equal("shop", addrs(s.claimFor("shop", 5)), "s1 s2")
	s.equal("nobody's", addrs(s.claimFor("other", 5)), "")
	s.equal("the default", addrs(s.claimFor("", 5)), "own")
	s.equal("news", addrs(s.claimFor("news", 5)), "n1")
}

func nextDueOfOne(s *suite) {
	s.putFor("shop", "a@b", "s1")
	next := func(account string) bool {
		at, any, err := s.NextDue(s.ctx, queue.ClaimRequest{Account: account, Now: s.now})
		s.must(err)
		return any && !at.After(s.now)
	}
	s.equal("due now", fmt.Sprint(next(""), next("shop"), next("news")), "false true false")
	c := s.claimFor("shop", 1)[0]
	s.equal("claimed", next("shop"), false)

	// What one account waits for is no time of another's.
	s.must(s.Settle(s.ctx, s.later(c, s.now.Add(time.Second))))
	s.putFor("news", "a@b", "n1")
	c = s.claimFor("news", 1)[0]
	s.must(s.Settle(s.ctx, s.later(c, s.now.Add(time.Hour))))
	for account, want := range map[string]time.Duration{"shop": time.Second, "news": time.Hour} {
		at, any, err := s.NextDue(s.ctx, queue.ClaimRequest{Account: account, Now: s.now})
		s.must(err)
		s.equal("due of "+account, fmt.Sprint(any, at.Sub(s.now).Round(time.Second)), fmt.Sprint(true, want))
	}
	_, any, err := s.NextDue(s.ctx, queue.ClaimRequest{Now: s.now})
	s.must(err)
	s.equal("of the default account", any, false)
	s.now = s.now.Add(2 * time.Second)
	s.equal("later", fmt.Sprint(next(""), next("shop"), next("news")), "false true false")
	s.equal("claimed by another", addrs(s.claimFor("news", 5))+addrs(s.claimFor("", 5)), "")
	s.equal("by its own", addrs(s.claimFor("shop", 5)), "s1")
}

// Lanes take turns within an account, and one account's turns are nothing to another.
func fairWithin(s *suite) {
	for _, account := range []string{"", "shop"} {
		for lane := range 3 {
			for range 2 {
				s.putFor(account, fmt.Sprintf("%d@b", lane), fmt.Sprint(lane))
			}
		}
	}
	seen := map[string]map[string]bool{"": {}, "shop": {}}
	for range 3 {
		for _, account := range []string{"", "shop"} {
			for _, c := range s.claimFor(account, 1) {
				if seen[account][c.Addr] {
					s.Fatalf("account %q: lane %s twice", account, c.Addr)
				}
				seen[account][c.Addr] = true
			}
		}
	}
	s.equal("lanes", fmt.Sprint(len(seen[""]), len(seen["shop"])), "3 3")
	s.equal("the rest", fmt.Sprint(len(s.claimFor("", 9)), len(s.claimFor("shop", 9))), "3 3")
}

func limitsOfOne(s *suite) {
	s.putFor("shop", "a@limited", "s1", "s2")
	m := s.mail("a@limited", "fast")
	m.Urgent, m.Message.Account = true, "shop"
	s.must(s.Enqueue(s.ctx, m))
	r := queue.ClaimRequest{Account: "shop", Now: s.now, Max: 5, Limits: map[string]int{"limited": 0}}
	claims, err := s.Claim(s.ctx, r)
	s.must(err)
	s.equal("over the limit", addrs(claims), "fast")
	at, any, err := s.NextDue(s.ctx, r)
	s.must(err)
	if any && !at.After(s.now) {
		s.Fatalf("NextDue %v: what the limits stop is not due", at)
	}
	r.Limits["limited"] = 1
	claims, err = s.Claim(s.ctx, r)
	s.must(err)
	s.equal("one more", addrs(claims), "s1")
}

func latestOfOne(s *suite) {
	s.putFor("shop", "a@b", "a1")
	s.putFor("shop", "m@b", "m1")
	s.putFor("news", "z@b", "z1")
	claims, err := s.Claim(s.ctx, queue.ClaimRequest{Account: "shop", Now: s.now, Max: 1, Latest: true})
	s.must(err)
	s.equal("the latest of the account", addrs(claims), "m1")
}

func alikeNames(s *suite) {
	names := []string{"", "a", "a-", "a0", "aa", "b", "default-2", "z"}
	for _, name := range names {
		s.putFor(name, "a@b", "to-"+name)
		m := s.mail("a@b", "fast-"+name)
		m.Urgent, m.Message.Account = true, name
		s.must(s.Enqueue(s.ctx, m))
	}
	for _, name := range names {
		s.equal("mails of "+name, len(s.claimFor(name, 20)), 2)
	}
}

func accountKept(s *suite) {
	id := s.putFor("shop", "a@b", "s1")
	s.claimFor("shop", 1)
	s.reopen()
	s.equal("account", s.get(id).Message.Account, "shop")
	s.equal("not the default's", addrs(s.claimFor("", 5)), "")
	s.equal("claimed again", addrs(s.claimFor("shop", 5)), "s1")
}

func reassign(s *suite) {
	one := s.putFor("gone", "a@b", "1", "2")
	s.putFor("gone", "c@d", "3")
	s.put("a@b", "own")
	s.woken()
	n, err := s.Reassign(s.ctx, queue.Filter{ID: one}, "shop")
	s.must(err)
	s.equal("mails moved", n, 1)
	s.equal("woken", s.woken(), true)
	s.equal("account", s.get(one).Message.Account, "shop")
	s.equal("there", addrs(s.claimFor("shop", 5)), "1 2")
	n, err = s.Reassign(s.ctx, queue.Filter{Account: "gone"}, "")
	s.must(err)
	s.equal("the rest", n, 1)
	s.equal("nothing is left", addrs(s.claimFor("gone", 5)), "")
	s.equal("with the default's", len(s.claimFor("", 5)), 2)
	n, err = s.Reassign(s.ctx, queue.Filter{Account: relay.DefaultAccount}, "")
	s.must(err)
	s.equal("where it is", n, 0)
	s.reopen()
	s.equal("after a restart", addrs(s.claimFor("shop", 5)), "1 2")
	if text, err := s.raw(one); err != nil || text == "" {
		s.Fatalf("the content of a mail that was moved: %q, %v", text, err)
	}
}

// An attempt under way is settled by who began it, and what is left is the new account's.
func reassignClaimed(s *suite) {
	id := s.putFor("shop", "a@b", "1")
	c := s.claimFor("shop", 1)[0]
	n, err := s.Reassign(s.ctx, queue.Filter{ID: id}, "news")
	s.must(err)
	s.equal("mails moved", n, 1)
	s.must(s.Settle(s.ctx, s.later(c, s.now)))
	s.equal("the old one's", addrs(s.claimFor("shop", 1)), "")
	c = s.claimFor("news", 1)[0]
	s.must(s.Settle(s.ctx, s.done(c)))
	n, err = s.Reassign(s.ctx, queue.Filter{ID: id}, "shop")
	s.must(err)
	s.equal("what was sent stays", n, 0)
}

func accountFilter(s *suite) {
	s.put("a@b", "own")
	s.putFor("shop", "a@b", "1", "2")
	sent := s.putFor("shop", "a@b", "3")
	s.putFor("news", "a@b", "4")
	for _, c := range s.claimFor("shop", 5) {
		if c.Token.Mail == sent {
			s.must(s.Settle(s.ctx, s.done(c)))
		}
	}
	for account, want := range map[string]int{"": 5, relay.DefaultAccount: 1, "shop": 3, "news": 1, "none": 0} {
		entries, _, err := s.List(s.ctx, queue.Filter{Account: account})
		s.must(err)
		s.equal("recipients of "+account, len(entries), want)
	}
	counts, err := s.Accounts(s.ctx)
	s.must(err)
	s.equal("accounts", counts, map[string]int{"shop": 1, "news": 1})
}

func bounceOfAccount(s *suite) {
	id := s.putFor("shop", "a@b", "1")
	s.must(s.Settle(s.ctx, s.gaveUp(s.claimFor("shop", 1)[0])))
	due, err := s.BouncesDue(s.ctx, s.now, time.Hour, 5)
	s.must(err)
	s.equal("bounces", len(due), 1)
	s.equal("account", due[0].Mail.Message.Account, "shop")
	b := s.mail("", "a@b")
	b.BounceOf, b.Message.Account = id, "shop"
	s.must(s.Bounced(s.ctx, id, []int{0}, &b))
	s.equal("the bounce", addrs(s.claimFor("shop", 1)), "a@b")
}
