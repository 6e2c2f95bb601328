package forward

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Event is what is posted. A field that is not known is left out.
type Event struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Created time.Time `json:"created_at"` // when it happened

	QueueID      string            `json:"queue_id,omitempty"`
	MessageID    string            `json:"message_id,omitempty"` // the mail's own header, without angles
	Headers      map[string]string `json:"headers,omitempty"`
	Account      string            `json:"account,omitempty"` // missing is the default one
	Sender       string            `json:"sender,omitempty"`  // of the envelope
	Recipient    string            `json:"recipient"`
	APIMessageID string            `json:"api_message_id,omitempty"`

	Reason   string         `json:"reason,omitempty"`    // why it failed, or what the client was told
	BounceID string         `json:"bounce_id,omitempty"` // the queue id of the mail that told the sender
	Provider *ProviderEvent `json:"provider,omitempty"`
}

// ProviderEvent is what the provider told.
type ProviderEvent struct {
	ID     string    `json:"id"`
	Type   string    `json:"type"`
	At     time.Time `json:"timestamp,omitzero"`
	Code   string    `json:"bounce_code,omitempty"`
	Reason string    `json:"bounce_reason,omitempty"`
}

// Mails is the history. Get and Find are history.Store's.
type Mails interface {
	Get(ctx context.Context, id string) (history.Mail, bool, error)
	Find(ctx context.Context, q history.Query) ([]history.Mail, string, error)
	// Flush writes what Find may not see yet.
	Flush(ctx context.Context) error
}

// Outbox makes events of what happens, and stores them.
type Outbox struct {
	store     Store
	mails     Mails
	wake      func()
	lost      func(endpoint string, n int)
	endpoints atomic.Pointer[[]Endpoint]

	heads *lru.Cache[string, head]     // of the latest mails, by id
	taken *lru.Cache[string, struct{}] // ids of the provider's latest events
}

// head is what an event says of its mail.
type head struct {
	sender, messageID, account string
	fields                     map[string]string
}

// remembered is how many mails and events are remembered. Others are looked up.
const remembered = 10_000

// newOutbox returns an Outbox that stores nothing yet.
func newOutbox(s Store, wake func(), lost func(string, int)) *Outbox {
	heads, _ := lru.New[string, head](remembered) // it fails for a size below 1
	taken, _ := lru.New[string, struct{}](remembered)
	o := &Outbox{store: s, wake: wake, lost: lost, heads: heads, taken: taken}
	o.endpoints.Store(&[]Endpoint{})
	return o
}

// Facts stores the events that facts amount to. The recorder calls it before it writes
// the facts, so that an event of the provider, which is found by what was written, is
// never stored before what happened earlier.
func (o *Outbox) Facts(ctx context.Context, facts []history.Fact) error {
	if len(*o.endpoints.Load()) == 0 {
		return nil
	}
	var events []Event
	for _, f := range facts {
		if came, ok := f.(history.Came); ok {
			m := came.Mail()
			o.heads.Add(m.ID, headOf(m))
		}
		events = append(events, eventsOf(f)...)
	}
	for i := range events {
		h, err := o.head(ctx, events[i].QueueID)
		if err != nil {
			return err
		}
		events[i].of(h)
	}
	return o.add(ctx, events)
}

// Take stores an event of the provider. It returns when that is durable.
func (o *Outbox) Take(ctx context.Context, e relay.Event) error {
	if len(*o.endpoints.Load()) == 0 || o.taken.Contains(e.ID) {
		return nil
	}
	at := e.Occurred
	if at.IsZero() {
		at = e.Received
	}
	event := Event{
		ID: e.ID, Type: Provider + e.Type, Created: at, Account: e.Account, Recipient: e.Email, APIMessageID: e.MessageID,
		Provider: &ProviderEvent{ID: e.ID, Type: e.Type, At: e.Occurred, Code: e.BounceCode, Reason: e.BounceReason},
	}
	m, found, err := o.find(ctx, e)
	if err != nil {
		return err
	}
	if found {
		event.QueueID, event.Recipient = m.ID, m.Recipients[0].Addr
		event.of(headOf(m))
	}
	if err := o.add(ctx, []Event{event}); err != nil {
		return err
	}
	o.taken.Add(e.ID, struct{}{})
	return nil
}

// young is how old an event is whose mail may not be written yet.
const young = time.Minute

