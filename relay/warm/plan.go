// Package warm limits what each sender domain that is being warmed sends in a day.
// A provider trusts a domain that begins with little mail and sends more every day.
// Mail above the day's cap stays in the queue, whose claims respect Meter.Limits,
// and is sent the next day.
//
// The package has no clock, no goroutines and no storage. Callers pass the time.
// The counts live in marks of the queue, which increases them in the transaction
// that settles a mail (queue.Settlement.Count).
//
// # Days
//
// A day is a calendar day in UTC. A mail belongs to the day on which its
// reservation was taken, even if it is settled after midnight.
//
// # Restarts
//
// What was settled is counted exactly once, whatever crashes. Mail that was in
// flight when the process died is not counted, because nobody knows whether it was
// sent. Counting it could lose a part of the day's cap to mail that was never sent.
// So after a crash, a day can exceed its cap by the mails that were in flight.
//
// # A clock that is set
//
// Counts are kept per day and outlive the day. If the clock is set back, it finds
// the counts of that day and gives no second quota. If it is set forward, days are
// skipped. A count is dropped only if it is older than yesterday and the domain
// sent on keptDays later days; see Expired.
package warm

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// most is the largest cap. Plans stop growing there.
const most = math.MaxInt32

// Plan says how one domain is warmed. The daily caps are those of Table, or without
// a Table begin with First and grow by Growth. internal/settings explains the tags.
type Plan struct {
	// Domain is the sender's; case does not matter.
	Domain string `toml:"domain" check:"domain" example:"\"mail.example.com\"" doc:"The sender domain. It must be set."`
	// Begin is any time of the first day.
	Begin  time.Time `toml:"begin" example:"\"2026-12-01\"" doc:"The first day, in UTC. It must be set."`
	First  int       `toml:"first" default:"50" range:"1..1000000000" doc:"How many mails the domain may send on the first day."`
	Growth float64   `toml:"growth" default:"1.5" range:"1..100" doc:"The factor by which this number grows every day."`
	Until  int       `toml:"until" default:"20000" range:"0..1000000000" doc:"The warming ends on the day whose number would reach this one. 0: it never ends, which is the default with a table."`
	Table  []int     `toml:"table" doc:"The numbers of the first day, the second day and so on, instead of first and growth. The last one stays in force; 0 at the end means no limit from then on."`
	Urgent []string  `toml:"urgent" check:"senders" doc:"Envelope senders whose mail is never held back; \"@domain\" is a whole domain."`
	// Account is for who makes the Meters; a Meter does not look at it.
	Account string `toml:"account" check:"optional account" doc:"The account whose mail of the domain is bound; \"default\" is that of [api]. \"\": each account, and each may send the day's number."`
}

// Cap returns how many mails the plan allows on a day. After the warming there is
// no bound. Before Begin it is the cap of the first day.
func (p Plan) Cap(day time.Time) (limit int, bounded bool) {
	limit, bounded = p.planned(p.Day(day))
	limit = min(max(limit, 0), most)
	if !bounded || p.Until > 0 && limit >= p.Until {
		return 0, false
	}
	return limit, true
}

// Day returns the number of the day in the plan: 1 on the day of Begin, 0 or less
// before it.
func (p Plan) Day(day time.Time) int {
	return int(dayOf(day)-dayOf(p.Begin)) + 1
}

// planned returns the cap of the n-th day, without regard to Until.
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

// grown multiplies day by day. A power would be rounded, and a day's cap could be
// smaller than the one before.
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

// passes reports whether mail of this sender is never held back.
func (p Plan) passes(sender string) bool {
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	return slices.ContainsFunc(p.Urgent, func(u string) bool {
		if d, ok := strings.CutPrefix(u, "@"); ok {
			return domain != "" && Canonical(d) == Canonical(domain)
		}
		return u != "" && strings.EqualFold(u, sender)
	})
}

// Canonical returns the form in which domains are compared: lower case, without the
// final dot, and in ASCII (RFC 5890). Meter takes any form and returns this one.
// queue.Mail.Domain must be in this form, because it is compared with the keys of
// Limits.
func Canonical(domain string) string {
	form, _ := policy.Domain(domain)
	return form
}

const secondsPerDay = 24 * 60 * 60

// dayOf returns the number of a day, in UTC.
func dayOf(t time.Time) int64 {
	s := t.Unix()
	day := s / secondsPerDay
	if s%secondsPerDay < 0 {
		day--
	}
	return day
}

// startOf returns the first moment of a day.
func startOf(day int64) time.Time {
	return time.Unix(day*secondsPerDay, 0).UTC()
}
