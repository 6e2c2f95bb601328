package queue

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// State is where one recipient of a mail stands.
type State int

const (
	// Waiting: to be tried at Due, or as soon as its turn comes after it.
	Waiting State = iota
	// Claimed: somebody is trying it now.
	Claimed
	// Held: an operator stopped it; it waits for Release.
	Held
	// Sent: the API took it. Nothing is left to do.
	Sent
	// Failed: given up. Kept whole until an operator drops or retries it.
	Failed
)

// States lists every state, for tables that must be complete.
func States() []State { return []State{Waiting, Claimed, Held, Sent, Failed} }

// String is the state's name in lists, logs and metrics.
func (s State) String() string {
	switch s {
	case Claimed:
		return "sending"
	case Held:
		return "held"
	case Sent:
		return "sent"
	case Failed:
		return "failed"
	default:
		return "waiting"
	}
}

// Open reports whether something is still to be done for the recipient.
func (s State) Open() bool { return s == Waiting || s == Claimed || s == Held }

// Mail is one stored mail: the message as it came and how far each of its
// recipients is.
type Mail struct {
	// Message is as the client handed it over. Its Recipients are not read by
	// Enqueue (Mail.Recipients says who) and not filled by Get; its Raw is
	// never filled by the queue: ask Raw for it.
	Message relay.Message

	// Recipients in the order of the envelope, without those that were dropped.
	Recipients []Recipient

	// Lane is whose turn this mail takes: lanes are served round robin. It is
	// the sender's address, normalised by the caller; "" is a lane as well.
	Lane string
	// Domain is what ClaimRequest.Limits counts by: the sender's domain.
	Domain string
	// Urgent mail is not bound by Limits and does not wait behind its own
	// lane's ordinary mail: it has a lane of its own with the same name.
	Urgent bool
	// BounceOf is the id of the mail this one reports on, "" for any other.
	BounceOf string

	// Size of the raw message in bytes. Enqueue reads it from Message.Raw.
	Size int64
	// Damaged: what is stored is not what came. Set by the queue alone.
	Damaged bool
}

// NewMail is m with every recipient waiting and due at once.
func NewMail(m relay.Message) Mail {
	mail := Mail{Message: m, Recipients: make([]Recipient, len(m.Recipients)), Size: int64(len(m.Raw))}
	for i, addr := range m.Recipients {
		mail.Recipients[i] = Recipient{Number: i, Addr: addr}
	}
	return mail
}

// Recipient is one recipient's state. At Enqueue the state may be any but
// Claimed: a recipient that was tried while the client waited arrives with
// its History, and with its final state if it has one, for the record.
type Recipient struct {
	// Number is the recipient's place in the envelope, from 0, by which the
	// other calls name it. Enqueue counts for itself and does not read it.
	Number int
	Addr   string
	State  State
	// Due is when it may be tried next; the zero time is at once.
	Due time.Time
	// Attempts that count, each counted when it began.
	Attempts int
	// Since is when the current run of attempts began: when the mail came, or
	// when an operator last retried it. The zero time at Enqueue is the
	// former. Ages and giving up are reckoned from here.
	Since time.Time
	// Ended is when it was sent or given up.
	Ended time.Time
	// Bounced: the sender has been told that it failed, or need not be. It is
	// never told twice, not even when an operator retried in between.
	Bounced bool
	// History is the latest attempts, oldest first, at most MaxHistory.
	History []Attempt
}

// MaxHistory is how many attempts of one recipient are kept.
const MaxHistory = 20

// Last is the latest attempt, if there was one.
func (r Recipient) Last() (Attempt, bool) {
	if len(r.History) == 0 {
		return Attempt{}, false
	}
	return r.History[len(r.History)-1], true
}

// Attempt is the record of one attempt.
type Attempt struct {
	Started time.Time
	// Outcome as it was settled. A Cause comes back as text only.
	Outcome relay.Outcome
	// NotAnAttempt: it did not count, see Settlement.
	NotAnAttempt bool
	// Unknown: the process ended before it was settled.
	// The mail may have been sent; Outcome is empty.
	Unknown bool
}

// BounceID is the id of the bounce for these recipients of a mail: the same
// for the same cause, so that a bounce made twice is one mail. Like relay.NewID
// it has 20 characters; it sorts next to the mail it reports on.
func BounceID(id string, recipients []int) string {
	sorted := slices.Clone(recipients)
	slices.Sort(sorted)
	var cause []byte
	for _, n := range sorted {
		cause = binary.BigEndian.AppendUint64(cause, uint64(n))
	}
	return bounceID(id, cause)
}

// LateBounceID is the id of the bounce for a recipient that failed after the
// provider had taken the mail. The address is normalised by the caller.
func LateBounceID(id, address string) string { return bounceID(id, []byte("late "+address)) }

// CopyID is the id of the copy of a mail for the archive.
func CopyID(id string) string { return bounceID(id, []byte("archive copy")) }

func bounceID(id string, cause []byte) string {
	h := sha256.New()
	h.Write([]byte(id))
	h.Write(cause)
	enc := base32.HexEncoding.WithPadding(base32.NoPadding)
	sum := strings.ToLower(enc.EncodeToString(h.Sum(nil)))
	const timePart = 10 // characters of an id that hold its time
	if len(id) < timePart {
		return sum[:20]
	}
	return id[:timePart] + sum[:20-timePart]
}
