package provider

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// Sandbox plays a vendor's API on this machine, for people who try the relay and for
// tests. It sends no mail.
type Sandbox interface {
	// Start listens. It reports what is wrong with the options.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error

	Addr() string // host and port
	URL() string  // of the API

	Webhook() SandboxWebhook
	SetWebhook(SandboxWebhook)
	// SetAccountWebhook is SetWebhook for one of the further accounts.
	SetAccountWebhook(account string, w SandboxWebhook)

	// MagicRecipients lists the recipients that force an outcome.
	MagicRecipients() []MagicRecipient

	// Calls returns the remembered calls, the oldest first.
	Calls() []SandboxCall
	// WaitFor waits until the counters are as wanted.
	WaitFor(ctx context.Context, wanted func(SandboxStats) bool) error
	// Reset forgets all calls and counters.
	Reset()
}

// SandboxOptions configure a Server. The zero value works.
type SandboxOptions struct {
	Address string // to listen on; default 127.0.0.1 and a free port
	Key     string // the API key of the calls; default "sandbox-key"
	Path    string // of the send endpoint, below /api; default "/v1/transactional/send"

	// Rate is the account's calls a second; 0 is no limit. Burst is how many may
	// come at once; 0 is a second's worth. Every call with the right key counts,
	// whatever its answer. Calls above the rate are answered 429.
	Rate           float64
	Burst          int
	RetryAfterDate bool // Retry-After is a date instead of seconds

	// Fail429 and Fail500 are the fractions of good calls that are answered so,
	// together 0 to 1. The seed decides which calls.
	Fail429, Fail500 float64
	Seed             uint64

	Latency    time.Duration // added to each call
	Outage     SandboxOutage
	Idempotent bool // a known Idempotency-Key gets its first message_id and sends no second mail

	// Fields are further fields of the payload that the account takes, of any value. The
	// API documents none.
	Fields []string

	Webhook SandboxWebhook // where events are sent; without a URL nowhere, until one is registered

	MaxBody int64 // bytes; default 256 MiB
	// Keep is how many calls are remembered: default 1000, none if negative. At
	// most 64 MiB of bodies are remembered. All calls are counted.
	Keep int
	// Accounts are further accounts by their names, each told by its key, which is the
	// name if it is not set. Address, Path, MaxBody and Log are the sandbox's.
	Accounts map[string]SandboxOptions
	Log      *slog.Logger // a debug line for each call; nil: none
}

// SandboxWebhook says where the sandbox sends events: sent and delivered for each mail that
// it took, or what a magic recipient forces.
type SandboxWebhook struct {
	URL    string
	Secret string   // events are signed with it
	Events []string // the types to send; none is all

	Delay time.Duration // before the first event of a mail
	// Repeats is how often each event is sent again.
	Repeats int
	// Reorder sends the events of a mail in reverse order.
	Reorder bool
}

// SandboxOutage makes every call behave as if it were for a magic recipient. It is that
// recipient's local part, such as "unavailable", "timeout", "nojson" or
// "ratelimited+0x30". Empty is no outage.
type SandboxOutage string

// MagicRecipient is a recipient that forces an outcome, at any domain.
type MagicRecipient struct {
	LocalPart string // with the syntax of its tag, for example "down[+{n}]"
	What      string // one line
}

// SandboxCall is one request to the API and its answer.
type SandboxCall struct {
	Time           time.Time
	Remote         string // the client's address and port
	Status         int    // of the answer; 0 if there was none
	To             string // To, From and Subject are as far as the body could be read
	From           string
	Subject        string
	IdempotencyKey string
	Body           []byte        // as received; nil once too much has come since (see SandboxOptions.Keep)
	MessageID      string        // if the mail was taken
	Error          string        // of the answer, for example "validation: to is required"
	Took           time.Duration // until the answer was due
}

// SandboxStats counts all calls since the start or the last Reset.
type SandboxStats struct {
	Calls    int         `json:"calls"`     // finished, with or without an answer
	InFlight int         `json:"in_flight"` // in progress, hanging ones included
	ByStatus map[int]int `json:"by_status"` // 0 is no answer
	Accepted int         `json:"accepted"`  // mails that were taken, that is, sent

	// Keys counts the different idempotency keys of accepted calls. Duplicates
	// counts the keys that were accepted more than once, and DuplicateKeys has
	// the first of those. WithoutKey counts accepted calls without a key.
	Keys          int      `json:"keys"`
	Duplicates    int      `json:"duplicates"`
	DuplicateKeys []string `json:"duplicate_keys"`
	WithoutKey    int      `json:"without_key"`

	// KeyConflicts counts calls whose key had been accepted for another recipient.
	// With Idempotent they are refused.
	KeyConflicts int `json:"key_conflicts"`
	// Replayed counts calls that were answered with an earlier message_id.
	Replayed int `json:"replayed"`

	// Events counts events that the webhook answered 200, by type. EventsRefused
	// counts those that it answered otherwise, or not at all.
	Events        map[string]int `json:"events"`
	EventsRefused int            `json:"events_refused"`
}

// callJSON is the JSON of a SandboxCall. A body that is not JSON is in BodyText.
type callJSON struct {
	Time           time.Time       `json:"time"`
	Remote         string          `json:"remote"`
	Status         int             `json:"status"`
	To             string          `json:"to"`
	From           string          `json:"from"`
	Subject        string          `json:"subject"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
	MessageID      string          `json:"message_id,omitempty"`
	Error          string          `json:"error,omitempty"`
	TookMS         float64         `json:"took_ms"`
	Body           json.RawMessage `json:"body,omitempty"`
	BodyText       string          `json:"body_text,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (c SandboxCall) MarshalJSON() ([]byte, error) {
	j := callJSON{
		Time: c.Time, Remote: c.Remote, Status: c.Status, To: c.To, From: c.From, Subject: c.Subject,
		IdempotencyKey: c.IdempotencyKey, MessageID: c.MessageID, Error: c.Error,
		TookMS: float64(c.Took.Microseconds()) / 1000,
	}
	if json.Valid(c.Body) {
		j.Body = c.Body
	} else {
		j.BodyText = string(c.Body)
	}
	return json.Marshal(j)
}
