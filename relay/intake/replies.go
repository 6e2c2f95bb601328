package intake

import (
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// replies are the SMTP replies to a message.
type replies struct {
	each []*reply.Reply
	of   []string // the recipient of each reply, as named in RCPT; nil: one reply for all
	kept bool     // some of the mail is in the queue
}

func forAll(r *reply.Reply) replies { return replies{each: []*reply.Reply{r}} }

// main returns the reply that stands for the message in logs and metrics: the
// first positive one, else the first.
func (v replies) main() *reply.Reply {
	if i := slices.IndexFunc(v.each, (*reply.Reply).Positive); i >= 0 {
		return v.each[i]
	}
	return v.each[0]
}

// to returns the replies in the order of the given recipients. It returns false
// if there is no reply for one of them.
func (v replies) to(recipients []string) (replies, bool) {
	each := make([]*reply.Reply, len(recipients))
	for i, rcpt := range recipients {
		switch at := slices.Index(v.of, rcpt); {
		case v.of == nil:
			each[i] = v.each[0]
		case at < 0:
			return replies{}, false
		default:
			each[i] = v.each[at]
		}
	}
	v.each, v.of = each, recipients
	return v, true
}

// tally counts the outcomes of a part.
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
		if out.MessageID != "" { // not known yet for one in the queue
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

// refusedAll returns the reply if no recipient will get the mail. A fault of the
// mail is reported before a fault of a recipient, because the sender can correct
// it.
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
			entry, _ := in.of(r.Message.Account).Suppressions.Lookup(to, time.Now())
			if named := r.Message.Named(to); !told[named] {
				told[named] = true
				suppressed = append(suppressed, suppression(named, entry))
			}
		}
	}
	return reply.AllSuppressed(suppressed)
}

// notNow returns the reply to mail that is not settled if there is no queue. A
// refused API key is reported first: until the operator corrects it, nothing else
// helps.
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

// failures returns the recipients that were refused for good, and a number for
// each that is the same whichever others the mail comes again with.
func failures(r relay.Remainder) (failed []bounce.Failure, numbers []int) {
	for i, out := range r.Outcomes {
		if out.Kind.Permanent() {
			failed = append(failed, bounce.Failure{Recipient: r.Message.Recipients[i], Reason: bounce.Reason(out)})
			numbers = append(numbers, int(crc32.ChecksumIEEE([]byte(suppress.Normalise(r.Message.Recipients[i])))))
		}
	}
	return failed, numbers
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

// Refusal returns the SMTP reply for an error of mail.Map.
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
