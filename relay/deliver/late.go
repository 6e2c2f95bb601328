package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// LateBounces says of which failures that the provider tells later the sender is told.
// internal/settings explains the tags.
type LateBounces struct {
	Late       bool `toml:"late" default:"true" doc:"Whether the sender is told when a mail bounces after the provider took it, which the provider's event bounced.hard says. It needs the webhook and the history."`
	Complaints bool `toml:"complaints" doc:"Whether the sender is also told when a recipient reports the mail as spam."`
}

// tells reports whether the sender is told of such an event.
func (l LateBounces) tells(kind string) bool {
	return kind == relay.EventHardBounce && l.Late || kind == relay.EventComplaint && l.Complaints
}

// Records is the history of mail that the API took. history.Store and history.Recorder
// have its methods.
type Records interface {
	// Find returns recipients by the API's message_id, among others.
	Find(ctx context.Context, q history.Query) ([]history.Mail, string, error)
	Get(ctx context.Context, id string) (history.Mail, bool, error)
	// Flush writes what Find may not see yet.
	Flush(ctx context.Context) error
	// Write returns when the changes are durable.
	Write(ctx context.Context, changes []history.Change) error
}

const (
	// lateYoung is how old an event is whose mail may not be recorded yet: the provider
	// can tell of a mail before its answer to the call has reached us.
	lateYoung = time.Minute
	// lateLook is how long the record of a young one is waited for.
	lateLook = 200 * time.Millisecond
	lateTry  = 5 // times
)

// Late tells the sender of a mail that failed after the API had taken it, if that is what
// e says. It returns when the bounce, and that it was written, are durable. However
// often it is told of a recipient of a mail, and by whichever events, the sender is told
// once: the record says so, and until it does, the id of the bounce is that of the
// first.
func (e *Engine) Late(ctx context.Context, event relay.Event) error {
	if e.opt.Records == nil || event.MessageID == "" || !e.set.Load().tells(event.Type) {
		return nil
	}
	id, err := e.findSent(ctx, event)
	if err != nil || id == "" {
		return err
	}
	e.late.Lock() // from reading the record until it is written
	defer e.late.Unlock()
	m, found, err := e.opt.Records.Get(ctx, id)
	if err != nil || !found {
		return err
	}
	i := slices.IndexFunc(m.Recipients, func(r history.Recipient) bool { return r.APIID == event.MessageID })
	if i < 0 || !untold(m.Recipients[i]) {
		return nil
	}
	return e.tellLate(ctx, m, m.Recipients[i].Addr, event)
}

// findSent returns the id of the mail that the API took as event.MessageID; "" if it was
// not ours, or not of the account whose event it is: who can sign events of one account
// says nothing about the mail of another.
func (e *Engine) findSent(ctx context.Context, event relay.Event) (id string, err error) {
	for try := range lateTry {
		// Events of a kind that is told are rare, so that each can have the history written.
		if err := e.opt.Records.Flush(ctx); err != nil && !errors.Is(err, history.ErrStopped) {
			return "", err
		}
		page, _, err := e.opt.Records.Find(ctx, history.Query{Name: event.MessageID})
		if err != nil {
			return "", err
		}
		for _, m := range page {
			if m.Recipients[0].APIID == event.MessageID && m.Account == event.Account {
				return m.ID, nil
			}
		}
		if try == lateTry-1 || event.Created.IsZero() || event.Received.Sub(event.Created).Abs() > lateYoung {
			return "", nil
		}
		select {
		case <-time.After(lateLook):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "", nil
}

// untold reports whether the API has the mail and nobody was told of a failure.
func untold(r history.Recipient) bool {
	took := []history.State{history.Sent, history.Delivered, history.Complained, history.Bounced}
	return slices.Contains(took, r.State) && !slices.ContainsFunc(r.Steps, func(s history.Step) bool {
		return s.What == history.StepTold || s.What == history.StepNotTold
	})
}

// tellLate enqueues the bounce, or records that there is none.
func (e *Engine) tellLate(ctx context.Context, m history.Mail, to string, event relay.Event) error {
	now := e.opt.Now()
	told := history.Told{ID: m.ID, Recipients: []string{to}, Late: true, At: now}
	if of := m.Client.CopyOf; of != "" {
		e.opt.Log.Warn("a copy for the archive failed after it was sent", "id", m.ID, "copy_of", of, "to", to, "event", event.ID, "type", event.Type)
		if err := e.opt.Records.Write(ctx, history.Changes(told)); err != nil {
			return err
		}
		e.opt.Copies.Count(archive.Failed, now)
		return nil
	}
	facts := []history.Fact{}
	mail, came := e.lateBounce(m, to, event, now)
	if mail != nil {
		if err := e.opt.Queue.Enqueue(ctx, *mail); err != nil {
			return err
		}
		told.Bounce = mail.Message.ID
		facts = append(facts, history.NewCame(&mail.Message, history.Head{BounceOf: m.ID}))
	}
	if err := e.opt.Records.Write(ctx, history.Changes(append(facts, told)...)); err != nil {
		return err
	}
	if mail != nil {
		e.sentTo.count(suppress.Normalise(mail.Recipients[0].Addr), now)
	}
	e.opt.Tally.Count(came, 1, now)
	return nil
}

// lateBounce composes the bounce; nil if nobody is to be told.
func (e *Engine) lateBounce(m history.Mail, failed string, event relay.Event, now time.Time) (*queue.Mail, bounce.Telling) {
	by := e.engineOf(m.Account)
	set := by.set.Load()
	msg := relay.Message{ID: m.ID, From: m.Sender, ReceivedAt: m.Received, Raw: headerOf(m)}
	compose, why := bounce.Compose, "the mail provider took the message, and it bounced later"
	if said := joined(event.BounceCode, event.BounceReason); said != "" {
		why += ": " + said
	}
	if event.Type == relay.EventComplaint {
		compose, why = bounce.ComposeComplaint, "the mail provider was told so"
	}
	text, to, ok := compose(set.Bounce, &msg, []bounce.Failure{{Recipient: failed, Reason: why}}, now)
	log := e.opt.Log.With("id", m.ID, "from", m.Sender, "to", failed, "event", event.ID, "type", event.Type)
	switch {
	case !ok || m.AutoReply || m.BounceOf != "":
		log.Warn("failed after it was sent; nobody can be told")
		return nil, bounce.Nobody
	case e.sentTo.full(suppress.Normalise(to), now, set.PerHour):
		log.Warn("failed after it was sent; the sender was told of too many failures in the last hour to be told of this one", "sender", to)
		return nil, bounce.TooMany
	}
	mail := queue.NewMail(relay.Message{
		ID: queue.LateBounceID(m.ID, suppress.Normalise(failed)), Recipients: []string{to}, Raw: text, ReceivedAt: now, Account: m.Account,
		Client: relay.Client{Redirect: set.Mapping.ForClient(m.Client).Redirect},
	})
	mail.BounceOf, mail.Urgent = m.ID, true
	log.Info("failed after it was sent; the sender is told", "bounce", mail.Message.ID, "sender", to)
	return &mail, bounce.Told
}

// headerOf is what the history has of a mail's header.
func headerOf(m history.Mail) []byte {
	var b []byte
	if m.MessageID != "" {
		b = append(b, "Message-ID: <"+m.MessageID+">\r\n"...)
	}
	if m.Subject != "" {
		b = append(b, "Subject: "+m.Subject+"\r\n"...)
	}
	return b
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}
