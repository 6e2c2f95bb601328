package admin

import (
	"fmt"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// queue converts the filter to one of the queue.
func (f Filter) queue() (queue.Filter, error) {
	qf := queue.Filter{
		ID: f.ID, Sender: f.Sender, Recipient: f.Recipient, Account: f.Account, From: f.From, Until: f.Until,
		Limit: min(max(f.Limit, 0), MaxPage), Cursor: f.Cursor,
	}
	for _, name := range f.States {
		s, err := parseState(name)
		if err != nil {
			return queue.Filter{}, err
		}
		qf.States = append(qf.States, s)
	}
	return qf, nil
}

func parseState(name string) (queue.State, error) {
	for _, s := range queue.States() {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: there is no state %q", ErrBadRequest, name)
}

// utc makes t what it would be after JSON, so that Local and Client return the same.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Round(0).UTC()
}

// text replaces bytes that are not UTF-8, as JSON does.
func text(s string) string {
	return strings.Map(func(r rune) rune { return r }, s)
}

func countsOf(s queue.Stats) Counts {
	return Counts{
		Waiting: s.Recipients[queue.Waiting], Sending: s.Recipients[queue.Claimed], Held: s.Recipients[queue.Held],
		Sent: s.Recipients[queue.Sent], Failed: s.Recipients[queue.Failed], Unbounced: s.Unbounced,
		Mails: s.Mails, Bytes: s.Bytes, Oldest: utc(s.Oldest),
	}
}

func paceOf(s pace.State) *Pace {
	p := &Pace{
		PausedUntil: utc(s.PausedUntil), Rate: s.Rate, RateFound: s.Found, InFlight: s.InFlight,
		Breaker: Breaker{
			Open: s.Breaker.Open, Why: string(s.Breaker.Why), Cause: saidText(s.Breaker.Last),
			Since: utc(s.Breaker.Since), ProbeAt: utc(s.Breaker.ProbeAt),
		},
	}
	if s.Relays > 0 {
		p.Share, p.Relays, p.Apart = s.Share, s.Relays, utc(s.Apart)
	}
	return p
}

func (v view) warmingOf(account string, d warm.DomainState) Warming {
	if len(v.others) == 0 {
		account = ""
	}
	return Warming{
		Account: account,
		Domain:  d.Domain, Day: d.Day, Bounded: d.Bounded, Cap: d.Cap, Sent: d.Sent,
		Full: d.Full(), Next: utc(d.Next), Text: text(d.String()),
	}
}

func envelope(m queue.Mail) Envelope {
	return Envelope{
		ID: m.Message.ID, Sender: text(m.Message.From), Received: utc(m.Message.ReceivedAt),
		Size: m.Size, Urgent: m.Urgent, BounceOf: m.BounceOf, Damaged: m.Damaged, Account: text(m.Message.Account),
	}
}

func (v view) entry(e queue.Entry) Entry {
	out := Entry{Envelope: envelope(e.Mail), Progress: v.progress(e.Mail, e.Recipient)}
	if a, ok := e.Recipient.Last(); ok {
		last := attempt(a)
		out.Last = &last
	}
	return out
}

func (v view) progress(m queue.Mail, r queue.Recipient) Progress {
	p := Progress{
		Number: r.Number, Recipient: text(r.Addr), State: r.State.String(), Tries: r.Attempts,
		Ended: utc(r.Ended), Bounced: r.Bounced, Why: v.why(m, r),
	}
	if r.State == queue.Waiting || r.State == queue.Held {
		p.Due = utc(r.Due)
	}
	if r.State == queue.Waiting {
		p.Next = utc(v.next(m, r))
	}
	return p
}

func (v view) mail(m queue.Mail) Mail {
	c := m.Message.Client
	out := Mail{
		Envelope:   envelope(m),
		Domain:     text(m.Domain),
		Client:     relay.Client{Addr: text(c.Addr), Helo: text(c.Helo), User: text(c.User), Listener: text(c.Listener), Session: text(c.Session)},
		Recipients: make([]Recipient, len(m.Recipients)),
	}
	for i, r := range m.Recipients {
		out.Recipients[i] = Recipient{Progress: v.progress(m, r), Since: utc(r.Since), History: make([]Attempt, len(r.History))}
		for j, a := range r.History {
			out.Recipients[i].History[j] = attempt(a)
		}
	}
	return out
}

func attempt(a queue.Attempt) Attempt {
	o := a.Outcome
	out := Attempt{
		Started: utc(a.Started), Outcome: o.Kind.String(), Status: o.Status, MessageID: text(o.MessageID), Detail: text(o.Detail),
		TookMS: o.Took.Milliseconds(), RetryAfterMS: o.RetryAfter.Milliseconds(),
		Counted: !a.NotAnAttempt, Text: outcomeText(a),
	}
	if o.Cause != nil {
		out.Cause = text(o.Cause.Error())
	}
	if a.Unknown {
		out.Outcome = "unknown"
	}
	return out
}
