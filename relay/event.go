package relay

import "time"

// Event is what the provider told of a mail after it had taken it, as its
// webhooks say it.
type Event struct {
	ID           string // the provider's, or made from the content where it gave none; never twice
	Type         string // one of EventTypes, or a word of the provider's own
	Created      time.Time
	Occurred     time.Time // what it tells of; zero where it was not said
	Email        string    // the recipient, as the provider wrote it
	MessageID    string    // of the API's answer
	BounceCode   string
	BounceReason string
	Received     time.Time // by us
	Account      string    // whose events it came with, "" is the default account's; it is not kept
}

// The types of events that mean something to us. A provider's package puts them
// in place of its own words; what it has no type for, it passes on as it came.
const (
	EventHardBounce  = "bounced.hard"
	EventSoftBounce  = "bounced.soft"
	EventComplaint   = "complained"
	EventUnsubscribe = "unsubscribed"
	EventDelivered   = "delivered"
	EventOpened      = "opened"
	EventClicked     = "clicked"
	EventSent        = "sent"
)

// EventTypes lists them, for tables that must be complete.
func EventTypes() []string {
	return []string{EventHardBounce, EventSoftBounce, EventComplaint, EventUnsubscribe, EventDelivered, EventOpened, EventClicked, EventSent}
}
