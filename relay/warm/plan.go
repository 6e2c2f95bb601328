// Package warm holds each sender domain that is being warmed to its day's cap:
// a provider trusts a domain that begins with little mail and sends more every
// day. What is over the cap stays in relay/queue, whose claims are bound by
// Meter.Limits, and goes by itself the next day.
//
// The package has no clock, no goroutines and no storage: times come from its
// caller, and the counts live in marks of the queue, which go up in the same
// step that settles a mail (queue.Settlement.Count).
//
// # Days
//
// A day is a calendar day in UTC, as its provider sees it, and a mail belongs
// to the day on which its reservation was taken, even if it is settled after
// midnight.
//
// # Restarts
//
// What was settled is counted, exactly once, whatever crashes. What was in
// flight when the process died is not: whether it was sent is not known, and
// a day's quota that is used up by mail that was never sent would be lost for
// good. So a crash can take a day over its cap by at most the number of mails
// that were in flight.
//
// # A clock that is set
//
// Counts are kept per day and outlive the day, so that a clock set back finds
// the count it left and gives no second quota; a clock set forward skips days.
// A count is forgotten only when it is older than yesterday and the domain
// sent on keptDays later days; see Expired.
package warm

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// most is the largest cap; a plan that grows for ever ends here.
const most = math.MaxInt32

// Plan is how one domain is warmed. The caps are First, growing by Growth every
// day, or those of Table if it has any.
type Plan struct {
	Domain string    // the sender's, compared without regard to case
	Begin  time.Time // any time of the first day
	First  int       // the cap of day 1
	Growth float64   // factor from one day to the next; below 1 is 1
	// Table is the caps of day 1, 2 and so on. The last one stays; if it is 0
	// there is no cap from that day on.
	Table []int
	// Until ends the warming: a day whose cap would reach it has none. 0 is never.
	Until int
	// Urgent are the envelope senders, or "@domain" for all of a domain, whose
	// mail is never held back. It counts all the same.
	Urgent []string
}

// Cap is how many mails the plan allows on the day. It is not bounded once the
// warming is over. Before Begin it is the first day's.
func (p Plan) Cap(day time.Time) (limit int, bounded bool) {
	limit, bounded = p.planned(p.Day(day))
	limit = min(max(limit, 0), most)
	if !bounded || p.Until > 0 && limit >= p.Until {
		return 0, false
	}
	return limit, true
}

// Day is the number of the day in the plan: 1 on the day of Begin, 0 or less
// before it.
func (p Plan) Day(day time.Time) int {
	return int(dayOf(day)-dayOf(p.Begin)) + 1
}

// planned is the cap of the n-th day, whatever Until says.
func (p Plan) planned(n int) (limit int, bounded bool) {
	n = max(n, 1)
	if len(p.Table) == 0 {
		return p.grown(n), true
	}
	if n < len(p.Table) {
		return p.Table[n-1], true
	}
	last := p.Table[len(p.Table)-1]
	return last, last != 0
}

// grown multiplies day by day instead of using a power, whose rounding can make
// a day's cap smaller than the one before.
func (p Plan) grown(n int) int {
	limit := float64(min(p.First, most))
	for range n - 1 {
		next := limit * p.Growth
		if !(next > limit) { // no growth, or not a number
			break
		}
		limit = next
		if limit >= most {
			return most
		}
	}
	return int(math.Round(limit))
}

// passes reports whether mail of the envelope sender is never held back.
func (p Plan) passes(sender string) bool {
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	return slices.ContainsFunc(p.Urgent, func(u string) bool {
		if d, ok := strings.CutPrefix(u, "@"); ok {
			return domain != "" && Canonical(d) == Canonical(domain)
		}
		return u != "" && strings.EqualFold(u, sender)
	})
}

// Canonical is the form in which domains are compared and named: without case,
// without the root's dot, and in ASCII (RFC 5890). Meter takes any form and
// hands out this one, so it is the one for queue.Mail.Domain, which is compared
// with the keys of Limits.
func Canonical(domain string) string {
	form, _ := policy.Domain(domain)
	return form
}

const secondsPerDay = 24 * 60 * 60

// dayOf numbers the days of UTC.
func dayOf(t time.Time) int64 {
	s := t.Unix()
	day := s / secondsPerDay
	if s%secondsPerDay < 0 {
		day--
	}
	return day
}

// startOf is the first moment of a day.
func startOf(day int64) time.Time {
	return time.Unix(day*secondsPerDay, 0).UTC()
}
