package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Keep enqueues what the first try left to do, durably before it returns nil.
// It makes an Engine relay/intake's Queue.
func (e *Engine) Keep(ctx context.Context, r relay.Remainder) error {
	mail := queue.NewMail(*r.Message)
	mail.Lane = suppress.Normalise(r.Message.From)
	mail.Domain, mail.Urgent = r.Domain, r.Urgent
	now := e.opt.Now()
	failed := queue.Bounce{}
	for i, out := range r.Outcomes {
		e.record(&mail.Recipients[i], out, now)
		if mail.Recipients[i].State == queue.Failed {
			failed.Failed = append(failed.Failed, mail.Recipients[i])
		}
	}
	err := e.opt.Queue.Enqueue(ctx, mail)
	e.refuses.Store(err != nil)
	failed.Mail = mail
	switch {
	case errors.Is(err, queue.ErrFull) && !slices.ContainsFunc(mail.Recipients, func(r queue.Recipient) bool { return r.State.Open() }):
		return e.keepBounce(ctx, failed, err)
	case err == nil && len(failed.Failed) > 0:
		e.untold.gaveUp(r.Message.ID)
	}
	return err
}

// TakesMail is false when the queue did not take the mail that came last. It may
// then have none at all with which the engine could test an API that is down.
func (e *Engine) TakesMail() bool { return !e.refuses.Load() }

// keepBounce enqueues the bounce of a mail for which the queue has no room and
// of which nothing else is left to do. Where nobody can be told it returns full,
// why there is no room: the client is then the only one who can be.
func (e *Engine) keepBounce(ctx context.Context, b queue.Bounce, full error) error {
	mail, came := e.bounceFor(b, b.Mail.Message.Raw)
	if came == bounce.Nobody {
		return full
	}
	if mail != nil {
		if err := e.opt.Queue.Enqueue(ctx, *mail); err != nil {
			return errors.Join(full, err)
		}
	}
	e.noteTold(b, mail, came)
	return nil
}

// record writes the first try into a recipient's state.
func (e *Engine) record(r *queue.Recipient, out relay.Outcome, now time.Time) {
	if out.Untried && !out.Kind.Permanent() {
		return
	}
	claim := queue.Claim{Attempt: 1, Since: now}
	s := e.decide(claim, out, now)
	r.History = []queue.Attempt{{Started: now.Add(-out.Took), Outcome: out, NotAnAttempt: s.NotAnAttempt}}
	if !s.NotAnAttempt {
		r.Attempts = 1
	}
	switch s.Result {
	case queue.Done:
		r.State, r.Ended = queue.Sent, now
	case queue.GaveUp:
		r.State, r.Ended = queue.Failed, now
	default:
		r.State, r.Due = queue.Waiting, s.Due
	}
}
