package admin

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// Scripts read the types below, as the output of --json. A field can be added, but none
// can be renamed or get another meaning. Times are RFC 3339 in UTC. Fields that are not
// set are left out.

// Status says how the relay is.
type Status struct {
	// State is StateFine, StateDegraded or StateStopped. Summary says in one sentence
	// what it means: whether mail flows, how much waits, since when, and why.
	State   string `json:"state"`
	Summary string `json:"summary"`
	Version string `json:"version"`
	// Running is false when no daemon works on this queue. Since is when the daemon
	// started.
	Running  bool      `json:"running"`
	Since    time.Time `json:"since,omitzero"`
	Queue    Counts    `json:"queue"`
	Pace     *Pace     `json:"pace,omitempty"`     // when Running; the default account's
	Accounts []Account `json:"accounts,omitempty"` // when there are several, the default one first; also those that are gone and have mail
	Relays   []Relay   `json:"relays,omitempty"`   // those that share the store, the oldest first
	Warming  []Warming `json:"warming"`
	LastDay  *LastDay  `json:"last_day,omitempty"` // missing where it is not known
	Warnings []Warning `json:"warnings"`           // the most urgent first
}

// Relay is one of several relays that share a store.
type Relay struct {
	Name      string    `json:"name"` // its machine's
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Heartbeat time.Time `json:"heartbeat"` // when it was last heard of
	Alive     bool      `json:"alive"`     // what it claimed is its own still
}

// Account says how one of several accounts is.
type Account struct {
	Name  string `json:"name"`
	Mails int    `json:"mails"`          // not sent to everybody, 10,000 at most; of the default one it is not counted
	Pace  *Pace  `json:"pace,omitempty"` // missing: the relay does not run, or has no such account
}

// The states of a relay.
const (
	StateFine     = "fine"
	StateDegraded = "degraded" // there is a warning that is not LevelInfo
	StateStopped  = "stopped"  // no daemon works on this queue
)

// The levels of a warning.
const (
	LevelTrouble = "trouble" // mail does not flow; what was kept stays kept
	LevelWarning = "warning" // mail flows, and an operator has something to do
	LevelInfo    = "info"    // everything is as it should be
)

// LastDay counts what the provider told in the last 24 hours about mail that it had
// taken. What the senders are told of it is bounce.late and bounce.complaints.
type LastDay struct {
	Bounced    int64 `json:"bounced"`    // recipients, for good
	Complained int64 `json:"complained"` // recipients that called a mail spam
}

// Counts says how much is stored.
type Counts struct {
	Waiting   int64     `json:"waiting"` // recipients, like the others up to Failed
	Sending   int64     `json:"sending"`
	Held      int64     `json:"held"`
	Sent      int64     `json:"sent"`
	Failed    int64     `json:"failed"`
	Unbounced int64     `json:"unbounced"` // of Failed, those whose sender is still to be told
	Mails     int64     `json:"mails"`     // whose content is kept
	Bytes     int64     `json:"bytes"`     // of that content
	Oldest    time.Time `json:"oldest,omitzero"`
}

