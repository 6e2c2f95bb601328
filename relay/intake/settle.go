package intake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// tryAll tries all recipients at the same time, except those that an earlier copy
// settled. relay/pace limits the calls. It returns when no call is in flight any
// more; api.timeout bounds that.
func (in *Intake) tryAll(ctx context.Context, r relay.Remainder, body provider.Body, before earlier) []relay.Outcome {
	wait := in.set.Load().Wait
	if r.Message.Client.KeptBy != "" {
		wait = 0 // the queue takes it once, however often it is handed over
	}
	turn, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(in.calls, cancel)()
	trace := attempt.Trace(r.Message.Raw)
	outcomes := make([]relay.Outcome, len(r.Message.Recipients))
	var todo []int
	for i, to := range r.Message.Recipients {
		switch out, _, known := before.outcome(to); {
		case known:
			outcomes[i] = out
		case wait == 0 || in.calls.Err() != nil: // all mail goes to the queue
			outcomes[i] = relay.Outcome{Kind: relay.Unavailable, Untried: true}
		default:
			todo = append(todo, i)
		}
	}
	try := func(i int) {
		to := r.Message.Recipients[i]
		outcomes[i] = in.try(turn, r, attempt.Attempt{
			MessageID: before.idFor(to, r.Message.ID), From: r.Message.From, To: to, Number: 1, Body: body,
			Session: r.Message.Client.Session, Trace: trace,
			Redirected: func() bool { return in.redirect(r.Message.Account, r.Message.Client) != "" },
		})
	}
	var wg sync.WaitGroup
	for n, i := range todo {
		if n == len(todo)-1 {
			try(i) // most mail has one recipient: another goroutine costs some 3 % of its processor time
			break
		}
		wg.Go(func() { try(i) })
	}
	wg.Wait()
	return outcomes
}

// try tries one recipient, unless the sender domain's limit for today is reached.
func (in *Intake) try(turn context.Context, r relay.Remainder, a attempt.Attempt) relay.Outcome {
	now, account := time.Now(), in.of(r.Message.Account)
	if _, aliased := r.Message.Aliases[a.To]; aliased && !a.Body.Redirected() {
		// RCPT accepts an alias if any of its addresses is not suppressed.
		if _, suppressed := account.Suppressions.Lookup(a.To, now); suppressed {
			return in.untried(a, relay.Outcome{Kind: relay.Suppressed})
		}
	}
	if !account.Warming.Take(r.Domain, r.Urgent, now) {
		return in.untried(a, relay.Outcome{Kind: relay.RateLimited, Untried: true, Cause: errWarming, RetryAfter: untilTomorrow(now)})
	}
	out := account.Attempts.Try(turn, a)
	if out.Kind == relay.Accepted {
		account.Warming.Sent(r.Domain, now)
	} else {
		account.Warming.Return(r.Domain, now)
	}
	return out
}

// untried records an outcome without an attempt.
func (in *Intake) untried(a attempt.Attempt, out relay.Outcome) relay.Outcome {
	noted := out
	noted.Untried = true
	in.opt.History.Note(history.Tried{ID: a.MessageID, From: a.From, To: a.To, Number: a.Number, Outcome: noted, At: time.Now()})
	return out
}

var errWarming = errors.New("the sender domain is being warmed and has reached its limit for today")