// find returns the mail that an event is about, with the one recipient. It is one of the
// account whose event it is.
func (o *Outbox) find(ctx context.Context, e relay.Event) (m history.Mail, found bool, err error) {
	if e.MessageID == "" {
		return m, false, nil
	}
	for _, flush := range []bool{false, true} {
		if flush {
			if !e.Created.IsZero() && e.Received.Sub(e.Created).Abs() > young {
				break
			}
			if err := o.mails.Flush(ctx); err != nil && !errors.Is(err, history.ErrStopped) {
				return m, false, err
			}
		}
		page, _, err := o.mails.Find(ctx, history.Query{Name: e.MessageID})
		if err != nil {
			return m, false, err
		}
		for _, m := range page {
			if m.Recipients[0].APIID == e.MessageID && m.Account == e.Account {
				return m, true, nil
			}
		}
	}
	return m, false, nil
}

// head is what is known of a mail.
func (o *Outbox) head(ctx context.Context, id string) (head, error) {
	if h, ok := o.heads.Get(id); ok {
		return h, nil
	}
	m, _, err := o.mails.Get(ctx, id)
	if err != nil {
		return head{}, err
	}
	h := headOf(m)
	o.heads.Add(id, h)
	return h, nil
}

func headOf(m history.Mail) head { return head{m.Sender, m.MessageID, m.Account, m.Headers} }

func (e *Event) of(h head) {
	if h.sender != "" {
		e.Sender = h.sender
	}
	e.MessageID, e.Account, e.Headers = h.messageID, h.account, h.fields
}

// add stores events for each endpoint that wants them.
func (o *Outbox) add(ctx context.Context, events []Event) error {
	var items []Item
	most := map[string]int{}
	for _, to := range *o.endpoints.Load() {
		most[to.Name] = to.MaxPending
		for _, e := range events {
			if !to.wants(e.Type) {
				continue
			}
			e.Headers = chosen(e.Headers, to.Headers)
			e.Created = e.Created.Round(0).UTC()
			body, err := json.Marshal(e)
			if err != nil {
				return err
			}
			mail := e.QueueID
			if mail == "" {
				mail = unjoined + e.APIMessageID
			}
			items = append(items, Item{Endpoint: to.Name, ID: e.ID, Type: e.Type, Mail: mail, Address: suppress.Normalise(e.Recipient), Body: body, Created: time.Now()})
		}
	}
	if len(items) == 0 {
		return nil
	}
	lost, err := o.store.AddForwards(ctx, items, most)
	if err != nil {
		return err
	}
	for name, n := range lost {
		o.lost(name, n)
	}
	o.wake()
	return nil
}

// chosen are the fields that an endpoint is told.
func chosen(fields map[string]string, names []string) map[string]string {
	var some map[string]string
	for _, name := range names {
		for have, value := range fields {
			if !strings.EqualFold(have, name) {
				continue
			}
			if some == nil {
				some = map[string]string{}
			}
			some[name] = value
		}
	}
	return some
}

// eventsOf are the events that a fact amounts to.
func eventsOf(f history.Fact) (events []Event) {
	add := func(kind, id, to string, at time.Time, e Event) {
		e.Type, e.QueueID, e.Recipient, e.Created = kind, id, to, at
		e.ID = eventID(e)
		events = append(events, e)
	}
	switch f := f.(type) {
	case history.Tried:
		switch {
		case f.Outcome.Kind == relay.Accepted:
			add(Sent, f.ID, f.To, f.At, Event{Sender: f.From, APIMessageID: f.Outcome.MessageID})
		case f.Outcome.Kind.Permanent():
			add(Failed, f.ID, f.To, f.At, Event{Sender: f.From, Reason: reasonOf(f.Outcome)})
		}
	case history.GaveUp:
		add(Failed, f.ID, f.To, f.At, Event{Sender: f.From, Reason: f.Why})
	case history.Answered:
		for _, to := range f.Queued {
			add(Queued, f.ID, to, f.At, Event{Reason: f.Reply})
		}
		if !f.Taken && !f.Later() {
			for _, to := range f.To {
				add(Refused, f.ID, to, f.At, Event{Reason: f.Reply})
			}
		}
	case history.Told:
		if f.Bounce != "" {
			for _, to := range f.Recipients {
				add(Bounced, f.ID, to, f.At, Event{BounceID: f.Bounce})
			}
		}
	case history.OperatorDropped:
		add(Dropped, f.ID, f.To, f.At, Event{})
	}
	return events
}

// eventID is the same whenever the event is made again, so that it is stored once.
func eventID(e Event) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{e.QueueID, suppress.Normalise(e.Recipient), e.Type, strconv.FormatInt(e.Created.UnixNano(), 10)}, "\x00")))
	return "evr_" + hex.EncodeToString(sum[:12])
}

// reasonOf says why an attempt failed for good. What the API said is its own.
func reasonOf(o relay.Outcome) string {
	switch {
	case o.Kind == relay.Suppressed && o.Detail == "":
		return "the recipient is suppressed"
	case o.Detail != "":
		return o.Detail
	case o.Cause != nil:
		return o.Cause.Error()
	}
	return o.Kind.String()
}