// Pace says how fast mail can go out now.
type Pace struct {
	PausedUntil time.Time `json:"paused_until,omitzero"` // the API asked for it
	Rate        float64   `json:"rate"`                  // calls a second; 0: not known
	RateFound   bool      `json:"rate_found"`            // by the relay itself, not configured
	Share       float64   `json:"share,omitzero"`        // this relay's part of the rate, where several relays share the account
	Relays      int       `json:"relays,omitzero"`       // that share it, this one included
	Apart       time.Time `json:"apart,omitzero"`        // since when this relay has no share, because the others cannot be asked
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

// Warming says how far the warming of one domain is today.
type Warming struct {
	Account string    `json:"account,omitempty"` // where there are several
	Domain  string    `json:"domain"`
	Day     int       `json:"day"`
	Bounded bool      `json:"bounded"` // false: the warming is over
	Cap     int       `json:"cap"`
	Sent    int       `json:"sent"`
	Full    bool      `json:"full"` // ordinary mail waits for Next
	Next    time.Time `json:"next,omitzero"`
	Text    string    `json:"text"`
}

// Warning is something that an operator should know.
type Warning struct {
	Level string `json:"level"`
	// Cause is one of the causes below, by which scripts can tell warnings apart. There
	// may be several warnings of one cause.
	Cause    string    `json:"cause"`
	Account  string    `json:"account,omitempty"`  // whose cause it is, where there are several
	Endpoint string    `json:"endpoint,omitempty"` // of [[forward]], that it is about
	Count    int64     `json:"count,omitempty"`    // of the recipients, mails or events that What counts
	What     string    `json:"what"`               // what waits, or failed
	Why      string    `json:"why"`                // the cause
	Do       string    `json:"do,omitempty"`       // what to do about it
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Full     bool      `json:"-"` // the queue takes no mail
}

// The causes of warnings.
const (
	CauseStopped       = "stopped"        // no daemon runs
	CauseStuck         = "stuck"          // the daemon makes no progress
	CauseKeyRefused    = "key_refused"    // the API refuses the key
	CauseForbidden     = "forbidden"      // the API forbids mail (403) and takes none
	CauseForbiddenMail = "forbidden_mail" // it forbids some mail, and takes others
	CauseAPIDown       = "api_down"
	CausePaused        = "paused" // the API asked to wait
	CauseWarming       = "warming"
	CauseHeld          = "held"    // by an operator
	CauseOrphans       = "orphans" // mail of an account that is not configured
	CauseFailed        = "failed"
	CauseFailedMany    = "failed_many"
	CauseOld           = "queue_old"    // the oldest mail waits for long
	CauseQueueFull     = "queue_full"   // or nearly
	CauseQueueUnread   = "queue_unread" // it cannot be read
	CauseEngine        = "queue_stands" // mail is kept and cannot be sent
	CauseStorage       = "storage"      // it cannot be written
	CauseDisk          = "disk_low"
	CauseMemory        = "memory"
	CauseRecords       = "records" // history and suppressions are not kept
	CauseUntold        = "untold"  // of failures nobody could be told of
	CauseRefusedFiles  = "refused_files"
	CauseRedirected    = "redirected"
	CauseBadNews       = "bad_news"   // bounces and complaints of the last day
	CauseBounces       = "bounces"    // more in the last day than notify.bounces
	CauseComplaints    = "complaints" // more in the last day than notify.complaints
	CauseEvents        = "events"     // the provider's cannot be kept
	CauseForged        = "forged_events"
	CauseNotify        = "notify"       // a notification cannot be sent
	CauseForward       = "forward"      // an endpoint takes no events
	CauseForwardDead   = "forward_dead" // or refused some
	CauseForwardLost   = "forward_lost" // or some were lost
	CauseSpool         = "spool"        // mail that sendmail keeps waits
	CauseSocket        = "socket"       // one of systemd's that no listener uses
	CauseSpoolAside    = "spool_aside"  // files there that are no mail
)

// Page is one page of a list.
type Page struct {
	Entries []Entry `json:"entries"`
	Cursor  string  `json:"cursor,omitempty"` // go on with it; "" at the end
}

// Envelope has what a mail and an entry of a list have in common.
type Envelope struct {
	ID       string    `json:"id"`
	Sender   string    `json:"sender"` // "" is the null sender
	Received time.Time `json:"received"`
	Size     int64     `json:"size"` // bytes
	Urgent   bool      `json:"urgent,omitempty"`
	BounceOf string    `json:"bounce_of,omitempty"`
	Damaged  bool      `json:"damaged,omitempty"`
	Account  string    `json:"account,omitempty"` // which sends it; missing is the default one
}

// Progress is the state of one recipient.
type Progress struct {
	Number    int       `json:"number"` // in the envelope, from 0
	Recipient string    `json:"recipient"`
	State     string    `json:"state"`
	Tries     int       `json:"tries"`
	Due       time.Time `json:"due,omitzero"`
	Next      time.Time `json:"next,omitzero"` // the earliest time it can be tried: Due, or later when a pause or the open breaker holds it up
	Ended     time.Time `json:"ended,omitzero"`
	Bounced   bool      `json:"bounced,omitempty"` // the sender was told, or need not be
	Why       string    `json:"why"`               // what became of it, or what it waits for, in words
}

// Entry is one line of a list.
type Entry struct {
	Envelope
	Progress
	Last *Attempt `json:"last,omitempty"`
}

// Mail is one mail without its content.
type Mail struct {
	Envelope
	Domain     string       `json:"domain,omitempty"`
	Client     relay.Client `json:"client"`
	Recipients []Recipient  `json:"recipients"`
	// LeftOut says what of the mail the next attempt would leave out.
	LeftOut []history.LeftOut `json:"left_out,omitempty"`
}

// Recipient is one recipient of a Mail.
type Recipient struct {
	Progress
	Since   time.Time `json:"since,omitzero"` // its age counts from here
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
