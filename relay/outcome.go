package relay

import "time"

// Kind says what one attempt to send to one recipient came to. The set is
// closed: replies, metrics and the queue's decisions are tables over it.
type Kind int

const (
	// Unavailable: the API is down, refuses to talk or talks nonsense, and
	// the mail was not taken. Try again later.
	Unavailable Kind = iota
	// Accepted: the API took the mail; MessageID is its name for it.
	Accepted
	// Suppressed: the recipient is on the provider's suppression list. Never
	// try again.
	Suppressed
	// Refused: the API refuses this payload. Never try again.
	Refused
	// TooLarge: the payload is larger than the API takes. Never try again.
	TooLarge
	// Unauthorized: the API refuses our key. That is the operator's fault, so
	// the mail is kept and nobody's mail bounces.
	Unauthorized
	// RateLimited: not an attempt; RetryAfter says how long nobody may try.
	RateLimited
	// Ambiguous: the request was written and no usable answer came, so the
	// mail may have been sent. Try again with the same idempotency key.
	Ambiguous
)

// Kinds lists every kind, for tables that must be complete.
func Kinds() []Kind {
	return []Kind{Unavailable, Accepted, Suppressed, Refused, TooLarge, Unauthorized, RateLimited, Ambiguous}
}

// String is the kind's name in logs and metrics.
func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Suppressed:
		return "suppressed"
	case Refused:
		return "refused"
	case TooLarge:
		return "too_large"
	case Unauthorized:
		return "unauthorized"
	case RateLimited:
		return "rate_limited"
	case Ambiguous:
		return "ambiguous"
	default:
		return "unavailable"
	}
}

// Permanent reports whether trying again can never help.
func (k Kind) Permanent() bool {
	return k == Suppressed || k == Refused || k == TooLarge
}

// Settled reports whether nothing is left to do for the recipient.
func (k Kind) Settled() bool { return k == Accepted || k.Permanent() }

// Outcome is what one attempt came to, for one recipient.
type Outcome struct {
	Kind       Kind
	Status     int           // HTTP status; 0 when there was no answer
	MessageID  string        // the API's id, when Accepted
	Detail     string        // the API's own words, when it gave any; public
	RetryAfter time.Duration // when RateLimited
	Untried    bool          // no call was made: Kind says what stood in the way
	Cause      error         // what went wrong underneath; private, for the log
	Took       time.Duration
}
