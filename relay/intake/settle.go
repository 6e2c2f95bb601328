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
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// tryAll tries every recipient at once; relay/pace bounds how many calls are
// made. It returns when no call is in flight any more, which the API's
// time-out bounds.
func (in *Intake) tryAll(ctx context.Context, r relay.Remainder, body *mail.Body) []relay.Outcome {
	wait := in.set.Load().Wait
	if wait == 0 || in.calls.Err() != nil { // all mail goes to the queue
		return slices.Repeat([]relay.Outcome{{Kind: relay.Unavailable, Untried: true}}, len(r.Message.Recipients))
	}
	turn, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(in.calls, cancel)()
	trace := attempt.Trace(r.Message.Raw)
	outcomes := make([]relay.Outcome, len(r.Message.Recipients))
	var wg sync.WaitGroup
	for i, to := range r.Message.Recipients {
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

// settle sees to what the outcomes leave to do and answers each of the parts,
// which are whom the client is to be answered for. kept is whether any of it is
// to be sent later.
//
// A part that nobody in it will get is refused, and whoever hears that tells
// the sender: it has no place in the queue, and no bounce.
func (in *Intake) settle(ctx context.Context, r relay.Remainder, parts []relay.Remainder) (answers []*reply.Reply, kept bool) {
	var rest []relay.Remainder
	for _, part := range parts {
		if t := tallyOf(part.Outcomes); t.accepted < len(part.Outcomes) && t.permanent < len(part.Outcomes) {
			rest = append(rest, part)
		}
	}
	var err error
	if len(rest) > 0 {
		err = in.keep(ctx, r, rest)
	}
	answers = make([]*reply.Reply, len(parts))
	for i, part := range parts {
		answers[i] = in.answer(ctx, part, err)
		kept = kept || err == nil && tallyOf(part.Outcomes).unsettled > 0
	}
	return answers, kept
}

// keep has the queue keep those of a message that are in any of the parts.
func (in *Intake) keep(ctx context.Context, r relay.Remainder, parts []relay.Remainder) error {
	err := in.opt.Queue.Keep(ctx, only(r, func(to string) bool {
		return slices.ContainsFunc(parts, func(p relay.Remainder) bool { return slices.Contains(p.Message.Recipients, to) })
	}))
	if err != nil && !errors.Is(err, ErrNoQueue) {
		in.opt.Log.Error("the mail cannot be kept", "id", r.Message.ID, "cause", err)
	}
	return err
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

// answer is the reply to one part; err is the queue's.
func (in *Intake) answer(ctx context.Context, part relay.Remainder, err error) *reply.Reply {
	t := tallyOf(part.Outcomes)
	switch {
	case t.accepted == len(part.Outcomes):
		return acceptedAll(part)
	case t.permanent == len(part.Outcomes):
		return in.refusedAll(part)
	case errors.Is(err, ErrNoQueue) && t.unsettled > 0:
		return notNow(part.Outcomes)
	case err != nil && t.unsettled > 0:
		return reply.StorageFull().Because(err)
	case err != nil:
		// Some have the mail already, and a client that is told no would send it
		// to them again.
		in.bounceNow(ctx, part)
	case t.unsettled > 0:
		return reply.Queued(part.Message.ID)
	}
	return acceptedExcept(part)
}

// bounceNow tells the sender at once of the recipients that failed: without a
// queue there is nowhere to keep the bounce. If that fails too the log is the
// only place left, and it says so loudly.
func (in *Intake) bounceNow(ctx context.Context, r relay.Remainder) {
	m := r.Message
	log := in.opt.Log.With("id", m.ID, "from", m.From)
	raw, to, ok := bounce.Compose(in.set.Load().Bounce, m, failures(r), time.Now())
	if !ok {
		log.Error("some recipients failed and the sender cannot be told")
		return
	}
	now := time.Now()
	b := &relay.Message{ID: relay.NewID(now), ReceivedAt: now, Recipients: []string{to}, Raw: raw}
	_, body, err := in.mapped(ctx, log, b, &smtpd.Envelope{}) // a bounce is small
	if err != nil {
		log.Error("the bounce could not be made", "bounce", b.ID, "cause", err)
		return
	}
	in.noteBounce(m, b, failedOf(r))
	if out := in.tryAll(ctx, relay.Remainder{Message: b, Urgent: true}, body)[0]; out.Kind != relay.Accepted {
		log.Error("the bounce could not be sent", "bounce", b.ID, "to", to, "outcome", out.Kind.String())
		in.opt.History.Note(history.GaveUp{ID: b.ID, To: to, Why: "there is no queue to try again from", At: time.Now()})
	}
}
