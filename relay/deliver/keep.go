package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// copiesLane is that of all copies for the archive, so that no sender's mail waits behind
// them. It is nobody's address.
const copiesLane = "copies for the archive"

// Keep enqueues what intake left to do. When it returns nil, that is on disk. It
// implements intake.Queue.
func (e *Engine) Keep(ctx context.Context, parts ...relay.Remainder) error {
	mails, failed := make([]queue.Mail, len(parts)), make([]queue.Bounce, len(parts))
	open, now := false, e.opt.Now()
	for i, r := range parts {
		mail := queue.NewMail(*r.Message)
		mail.Lane = suppress.Normalise(r.Message.From)
		if r.Message.Client.CopyOf != "" {
			mail.Lane = copiesLane
		}
		mail.Domain, mail.Urgent = r.Domain, r.Urgent
		for n, out := range r.Outcomes {
			to := &mail.Recipients[n]
			e.record(to, out, now)
			open = open || to.State.Open()
			if to.State == queue.Failed {
				failed[i].Failed = append(failed[i].Failed, *to)
			}
		}
		mails[i], failed[i].Mail = mail, mail
	}
	err := e.opt.Queue.Enqueue(ctx, mails...)
	e.refuses.Store(err != nil)
	if errors.Is(err, queue.ErrFull) && !open && len(parts) == 1 {
		return e.keepBounce(ctx, failed[0], err)
	}
	for _, b := range failed {
		if err == nil && len(b.Failed) > 0 {
			e.pendingBounces.gaveUp(b.Mail.Message.ID)
		}
	}
	return err
}

// TakesMail returns false if the queue refused the mail that came last. Then there
// may be no queued mail with which the engine could probe an API that is down.
func (e *Engine) TakesMail() bool { return !e.refuses.Load() }

// keepBounce enqueues the bounce of a mail for which the queue had no room, and
// of which nothing but the bounce is left. If nobody can be told it returns full,
// the queue's error, so that the client is told instead.
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
	e.recordBounce(b, mail, came)
	return nil
}

// record records intake's attempt in the recipient's state.
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
