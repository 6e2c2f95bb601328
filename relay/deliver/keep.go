package deliver

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Keep enqueues what the first try left to do, durably before it returns nil.
// It makes an Engine relay/intake's Queue.
func (e *Engine) Keep(ctx context.Context, r relay.Remainder) error {
	mail := queue.NewMail(*r.Message)
	mail.Lane = suppress.Normalise(r.Message.From)
	mail.Domain, mail.Urgent = r.Domain, r.Urgent
	now := time.Now()
	failed := false
	for i, out := range r.Outcomes {
		e.record(&mail.Recipients[i], out, now)
		failed = failed || out.Kind.Permanent()
	}
	err := e.opt.Queue.Enqueue(ctx, mail)
	if err == nil && failed {
		note(e.failed)
	}
	return err
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
