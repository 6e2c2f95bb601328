package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// view is how the relay stands at one moment: what the words about a recipient
// depend on besides itself.
type view struct {
	now     time.Time
	running bool
	pace    pace.State // when running
	unkept  bool       // there is no queue: what cannot be sent now is the client's again
	warming []warm.DomainState
}

// why says in words what came of a recipient, or what it waits for.
func (v view) why(m queue.Mail, r queue.Recipient) string {
	last := ""
	if a, ok := r.Last(); ok {
		last = outcomeText(a)
	}
	switch {
	case r.State == queue.Held:
		return join("held by an operator", last)
	case r.State == queue.Claimed:
		return "being tried now"
	case r.State == queue.Failed && m.Damaged:
		return queue.ErrDamaged.Error()
	case r.State != queue.Waiting:
		return cmp.Or(last, r.State.String())
	case r.Due.After(v.now):
		return cmp.Or(last, "not due yet")
	default:
		why, _ := v.turn(m)
		return join(why, last)
	}
}

// turn says what a recipient that is due waits for, and until when; the zero
// Time is now, or not known.
func (v view) turn(m queue.Mail) (why string, until time.Time) {
	switch b := v.pace.Breaker; {
	case !v.running:
		return "no daemon runs", time.Time{}
	case b.Open && v.pace.PausedUntil.After(b.ProbeAt):
		return breakerWhy(b), v.pace.PausedUntil
	case b.Open:
		return breakerWhy(b), b.ProbeAt
	case v.pace.PausedUntil.After(v.now):
		return string(pace.Paused), v.pace.PausedUntil
	}
	for _, d := range v.warming {
		if !m.Urgent && strings.EqualFold(d.Domain, m.Domain) && d.Full() {
			return text(d.Why()), d.Next
		}
	}
	return "its turn comes", time.Time{}
}

// next is the soonest that a waiting recipient can be tried.
func (v view) next(m queue.Mail, r queue.Recipient) time.Time {
	if _, until := v.turn(m); until.After(r.Due) {
		return until
	}
	return r.Due
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; last: " + b
}

// outcomeText is what came of an attempt, in one line of words.
func outcomeText(a queue.Attempt) string {
	o := a.Outcome
	if a.Unknown {
		return "interrupted: it may have been sent"
	}
	words := kindText(o)
	if o.Kind == relay.RateLimited && o.RetryAfter > 0 {
		words += fmt.Sprintf(" for %s", o.RetryAfter.Round(time.Second))
	}
	if o.Kind == relay.Unavailable && o.Status == 0 && o.Cause == nil && o.Detail != "" {
		return text(o.Detail) // not the API's fault: the relay's own note
	}
	if said := saidText(o); said != "" {
		return words + ": " + said
	}
	return words
}

// saidText is what the API answered, or what stood in the way of an answer; ""
// when nothing is known.
func saidText(o relay.Outcome) string {
	var more []string
	if o.Status != 0 {
		more = append(more, fmt.Sprintf("HTTP %d", o.Status))
	}
	switch {
	case o.Detail != "":
		more = append(more, text(o.Detail))
	case o.Cause != nil:
		more = append(more, text(o.Cause.Error()))
	case o.MessageID != "":
		more = append(more, text(o.MessageID))
	}
	return strings.Join(more, " ")
}

// kindText is an outcome's kind for people.
func kindText(o relay.Outcome) string {
	switch o.Kind {
	case relay.Accepted:
		return "sent"
	case relay.Suppressed:
		return "on the provider's suppression list"
	case relay.Refused:
		return "refused by the API"
	case relay.TooLarge:
		return "too large for the API"
	case relay.Unauthorized:
		if o.Status == http.StatusForbidden {
			return "forbidden by the API"
		}
		return "the API refused the key"
	case relay.RateLimited:
		return "the API asked to wait"
	case relay.Ambiguous:
		return "no answer: it may have been sent"
	default:
		return "the API was not available"
	}
}
