// Package history records what became of each mail: what its client was told, what the
// API answered at each attempt, how each recipient ended, and what the provider's events
// said afterwards. It has the contract of the record (Store), the facts that other
// packages report (Fact), and the Recorder, which writes them while nobody waits. No
// body is ever part of it.
//
// relay/intake, relay/attempt and relay/deliver report facts; the engines below relay/store
// keep the record; relay/admin reads it for operators. The record may lag by a second, and
// a crash may lose its last moment, so the queue never depends on it. relay/deliver reads it
// to tell the sender of a mail that bounced after the API took it (late.go), and
// relay/forward to join the provider's events with their mail.
package history

import (
	"context"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Mail is the record of one mail. The types below are printed by --json and
// read by scripts: a field can be added, but none renamed and none given
// another meaning.
type Mail struct {
	ID       string    `json:"id"` // the queue id
	Received time.Time `json:"received"`
	Sender   string    `json:"sender"` // of the envelope; "" is the null sender
	Head
	Reply      string      `json:"reply,omitempty"` // what the client was told, as it read it
	Answered   time.Time   `json:"answered,omitzero"`
	Recipients []Recipient `json:"recipients"`
}

// Head is what is known of a mail from when it came. All of it is missing where
// the history begins in the middle of a mail's life.
type Head struct {
	MessageID   string       `json:"message_id,omitempty"` // the mail's own header, without angles
	Author      string       `json:"author,omitempty"`     // the From that the API was given
	Subject     string       `json:"subject,omitempty"`    // only where the operator keeps it
	Size        int64        `json:"size,omitempty"`       // bytes
	Client      relay.Client `json:"client,omitzero"`
	Account     string       `json:"account,omitempty"`     // which sends it; "" is the default one
	TraceParent string       `json:"traceparent,omitempty"` // W3C Trace Context, of the mail's header
	BounceOf    string       `json:"bounce_of,omitempty"`   // the mail that this one reports on
	LeftOut     []LeftOut    `json:"left_out,omitempty"`    // what of the mail the API was not given
	AutoReply   bool         `json:"auto_reply,omitempty"`  // a machine's answer, of whose failure nobody is told
	// Headers are header fields of the mail that the operator keeps ([[forward]] headers).
	Headers map[string]string `json:"headers,omitempty"`
}

// LeftOut is a piece of a mail that the API was not given.
type LeftOut struct {
	Kind   string `json:"kind"`   // a mail.OmissionKind
	Detail string `json:"detail"` // for a file its name, type and size
}

// Recipient is how far one recipient is, and how it came to that.
type Recipient struct {
	Addr  string `json:"recipient"`
	Named string `json:"named,omitempty"` // the alias that the client named instead
	State State  `json:"state"`
	// Ended is when the state became final on our side; zero while it is not.
	Ended time.Time `json:"ended,omitzero"`
	APIID string    `json:"api_message_id,omitempty"` // the API's id, by which its events are found
	Steps []Step    `json:"steps,omitempty"`          // oldest first
}

// State is where a recipient stands.
type State string

// The states. The last three come of the provider's events, the strongest of
// which counts, whatever order they came in.
const (
	Waiting State = "waiting" // not settled: in the queue, or being tried
	Refused State = "refused" // the client was told no for good (5xx), and has the mail still
	// Deferred: the client was told to come again (4xx), and has the mail still.
	Deferred State = "deferred"
	Sent     State = "sent"    // the API took it
	Failed   State = "failed"  // given up
	Dropped  State = "dropped" // by an operator
	// Unknown: it waited when the relay crashed and is not in the queue. Most
	// often it was sent and the crash took the note of it; or its client was
	// not answered and has the mail still.
	Unknown State = "unknown"

	Delivered  State = "delivered"
	Bounced    State = "bounced"
	Complained State = "complained"
)

// States lists every state, for tables that must be complete.
func States() []State {
	return []State{Waiting, Refused, Deferred, Sent, Failed, Dropped, Unknown, Delivered, Bounced, Complained}
}

// Step is one thing that happened to a recipient.
type Step struct {
	At   time.Time `json:"at"`
	What What      `json:"what"`
	Text string    `json:"text,omitempty"` // why, what was said, or by what mail
	// Words is all of the step for people. It is not stored.
	Words string `json:"words,omitempty"`

	// Of an attempt, see relay.Outcome.
	Attempt *Attempt `json:"attempt,omitempty"`
	// Of an event.
	Event *Event `json:"event,omitempty"`
}

// What is the kind of a step.
type What string

// The kinds of steps.
const (
	StepAnswered What = "answered" // the client, of this recipient alone (LMTP)
	StepTried    What = "tried"
	StepGaveUp   What = "gave_up"
	StepTold     What = "told"     // the sender, by a bounce
	StepNotTold  What = "not_told" // nobody could be
	StepDropped  What = "dropped"
	StepRetried  What = "retried" // by an operator, after it had failed
	StepEvent    What = "event"   // of the provider's webhook
)

// Attempt is one call of the API, or why there was none.
type Attempt struct {
	Number    int    `json:"number"`
	Outcome   string `json:"outcome"`          // a relay.Kind
	Status    int    `json:"status,omitempty"` // of HTTP
	MessageID string `json:"message_id,omitempty"`
	Detail    string `json:"detail,omitempty"` // the API's words
	Cause     string `json:"cause,omitempty"`
	TookMS    int64  `json:"took_ms"`
	Untried   bool   `json:"untried,omitempty"` // no call was made
}

// Event is what the provider told of a recipient afterwards.
type Event struct {
	ID        string `json:"id"`
	Type      string `json:"type"` // the provider's own word
	MessageID string `json:"message_id"`
	Email     string `json:"email"`
	Code      string `json:"code,omitempty"` // of a bounce
	Reason    string `json:"reason,omitempty"`
	// Received is when we heard of it. The step's time is when it happened by the
	// provider's clock. Where that is before the API took the mail, which is when
	// it first answered with the recipient's APIID, it is the later of Received
	// and that.
	Received time.Time `json:"received"`
}

// Store keeps records. Every method may be called by any number of goroutines.
type Store interface {
	// Write adds what happened to mails, all of it or nothing.
	Write(ctx context.Context, changes []Change) error

	// MarkUnknown makes a recipient Unknown if it waits by the record. One that is
	// Unknown waits again as soon as more happens to it.
	MarkUnknown(ctx context.Context, id, addr string, at time.Time) error

	// Get returns a mail with its recipients and their steps, the provider's
	// events among them. The second result is false when there is none.
	Get(ctx context.Context, id string) (Mail, bool, error)

	// Find lists recipients, the mails that came last first, up to q.Limit.
	// Mail.Recipients is the one recipient, without its steps. The second
	// result is the cursor to go on with, "" at the end. A page may be short,
	// even empty, before the end.
	Find(ctx context.Context, q Query) ([]Mail, string, error)

	// Prune removes the oldest mails that came before the given time and are
	// settled, at most limit of them, and says how many; with force also those
	// that are not. Each call is one short step.
	Prune(ctx context.Context, before time.Time, limit int, force bool) (int, error)

	// Bytes is how much room the records take.
	Bytes(ctx context.Context) (int64, error)

	// Forget erases what is stored about an address; see Forgotten. Mails that
	// the queue has, by their ids, and those that wait by the record, are not
	// recorded from now on.
	Forget(ctx context.Context, address string, queued []string) (Forgotten, error)
}

// Query selects recipients of mails; they must match all fields that are set.
type Query struct {
	ID string `json:"id,omitempty"` // a mail's id, or the beginning of one
	// Name is a Message-ID, the API's message_id, an address or an alias, or the
	// local part of one at any domain, as in "root"; whichever matches.
	Name      string    `json:"name,omitempty"`
	Sender    string    `json:"sender,omitempty"` // of the envelope
	Recipient string    `json:"recipient,omitempty"`
	Account   string    `json:"account,omitempty"` // "default" is the default one
	Subject   string    `json:"subject,omitempty"` // a part of it, without case in ASCII
	States    []State   `json:"states,omitempty"`
	From      time.Time `json:"from,omitzero"`  // received at this time or later
	Until     time.Time `json:"until,omitzero"` // received before it

	Limit  int    `json:"limit,omitempty"` // 0 is 100; 1000 at most
	Cursor string `json:"cursor,omitempty"`
}

// Forgotten says what was erased about an address.
type Forgotten struct {
	Mails      int `json:"mails"`      // records, whole: the address sent them, or nobody else got them
	Recipients int `json:"recipients"` // of records of mail that others got as well
	Cleared    int `json:"cleared"`    // records of which subject, reply and the like were erased
	Events     int `json:"events"`     // of the provider
	// Clean: the files of the store were read afterwards and have the address
	// nowhere any more.
	Clean bool `json:"clean"`
}

// TypesOf are the types of events that lead to a state. Nobody opens what was
// not delivered.
func TypesOf(s State) []string {
	switch s {
	case Bounced:
		return []string{relay.EventHardBounce}
	case Complained:
		return []string{relay.EventComplaint}
	case Delivered:
		return []string{relay.EventDelivered, relay.EventOpened, relay.EventClicked}
	}
	return nil
}

// After is the state of a recipient after an event, whatever the order they
// come in: a bounce tells more than a complaint, and that more than a delivery.
func (s State) After(eventType string) State {
	strength := []State{Sent, Delivered, Complained, Bounced}
	for i, to := range strength {
		at := slices.Index(strength, s)
		if at >= 0 && i > at && slices.Contains(TypesOf(to), eventType) {
			return to
		}
	}
	return s
}
