package admin

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// The types below are read by scripts, through the socket and as the output of
// --json: a field can be added, but none renamed and none given another
// meaning. Times are RFC 3339 in UTC; what is not set is left out.

// Status is how the relay stands.
type Status struct {
	// State is StateFine, StateDegraded or StateStopped, and Summary says in a
	// sentence what it means: does mail flow, how much waits, since when, why.
	State   string `json:"state"`
	Summary string `json:"summary"`
	Version string `json:"version"`
	// Running is false when no daemon works on this queue, so that nothing is
	// sent. Since is when it started.
	Running  bool      `json:"running"`
	Since    time.Time `json:"since,omitzero"`
	Queue    Counts    `json:"queue"`
	Pace     *Pace     `json:"pace,omitempty"` // when Running
	Warming  []Warming `json:"warming"`
	LastDay  *LastDay  `json:"last_day,omitempty"` // missing where it is not known
	Warnings []Warning `json:"notes"`              // most urgent first; scripts know them by this name
}

// The states of a relay.
const (
	StateFine     = "fine"
	StateDegraded = "degraded" // there is a warning of another level than LevelInfo
	StateStopped  = "stopped"  // no daemon works on this queue
)

// The levels of a warning.
const (
	LevelTrouble = "trouble" // mail does not flow; what was kept stays kept
	LevelWarning = "warning" // mail flows, and something needs to be seen to
	LevelInfo    = "info"    // as it should be
)

// LastDay is what the provider told in the last 24 hours of mail that it had
// taken. The senders are not told of it.
type LastDay struct {
	Bounced    int64 `json:"bounced"`    // recipients, for good
	Complained int64 `json:"complained"` // recipients that called a mail spam
}

// Counts is what is stored.
type Counts struct {
	Waiting   int64     `json:"waiting"` // recipients, as all down to Failed
	Sending   int64     `json:"sending"`
	Held      int64     `json:"held"`
	Sent      int64     `json:"sent"`
	Failed    int64     `json:"failed"`
	Unbounced int64     `json:"unbounced"` // of Failed, those whose sender is still to be told
	Mails     int64     `json:"mails"`     // whose content is kept
	Bytes     int64     `json:"bytes"`     // of that content
	Oldest    time.Time `json:"oldest,omitzero"`
}

// Pace is how fast mail may go out now.
type Pace struct {
	PausedUntil time.Time `json:"paused_until,omitzero"` // the API asked for it
	Rate        float64   `json:"rate"`                  // calls a second; 0: not known
	RateFound   bool      `json:"rate_found"`            // by the relay itself, not configured
	InFlight    int       `json:"in_flight"`
	Breaker     Breaker   `json:"breaker"`
}

// Breaker is open while the API is taken to be down.
type Breaker struct {
	Open    bool      `json:"open"`
	Why     string    `json:"why,omitempty"`   // mail waits now
	Since   time.Time `json:"since,omitzero"`  // when that began
	Cause   string    `json:"cause,omitempty"` // what the API, or the network, said last
	ProbeAt time.Time `json:"probe_at,omitzero"`
}

// Warming is how one domain that is being warmed stands today.
type Warming struct {
	Domain  string    `json:"domain"`
	Day     int       `json:"day"`
	Bounded bool      `json:"bounded"` // false: the warming is over
	Cap     int       `json:"cap"`
	Sent    int       `json:"sent"`
	Full    bool      `json:"full"` // ordinary mail waits for Next
	Next    time.Time `json:"next,omitzero"`
	Text    string    `json:"text"`
}

// Warning is something an operator should know, in words.
type Warning struct {
	Level string    `json:"level"`
	What  string    `json:"what"`         // what waits, or failed
	Why   string    `json:"why"`          // the cause
	Do    string    `json:"do,omitempty"` // what helps, if anything is needed
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Page is one page of a list.
type Page struct {
	Entries []Entry `json:"entries"`
	Cursor  string  `json:"cursor,omitempty"` // go on with it; "" at the end
}

// Envelope is what a mail and a list's line about it have in common.
type Envelope struct {
	ID       string    `json:"id"`
	Sender   string    `json:"sender"` // "" is the null sender
	Received time.Time `json:"received"`
	Size     int64     `json:"size"` // bytes
	Urgent   bool      `json:"urgent,omitempty"`
	BounceOf string    `json:"bounce_of,omitempty"`
	Damaged  bool      `json:"damaged,omitempty"`
}

// Progress is how far one recipient is.
type Progress struct {
	Number    int       `json:"number"` // in the envelope, from 0
	Recipient string    `json:"recipient"`
	State     string    `json:"state"`
	Tries     int       `json:"tries"`
	Due       time.Time `json:"due,omitzero"`
	Next      time.Time `json:"next,omitzero"` // the soonest that it can be tried: not before Due, nor while the API is left alone
	Ended     time.Time `json:"ended,omitzero"`
	Bounced   bool      `json:"bounced,omitempty"` // the sender was told, or need not be
	Why       string    `json:"why"`               // what came of it, or what it waits for, in words
}

// Entry is one line of a list.
type Entry struct {
	Envelope
	Progress
	Last *Attempt `json:"last,omitempty"`
}

// Mail is one mail, whole but for its content.
type Mail struct {
	Envelope
	Domain     string       `json:"domain,omitempty"`
	Client     relay.Client `json:"client"`
	Recipients []Recipient  `json:"recipients"`
	// LeftOut is what the next attempt would leave out of the mail.
	LeftOut []history.LeftOut `json:"left_out,omitempty"`
}

// Recipient is one recipient of a Mail.
type Recipient struct {
	Progress
	Since   time.Time `json:"since,omitzero"` // its age is reckoned from here
	History []Attempt `json:"history"`        // oldest first
}

// Attempt is one attempt to send.
type Attempt struct {
	Started   time.Time `json:"started"`
	Outcome   string    `json:"outcome"` // a relay.Kind, or "unknown"
	Status    int       `json:"status,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Detail    string    `json:"detail,omitempty"` // the API's words
	Cause     string    `json:"cause,omitempty"`
	TookMS    int64     `json:"took_ms"`
	// RetryAfterMS is what the API asked for with 429.
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	Counted      bool   `json:"counted"` // against the recipient's tries
	Text         string `json:"text"`    // all of it in words
}