// untilTomorrow returns what is left of the UTC day. Warming counts by UTC days.
func untilTomorrow(now time.Time) time.Duration {
	return now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// settle queues what the outcomes leave to do and returns the reply for each
// part. kept says that some of the mail will be sent later.
//
// If all recipients of a part were refused, the client is told and tells the
// sender. Such a part needs neither the queue nor a bounce.
func (in *Intake) settle(ctx context.Context, s *transaction) (answers []*reply.Reply, kept bool) {
	var open, told []relay.Remainder // with somebody left to send to; with only a bounce left to send
	for _, part := range s.parts {
		switch t := tallyOf(part.Outcomes); {
		case t.unsettled > 0:
			open = append(open, part)
		case t.accepted > 0 && t.permanent > 0:
			told = append(told, part)
		}
	}
	err := in.keep(ctx, s, append(slices.Clone(open), told...))
	var refusal *reply.Reply
	if err != nil && len(told) > 0 {
		refusal = in.bounceFor(ctx, s, told, len(open) > 0, err)
	}
	answers = make([]*reply.Reply, len(s.parts))
	for i, part := range s.parts {
		t := tallyOf(part.Outcomes)
		switch {
		case t.accepted == len(part.Outcomes):
			answers[i] = acceptedAll(part)
		case t.permanent == len(part.Outcomes):
			answers[i] = in.refusedAll(part)
		case t.unsettled > 0:
			answers[i] = notKept(part, err)
			kept = kept || err == nil
		case refusal != nil:
			answers[i] = refusal
		default:
			answers[i] = acceptedExcept(part)
		}
	}
	return answers, kept
}

// notKept returns the reply to a part that is not settled. err is the queue's; nil
// if the part was queued.
func notKept(part relay.Remainder, err error) *reply.Reply {
	switch {
	case err == nil:
		return reply.Queued(part.Message.ID)
	case errors.Is(err, ErrNoQueue):
		return notNow(part.Outcomes)
	default:
		return notStored(err)
	}
}

// notStored returns the reply to mail that the queue did not take for the given reason.
func notStored(err error) *reply.Reply {
	if errors.Is(err, queue.ErrUnreachable) {
		return reply.QueueUnreachable().Because(err)
	}
	return reply.StorageFull().Because(err)
}

// keep queues the recipients of the given parts, except those whose earlier copy
// was taken.
func (in *Intake) keep(ctx context.Context, s *transaction, parts []relay.Remainder) error {
	if len(parts) == 0 {
		return nil
	}
	err := in.opt.Queue.Keep(ctx, s.before.split(selectRecipients(s.tried, func(to string) bool {
		if _, taken, _ := s.before.outcome(to); taken {
			return false
		}
		return slices.ContainsFunc(parts, func(p relay.Remainder) bool { return slices.Contains(p.Message.Recipients, to) })
	}))...)
	if err != nil && !errors.Is(err, ErrNoQueue) {
		in.opt.Log.Error("the mail cannot be queued", "id", s.message.ID, "cause", err)
	}
	return err
}

// bounceFor tells the sender which recipients of the given parts were refused,
// after the queue did not take them for the given cause. together says that the
// queue was asked to store these parts along with others; then it is asked again
// for these alone. If the sender cannot be told, it returns a reply that tells the
// client, the only one left who can know.
func (in *Intake) bounceFor(ctx context.Context, s *transaction, parts []relay.Remainder, together bool, cause error) *reply.Reply {
	if together {
		// What is open goes on under this id when it comes again. In the queue no id may
		// be the beginning of another, by which people name mail.
		m, again := *s.message, *s
		m.ID = relay.ContinueID(m.ID, relay.NewID(time.Now()))
		again.tried.Message, s = &m, &again
		if cause = in.keep(ctx, s, parts); cause == nil {
			return nil
		}
	}
	r := selectRecipients(s.tried, func(to string) bool {
		return slices.ContainsFunc(parts, func(p relay.Remainder) bool { return slices.Contains(p.Message.Recipients, to) })
	})
	return in.bounceNow(ctx, r, cause)
}

// bounceNow sends the bounce directly, because the queue did not take it for the
// given cause. If that fails too, it returns a reply that makes the client come
// again, so that the bounce is not lost. The next bounce then has the same id, and
// so the same idempotency key: this one may have been sent.
func (in *Intake) bounceNow(ctx context.Context, r relay.Remainder, cause error) *reply.Reply {
	m, now := r.Message, time.Now()
	log := in.opt.Log.With("id", m.ID, "from", m.From)
	failed, numbers := failures(r)
	raw, to, ok := bounce.Compose(in.settingsOf(m.Account).Bounce, m, failed, now)
	if !ok {
		in.opt.Tally.Count(bounce.Nobody, len(failed), now)
		log.Error("some recipients failed, and there is no sender to tell")
		return nil
	}
	b := &relay.Message{ID: queue.BounceID(relay.FirstID(m.ID), numbers), ReceivedAt: now, Recipients: []string{to}, Raw: raw, Account: m.Account, Client: relay.Client{Redirect: m.Client.Redirect}}
	_, body, err := in.mapped(ctx, log, b, &smtpd.Envelope{}) // without a reservation: a bounce is small
	if err != nil {
		log.Error("the bounce cannot be mapped", "bounce", b.ID, "cause", err)
		return reply.LocalError().Because(err)
	}
	in.opt.History.Note(history.NewCame(b, history.Head{BounceOf: m.ID}))
	out := in.tryAll(ctx, relay.Remainder{Message: b, Urgent: true}, body, nil)[0]
	if out.Kind == relay.Accepted {
		in.opt.Tally.Count(bounce.Told, len(failed), now)
		in.opt.History.Note(history.Told{ID: m.ID, Recipients: addresses(failed), Bounce: b.ID, At: now})
		return nil
	}
	log.Error("the bounce cannot be sent; the client was told to come again", "bounce", b.ID, "to", to, "outcome", out.Kind.String())
	in.opt.History.Note(history.GaveUp{ID: b.ID, To: to, Why: "the client was told to come again", At: time.Now()})
	switch {
	case !errors.Is(cause, ErrNoQueue):
		return notStored(cause)
	case out.Kind.Permanent():
		return reply.LocalError().Because(errNoBounce)
	default:
		return notNow([]relay.Outcome{out})
	}
}

var errNoBounce = errors.New("the API refuses the bounce to the sender")
