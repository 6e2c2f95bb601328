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

// tryAll tries every recipient at once, but for those of whom an earlier copy
// said enough; relay/pace bounds how many calls are made. It returns when no call
// is in flight any more, which the API's time-out bounds.
func (in *Intake) tryAll(ctx context.Context, r relay.Remainder, body provider.Body, before earlier) []relay.Outcome {
	wait := in.set.Load().Wait
	turn, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(in.calls, cancel)()
	trace := attempt.Trace(r.Message.Raw)
	outcomes := make([]relay.Outcome, len(r.Message.Recipients))
	var wg sync.WaitGroup
	for i, to := range r.Message.Recipients {
		if out, _, known := before.end(to); known {
			outcomes[i] = out
			continue
		}
		if wait == 0 || in.calls.Err() != nil { // all mail goes to the queue
			outcomes[i] = relay.Outcome{Kind: relay.Unavailable, Untried: true}
			continue
		}
		wg.Go(func() {
			outcomes[i] = in.try(turn, r, attempt.Attempt{
				MessageID: r.Message.ID, From: r.Message.From, To: to, Number: 1, Body: body,
				Session: r.Message.Client.Session, Trace: trace,
			})
		})
	}
	wg.Wait()
	return outcomes
}

// try tries one recipient, if its sender's domain may still send today.
func (in *Intake) try(turn context.Context, r relay.Remainder, a attempt.Attempt) relay.Outcome {
	now := time.Now()
	if _, aliased := r.Message.Aliases[a.To]; aliased {
		// RCPT lets an alias through for the others it stands for.
		if _, suppressed := in.opt.Suppressions.Lookup(a.To, now); suppressed {
			return in.untried(a, relay.Outcome{Kind: relay.Suppressed})
		}
	}
	if !in.opt.Warming.Take(r.Domain, r.Urgent, now) {
		return in.untried(a, relay.Outcome{Kind: relay.RateLimited, Untried: true, Cause: errWarming, RetryAfter: untilTomorrow(now)})
	}
	out := in.opt.Attempts.Try(turn, a)
	if out.Kind == relay.Accepted {
		in.opt.Warming.Sent(r.Domain, now)
	} else {
		in.opt.Warming.Return(r.Domain, now)
	}
	return out
}

// untried notes an outcome for which no attempt was made.
func (in *Intake) untried(a attempt.Attempt, out relay.Outcome) relay.Outcome {
	noted := out
	noted.Untried = true
	in.opt.History.Note(history.Tried{ID: a.MessageID, From: a.From, To: a.To, Number: a.Number, Outcome: noted, At: time.Now()})
	return out
}

var errWarming = errors.New("the sender's domain is being warmed and has sent its share of today")

