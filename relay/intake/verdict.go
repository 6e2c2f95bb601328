package intake

import (
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// tally counts a mail's outcomes.
type tally struct{ accepted, permanent, unsettled int }

func tallyOf(outcomes []relay.Outcome) tally {
	var t tally
	for _, out := range outcomes {
		switch {
		case out.Kind == relay.Accepted:
			t.accepted++
		case out.Kind.Permanent():
			t.permanent++
		default:
			t.unsettled++
		}
	}
	return t
}

func acceptedAll(r relay.Remainder) *reply.Reply {
	var ids []string
	for _, out := range r.Outcomes {
		if out.MessageID != "" { // that of who is in the queue is not known yet
			ids = append(ids, out.MessageID)
		}
	}
	return reply.Accepted(r.Message.ID, ids...)
}

func acceptedExcept(r relay.Remainder) *reply.Reply {
	var refused []string
	for i, out := range r.Outcomes {
		if out.Kind.Permanent() {
			refused = append(refused, r.Message.Named(r.Message.Recipients[i]))
		}
	}
	return reply.AcceptedExcept(r.Message.ID, unique(refused))
}

// refusedAll is for a mail that no recipient will get. What is wrong with the
// mail itself is said before what is wrong with a recipient: the sender can
// mend it.
func (in *Intake) refusedAll(r relay.Remainder) *reply.Reply {
	var suppressed []reply.Suppression
	told := map[string]bool{}
	for i, out := range r.Outcomes {
		to := r.Message.Recipients[i]
		switch out.Kind {
		case relay.TooLarge:
			return reply.TooLarge()
		case relay.Refused:
			return reply.RefusedByAPI(out.Detail)
		default:
			entry, _ := in.opt.Suppressions.Lookup(to, time.Now())
			if named := r.Message.Named(to); !told[named] {
				told[named] = true
				suppressed = append(suppressed, suppression(named, entry))
			}
		}
	}
	return reply.AllSuppressed(suppressed)
}

// notNow is for a mail that is not settled when there is no queue to keep it.
// The operator's fault comes first: nothing else helps until it is mended.
func notNow(outcomes []relay.Outcome) *reply.Reply {
	var wait time.Duration
	for _, out := range outcomes {
		switch out.Kind {
		case relay.Unauthorized:
			return reply.NotConfigured().Because(out.Cause)
		case relay.RateLimited:
			wait = max(wait, out.RetryAfter)
		}
	}
	if wait > 0 {
		return reply.RateLimited(wait)
	}
	return reply.APIUnavailable()
}

// failures are the recipients that were permanently refused, for the bounce,
// with their places in the message.
func failures(r relay.Remainder) (failed []bounce.Failure, places []int) {
	for i, out := range r.Outcomes {
		if out.Kind.Permanent() {
			failed = append(failed, bounce.Failure{Recipient: r.Message.Recipients[i], Reason: bounce.Reason(out)})
			places = append(places, i)
		}
	}
	return failed, places
}

func addresses(failed []bounce.Failure) []string {
	list := make([]string, len(failed))
	for i, f := range failed {
		list[i] = f.Recipient
	}
	return list
}

func suppression(address string, e suppress.Entry) reply.Suppression {
	return reply.Suppression{
		Address:    address,
		Reason:     e.Reason.Words(),
		HardBounce: e.Reason == suppress.HardBounce,
		Since:      e.Since,
	}
}

// Refusal turns what the mapping says of a mail into a reply.
func Refusal(err error) error {
	var r *mail.Refusal
	if !errors.As(err, &r) {
		return err
	}
	switch r.Reason {
	case mail.HasAttachment, mail.Encrypted:
		return reply.CannotCarry(r.Detail)
	case mail.TooCostly:
		return reply.TooLarge()
	case mail.SenderDomain:
		return reply.SenderDomainRefused(r.Detail)
	default:
		return reply.Unparsable(r.Detail)
	}
}
