package relay

import "time"

// Event is what the provider told of a mail after it had taken it, as its
// webhooks say it.
type Event struct {
	ID           string // the provider's, or made from the content where it gave none; never twice
	Type         string // "bounced.hard" and others: an open set
	Created      time.Time
	Occurred     time.Time // what it tells of; zero where it was not said
	Email        string    // the recipient, as the provider wrote it
	MessageID    string    // of the API's answer
	BounceCode   string
	BounceReason string
	Received     time.Time // by us
}