// untilTomorrow is how long the UTC day still lasts, which warming counts by.
func untilTomorrow(now time.Time) time.Duration {
	return now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// settle sees to what the outcomes leave to do and answers each of the parts.
// kept is whether any of it is to be sent later.
//
// A part that nobody in it will get is refused, and whoever hears that tells
// the sender: it has no place in the queue, and no bounce.
func (in *Intake) settle(ctx context.Context, s *story) (answers []*reply.Reply, kept bool) {
	var open, told []relay.Remainder // to be sent to somebody yet; to be told of only
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

// notKept is the reply to a part that is not settled; err is the queue's, nil
// if it keeps it.
func notKept(part relay.Remainder, err error) *reply.Reply {
	switch {
	case err == nil:
		return reply.Queued(part.Message.ID)
	case errors.Is(err, ErrNoQueue):
		return notNow(part.Outcomes)
	default:
		return reply.StorageFull().Because(err)
	}
}

// keep has the queue keep those of a message that are in any of the parts, but
// for those whom an earlier copy was taken for.
func (in *Intake) keep(ctx context.Context, s *story, parts []relay.Remainder) error {
	if len(parts) == 0 {
		return nil
	}
	err := in.opt.Queue.Keep(ctx, only(s.tried, func(to string) bool {
		if _, taken, _ := s.before.end(to); taken {
			return false
		}
		return slices.ContainsFunc(parts, func(p relay.Remainder) bool { return slices.Contains(p.Message.Recipients, to) })
	}))
	switch {
	case err == nil:
		s.handled.kept = true
	case !errors.Is(err, ErrNoQueue):
		in.opt.Log.Error("the mail cannot be kept", "id", s.message.ID, "cause", err)
	}
	return err
}

// bounceFor has the sender told of the recipients that were refused, of parts of
// which nothing else is left to do and which the queue did not take, for a cause:
// together with others that are to be sent, or alone. If the sender cannot be told either it returns
// what the client is told, who is the last that can be.
func (in *Intake) bounceFor(ctx context.Context, s *story, parts []relay.Remainder, together bool, cause error) *reply.Reply {
	if together {
		if cause = in.keep(ctx, s, parts); cause == nil {
			return nil
		}
	}
	r := only(s.tried, func(to string) bool {
		return slices.ContainsFunc(parts, func(p relay.Remainder) bool { return slices.Contains(p.Message.Recipients, to) })
	})
	return in.bounceNow(ctx, r, cause)
}

// only is what is left of a message for some of its recipients.
func only(r relay.Remainder, in func(to string) bool) relay.Remainder {
	m := *r.Message
	m.Recipients = nil
	var outcomes []relay.Outcome
	for i, to := range r.Message.Recipients {
		if in(to) {
			m.Recipients, outcomes = append(m.Recipients, to), append(outcomes, r.Outcomes[i])
		}
	}
	r.Message, r.Outcomes = &m, outcomes
	return r
}

// bounceNow tells the sender at once of the recipients that failed, because the
// queue does not keep the bounce, for a cause. A bounce that cannot be sent either
// would be lost: then it returns a reply by which the client comes again. The
// bounce has the same id then, and so the same key, for it may have been sent.
func (in *Intake) bounceNow(ctx context.Context, r relay.Remainder, cause error) *reply.Reply {
	m, now := r.Message, time.Now()
	log := in.opt.Log.With("id", m.ID, "from", m.From)
	failed, numbers := failures(r)
	raw, to, ok := bounce.Compose(in.set.Load().Bounce, m, failed, now)
	if !ok {
		in.opt.Tally.Count(bounce.Nobody, len(failed), now)
		log.Error("some recipients failed and the sender cannot be told")
		return nil
	}
	b := &relay.Message{ID: queue.BounceID(m.ID, numbers), ReceivedAt: now, Recipients: []string{to}, Raw: raw}
	_, body, err := in.mapped(ctx, log, b, &smtpd.Envelope{}) // a bounce is small
	if err != nil {
		log.Error("the bounce could not be made", "bounce", b.ID, "cause", err)
		return reply.LocalError().Because(err)
	}
	in.opt.History.Note(history.NewCame(b, history.Head{BounceOf: m.ID}))
	out := in.tryAll(ctx, relay.Remainder{Message: b, Urgent: true}, body, nil)[0]
	if out.Kind == relay.Accepted {
		in.opt.Tally.Count(bounce.Told, len(failed), now)
		in.opt.History.Note(history.Told{ID: m.ID, Recipients: addresses(failed), Bounce: b.ID, At: now})
		return nil
	}
	log.Error("the bounce could not be sent; the client has to come again", "bounce", b.ID, "to", to, "outcome", out.Kind.String())
	in.opt.History.Note(history.GaveUp{ID: b.ID, To: to, Why: "the client was told to come again", At: time.Now()})
	switch {
	case !errors.Is(cause, ErrNoQueue):
		return reply.StorageFull().Because(cause)
	case out.Kind.Permanent():
		return reply.LocalError().Because(errNoBounce)
	default:
		return notNow([]relay.Outcome{out})
	}
}

var errNoBounce = errors.New("the API refuses the bounce to the sender")
