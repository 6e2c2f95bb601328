package history

import (
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Noter takes facts. Note never waits: what is noted is written soon.
type Noter interface {
	Note(f Fact)
}

// Nothing notes nothing: history is off.
type Nothing struct{}

// Note forgets the fact.
func (Nothing) Note(Fact) {}

// Fact is something that happened to a mail: one of Came, Answered, Tried,
// GaveUp, Told, OperatorDropped and OperatorRetried.
type Fact interface {
	// apply adds the fact to what is to be written of its mail.
	apply(b *batch)
	// weight is how much there is to write.
	weight() int
}

// Came: a mail was handed over, or the relay wrote one (Head.BounceOf).
type Came struct {
	message relay.Message // without Raw
	head    Head
}

// NewCame is the fact that m came. It keeps nothing of m.Raw. Of head, Size,
// AutoReply and Client are m's.
func NewCame(m *relay.Message, head Head) Came {
	c := Came{message: *m, head: head.clipped()}
	c.message.Raw = nil
	c.head.Size, c.head.AutoReply, c.head.Account = int64(len(m.Raw)), mail.IsAutoReply(m.Raw), m.Account
	c.head.Client = relay.Client{
		Addr: clip(m.Client.Addr, maxName), Helo: clip(m.Client.Helo, maxName), User: clip(m.Client.User, maxName),
		Listener: clip(m.Client.Listener, maxName), Session: clip(m.Client.Session, maxName), Redirect: clip(m.Client.Redirect, maxAddress),
		Fields: clip(m.Client.Fields, maxFields), CopyOf: clip(m.Client.CopyOf, maxName), CopyFor: clip(m.Client.CopyFor, maxFields),
		KeptBy: clip(m.Client.KeptBy, maxName),
	}
	return c
}

// Mail is the record as far as the fact tells it, without recipients.
func (f Came) Mail() Mail {
	return Mail{ID: f.message.ID, Received: f.message.ReceivedAt, Sender: f.message.From, Head: f.head}
}

// Answered: what the client was told of a mail, or of some of its recipients.
// Unless it was taken, those of them that were not sent stay with the client.
type Answered struct {
	ID    string
	To    []string // of whom it was told
	Each  bool     // others were told something else
	Reply string
	Taken bool
	// Queued are those of To who wait in the queue now.
	Queued []string
	At     time.Time
}

// Later reports whether the client was told to come again.
func (f Answered) Later() bool { return strings.HasPrefix(f.Reply, "4") }

// Tried: one attempt was made, or could not be.
type Tried struct {
	ID, From, To string
	Number       int
	Outcome      relay.Outcome
	At           time.Time // when it ended
}

// GaveUp: the queue will not try a recipient again.
type GaveUp struct {
	ID, From, To string
	Why          string
	At           time.Time
}

// Told: the sender was told of recipients that failed.
type Told struct {
	ID         string
	Recipients []string
	Bounce     string // the id of the mail that says so; "" when nobody could be told
	Late       bool   // they failed after the API had taken the mail
	At         time.Time
}

// OperatorDropped: an operator removed a recipient from the queue.
type OperatorDropped struct {
	ID, To string
	At     time.Time
}

// OperatorRetried: an operator has a recipient tried again that had failed.
type OperatorRetried struct {
	ID, To string
	At     time.Time
}
