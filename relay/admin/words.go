package admin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// view is the state of the relay at one moment. The words about a recipient depend on
// it.
type view struct {
	now     time.Time
	running bool
	pace    pace.State         // when running; the default account's
	warming []warm.DomainState // the default account's
	others  map[string]accountView
	unkept  bool // there is no queue, so the client must keep what cannot be sent now
	full    bool // the queue takes no mail
}

// accountView is the state of one account.
type accountView struct {
	name    string
	pace    pace.State
	warming []warm.DomainState
}

// all returns all accounts, the default one first.
func (v view) all() []accountView {
	list := []accountView{{relay.DefaultAccount, v.pace, v.warming}}
	for _, name := range slices.Sorted(maps.Keys(v.others)) {
		list = append(list, v.others[name])
	}
	return list
}

// why says what became of a recipient, or what it waits for.
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
	case v.orphan(m):
		return join("its account "+text(m.Message.Account)+" is not in the configuration", last)
	case r.Due.After(v.now):
		return cmp.Or(last, "not due yet")
	default:
		why, _ := v.turn(m)
		return join(why, last)
	}
}

// orphan reports whether a mail waits for an account that a running relay has not.
func (v view) orphan(m queue.Mail) bool {
	_, known := v.others[m.Message.Account]
	return v.running && m.Message.Account != "" && !known
}

// turn says what a recipient that is due waits for, and until when. The zero time means
// that it is its turn, or that the time is not known.
func (v view) turn(m queue.Mail) (why string, until time.Time) {
	of, known := accountView{pace: v.pace, warming: v.warming}, true
	if m.Message.Account != "" {
		of, known = v.others[m.Message.Account]
	}
	p := of.pace
	switch b := p.Breaker; {
	case !v.running:
		return "no daemon runs", time.Time{}
	case !known:
		return "", time.Time{} // see why
	case b.Open && p.PausedUntil.After(b.ProbeAt):
		return breakerWhy(b), p.PausedUntil
	case b.Open:
		return breakerWhy(b), b.ProbeAt
	case p.PausedUntil.After(v.now):
		return string(pace.Paused), p.PausedUntil
	}
	for _, d := range of.warming {
		if !m.Urgent && strings.EqualFold(d.Domain, m.Domain) && d.Full() {
			return text(d.Why()), d.Next
		}
	}
	return "its turn comes", time.Time{}
}

// next returns the earliest time at which a waiting recipient can be tried.
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

// outcomeText describes the outcome of an attempt in one line.
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
		return text(o.Detail) // the relay wrote it, not the API
	}
	if said := saidText(o); said != "" {
		return words + ": " + said
	}
	return words
}

// saidText returns what the API answered, or why there is no answer, or "".
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

// kindText describes an outcome for a person.
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

// addWords describes every step of a mail in words.
func addWords(m *history.Mail) {
	for i := range m.Recipients {
		for j := range m.Recipients[i].Steps {
			s := &m.Recipients[i].Steps[j]
			s.Words = stepText(*s)
		}
	}
}

func stepText(s history.Step) string {
	switch s.What {
	case history.StepAnswered:
		return "the client was told " + s.Text
	case history.StepTried:
		if s.Attempt != nil {
			return attemptText(*s.Attempt)
		}
	case history.StepGaveUp:
		return "given up: " + s.Text
	case history.StepTold:
		return "the sender is told, by mail " + s.Text
	case history.StepNotTold:
		return "failed, and nobody can be told"
	case history.StepDropped:
		return "dropped from the queue by an operator; nobody is told"
	case history.StepRetried:
		return "to be tried again, says an operator"
	case history.StepEvent:
		if s.Event != nil {
			return eventText(*s.Event)
		}
	}
	return string(s.What)
}

func attemptText(a history.Attempt) string {
	o := relay.Outcome{Kind: kindOf(a.Outcome), Status: a.Status, MessageID: a.MessageID, Detail: a.Detail}
	if a.Cause != "" {
		o.Cause = errors.New(a.Cause)
	}
	if a.Untried {
		if a.Cause != "" {
			return "not tried: " + a.Cause
		}
		return "not tried: " + kindText(o)
	}
	return fmt.Sprintf("attempt %d: %s", a.Number, outcomeText(queue.Attempt{Outcome: o, Unknown: a.Outcome == "unknown"}))
}

func kindOf(name string) relay.Kind {
	for _, k := range relay.Kinds() {
		if k.String() == name {
			return k
		}
	}
	return relay.Unavailable
}

// eventText describes an event of the provider.
func eventText(e history.Event) string {
	words := map[string]string{
		relay.EventHardBounce:  "bounced for good",
		relay.EventSoftBounce:  "bounced for now",
		relay.EventComplaint:   "the recipient complained of it as spam",
		relay.EventUnsubscribe: "the recipient unsubscribed",
	}[e.Type]
	if words == "" {
		words = e.Type // delivered, opened, clicked, sent, or one that is new
	}
	if why := strings.TrimSpace(e.Code + " " + e.Reason); why != "" {
		words += ": " + why
	}
	return "the provider tells: " + words
}
