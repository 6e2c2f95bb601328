// Package queue is the contract of the durable queue: what is kept after 250.
// It has no code that stores anything; relay/store has one package per
// backend, and relay/queue/queuetest holds every backend to this text.
//
// A mail enters by Enqueue and is tried once per recipient: Claim hands
// recipients to a worker, Settle says what came of it. relay/deliver is the
// worker; when and whether to try again, and when to give up, is its decision
// and never the queue's. The queue has no clock: every time comes from its
// caller, and is kept to the millisecond at least. A storage that several share may
// translate it to a clock of its own.
//
// Several owners may have one queue open, if its storage is made for that. All that is
// said here of calls holds for their calls together, but for three things: whose turn
// it is and what Stats counts is of the moment, a capacity may be exceeded by what each
// of them takes at the same moment, and Wake may come some seconds late for what
// another did.
//
// # What is promised
//
// Everything that changed is on stable storage when the call that changed it
// returns without an error: it survives a kill of the process and a loss of
// power. A call changes all it says or nothing.
//
// Every method may be called by any number of goroutines at once. The calls
// take effect one after the other; a reader sees all of a call's effect or
// none, and everything that was complete before it asked.
//
// A context that ends before the work began ends the call with the context's
// error, and nothing was changed. Once the work began the call sees it
// through, so that an error from the context always means "not stored".
//
// Any error other than the ones below is the storage's own (disk full, I/O).
// Nothing was changed as far as the queue can tell, but a write that failed
// half way may still be found after a crash: an Enqueue that was answered with
// such an error can, rarely, be sent all the same. What was acknowledged before
// is kept, and the queue works again by itself once its storage does.
package queue

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Errors to be told apart with errors.Is.
var (
	// ErrFull: the mail would exceed the queue's capacity, or the space that
	// its storage keeps free. Temporary: it ends as the backlog drains.
	ErrFull = errors.New("the queue is full")
	// ErrNotFound: no such mail, or its content is not kept any more.
	ErrNotFound = errors.New("no such mail in the queue")
	// ErrStale: somebody else claimed the recipient since, or it was dropped.
	ErrStale = errors.New("the claim is not valid any more")
	// ErrDamaged: the stored content is not what came. It cannot be sent.
	ErrDamaged = errors.New("the stored mail is damaged")
	// ErrUnreachable: the storage is another machine's and gave no answer, so that what was
	// to be changed may have been. Temporary: it ends when the way there is free.
	ErrUnreachable = errors.New("the queue cannot be reached")
	// ErrCursor: the cursor is not one that List returned.
	ErrCursor = errors.New("that is no cursor of this list")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the queue is closed")
)

// Errors of opening a store, after which nothing was changed.
var (
	// ErrLocked: another process has it open.
	ErrLocked = errors.New("another smtp2rest is using this data directory; stop it, or name another directory")
	// ErrNewer: a later version of this program wrote it.
	ErrNewer = errors.New("written by a newer version of smtp2rest; start that version, nothing was changed")
	// ErrOlder: it has to be converted first, which only the relay does.
	ErrOlder = errors.New("written by an older version of smtp2rest; the daemon converts it when it starts, nothing was changed")
)

// Options is what every backend takes besides what is its own. internal/settings
// explains the tags.
type Options struct {
	// MaxMails bounds the mails that have an open recipient: with so many no more is
	// taken. Mail that is kept because it failed does not count. MaxBytes bounds the
	// sizes of both together. Sent mail does not count for either.
	MaxMails int   `toml:"max_mails" default:"1000000" range:"0..1000000000" doc:"The most mails that may wait. Further mail is answered with a temporary error. Failed mail does not count. 0: no limit."`
	MaxBytes int64 `toml:"max_size" default:"10GiB" range:"0..1048576GiB" doc:"The most that waiting and failed mail may take together. 0: no limit."`
	// With less than MinFree Enqueue fails with ErrFull while all that drains the
	// queue goes on.
	MinFree int64 `toml:"min_free" default:"256MiB" range:"0..1048576GiB" doc:"How much of the disk is left free, so that mail can still be sent and removed. It is at least 32MiB, whatever is set."`
	// ForgetSent removes a mail when its last recipient is sent, instead of
	// keeping it listed, without content, until Purge. A mail that is not
	// there is then taken to have been sent: settling it as Done is no error.
	ForgetSent bool
}

// What is reserved for bounces beyond MaxMails and MaxBytes. Where a mail was
// sent to some of its recipients and others were refused, the bounce is all that
// is left to keep, and a client that is told to come again would hand the whole
// mail over once more.
const (
	ReservedMails = 1000
	ReservedBytes = 16 << 20
)

// Queue is one durable queue. See the package comment for what holds for
// every method.
type Queue interface {
	// Enqueue stores mails, all or none. A mail whose id is in the queue
	// already is the same mail: it is left as it is, without an error. It
	// fails with ErrFull when there is no room, and then nothing is stored.
	// Bounces (mails that have a BounceOf), if nothing else comes with them,
	// may use ReservedMails and ReservedBytes beyond the capacity, and the disk
	// space that is kept free for others, as far as the storage can do without.
	// The slices it is given are not kept.
	Enqueue(ctx context.Context, mails ...Mail) error

	Claims
	Bounces
	Operator
	Marks

	// Wake has a value whenever something may have become due other than by
	// the passing of time: an Enqueue, a Release, a Retry. It holds one value
	// at most and is meant for one reader, which then calls Claim.
	Wake() <-chan struct{}

	// Purge removes mails all of whose recipients were sent before the given
	// time, the longest ago first, until about limit recipients are removed.
	// It says how many were; call it again while that is not 0. Each call is
	// one step that holds up other calls no longer than its limit makes it.
	Purge(ctx context.Context, before time.Time, limit int) (int, error)

	// PurgeFailed removes mails that have no open recipient and at least one that
	// failed, if all of them ended before the given time and no sender is still to be
	// told, the oldest mails first and about limit of them. It says how many it
	// removed; call it again while that is not 0. Each call is one step, as of Purge.
	PurgeFailed(ctx context.Context, before time.Time, limit int) (int, error)

	// Close ends the queue after the calls that are under way; it waits for
	// them, and for readers of Raw. Later calls fail with ErrClosed. Closing twice is harmless.
	Close() error
}

// Claims is the workers' side.
type Claims interface {
	// Claim hands out up to r.Max recipients that are waiting and due. The
	// attempt is recorded before Claim returns. Finding nothing is no error.
	//
	// A recipient that is claimed is not claimed again before it is settled or
	// its owner is gone. The owner is whoever opened the queue; it is gone when
	// it called Close, or when its process ended. Its claims are then waiting and
	// due, or held if an operator said so meanwhile.
	//
	// Where there is one owner no clock ends a claim: a clock that is set forward, or
	// a disk that stalls, would end one whose call is still under way, and the
	// recipient would get two copies. Where several share a queue each has a lease,
	// by the storage's clock, which it renews, and is gone when it did not in time.
	// Before that its claims are Lost (see Claim), by a clock that nobody sets, and
	// it claims nothing more until its lease is renewed.
	//
	// Lanes take turns, over all calls together: no lane gets a second
	// recipient while another that has one due has not had its turn. Within a
	// lane the mail that was enqueued first goes first, and its recipients in
	// their order. A recipient that is not due holds nobody up. Where very
	// many become due at once a backend may take them up in steps, those that
	// were due first before the others; and what was due once stays due, even
	// if a later request has an earlier Now.
	Claim(ctx context.Context, r ClaimRequest) ([]Claim, error)

	// Settle ends attempts. Settling the same claim twice is harmless: the
	// first word stands. Claims that are not valid any more are left alone
	// and reported as a *StaleError; all others are settled. A claim stays valid
	// until the recipient is claimed again.
	Settle(ctx context.Context, settlements ...Settlement) error

	// NextDue says from when on a Claim with the same Account, Now, Limits and MaxWait
	// might find something: Now at the earliest, the next due time otherwise. It
	// is false when only a change can make something due: a settlement, or one of
	// those of which Wake tells. It may name a time at which there is nothing after all.
	NextDue(ctx context.Context, r ClaimRequest) (time.Time, bool, error)
}

// ClaimRequest says what to claim.
type ClaimRequest struct {
	// Account: mail of this account alone is claimed. What it says of lanes, turns
	// and the latest mail is within the account.
	Account string
	Now     time.Time
	Max     int // at least 1
	// MaxWait is more than any recipient ever waits. One that is due later than
	// Now+MaxWait was settled before the clock was set back: it is due now, or it
	// would wait for as long as the clock was wrong. 0 is no bound.
	MaxWait time.Duration
	// Limits says for a sender's domain how many recipients of ordinary mail
	// this call may claim at most; a domain that is not named is not bound.
	Limits map[string]int
	// PassOver are ids of mails that this call must not claim, some hundreds at
	// most; whose turn it is among the others stays as it was.
	PassOver []string
	// Latest: the lane of the mail that came last, of some thousand and of those
	// that are due and may be claimed, goes first; if possible, of lanes that
	// have nothing in PassOver. It is no turn of that lane.
	Latest bool
}

// Token names one claim of one recipient. It is a fence: each claim of a
// recipient has a higher one than the one before.
type Token struct {
	Mail      string // the mail's id
	Recipient int    // its Number
	Fence     int64
}

// Claim is one recipient that only the caller tries.
type Claim struct {
	Token   Token
	Mail    Mail // without Recipients and without Raw
	Addr    string
	Attempt int       // 1 for the first that counts
	Since   time.Time // see Recipient
	// Unknown: the attempt before this one was never settled, so the mail may
	// have been sent already.
	Unknown bool
	// Lost is closed before anybody else can claim the recipient because the lease of
	// its owner ends; see Claims. The attempt must then be given up at once. It is
	// nil where there is one owner.
	Lost <-chan struct{}
}

// Result is what becomes of a recipient after an attempt.
type Result int

const (
	// Done is Sent.
	Done Result = iota + 1
	// Later is Waiting until Due, or Held if an operator said so meanwhile.
	Later
	// GaveUp is Failed.
	GaveUp
)

// Settlement says what came of a claim.
type Settlement struct {
	Token   Token
	Result  Result
	Outcome relay.Outcome
	At      time.Time // when the attempt ended
	Due     time.Time // when to try again; for Later
	// NotAnAttempt gives the attempt's number back: it was not made, or the
	// API did not look at it, as with 429. For Later.
	NotAnAttempt bool
	// Count names a mark that goes up by one together with this settlement,
	// "" for none. It does not for a stale or repeated one.
	Count string
}

// StaleError names the settlements that came too late.
type StaleError struct{ Tokens []Token }

func (e *StaleError) Error() string {
	ids := make([]string, len(e.Tokens))
	for i, t := range e.Tokens {
		ids[i] = t.Mail
	}
	return ErrStale.Error() + ": " + strings.Join(ids, ", ")
}

// Is makes errors.Is(err, ErrStale) true.
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// Bounces is how senders learn what failed, once, whatever crashes.
type Bounces interface {
	// BouncesDue lists up to limit mails, oldest first, that have recipients
	// that failed and are not Bounced, where no recipient is open any more or
	// one such failure is at least grace old. One that is later than now was
	// before the clock was set back, and is old enough.
	BouncesDue(ctx context.Context, now time.Time, grace time.Duration, limit int) ([]Bounce, error)

	// Bounced marks recipients of a mail, by their numbers, as bounced and enqueues the mail
	// that says so, in one step. bounce is nil when nobody is to be told. If
	// none of the recipients was still to be bounced nothing happens, so that
	// repeating the call is harmless; give the bounce BounceID as its id. The
	// capacity does not bound bounces. ErrNotFound: the mail was dropped.
	Bounced(ctx context.Context, id string, recipients []int, bounce *Mail) error
}

// Bounce is a mail whose sender is to be told. Failed are the recipients to
// tell of; Mail has all of them with their history.
type Bounce struct {
	Mail   Mail
	Failed []Recipient
}

// Operator is the person's side.
type Operator interface {
	// Get returns a mail with its recipients and their histories, or
	// ErrNotFound.
	Get(ctx context.Context, id string) (Mail, error)

	// Raw returns the mail as it came, or ErrNotFound when it is not kept any
	// more. Content that is not what came is never passed off as whole: Raw
	// fails with ErrDamaged, or the reader does so instead of io.EOF. The
	// queue then marks the mail as damaged and gives up all recipients that
	// are waiting, so that the sender is told. The reader must be closed, and
	// keeps Close waiting until it is.
	Raw(ctx context.Context, id string) (io.ReadCloser, error)

	// List returns recipients in the order their mails came, up to f.Limit,
	// from after f.Cursor on. The second result is the cursor to go on with,
	// "" at the end. A page may be short, even empty, before the end: a
	// backend looks at a bounded number of recipients per call.
	List(ctx context.Context, f Filter) ([]Entry, string, error)

	// Hold stops waiting recipients; those being tried are stopped when their
	// attempt comes to Later or its owner is gone. Release makes held ones
	// wait again, until the time they were due, and takes back a Hold of those
	// being tried. Retry makes waiting ones due at once, and failed ones
	// waiting again, with no attempts, as if they had come at now; damaged
	// mail cannot be retried. Drop removes open and failed recipients, with
	// the mail when no recipient is left, and tells nobody; an attempt under
	// way may still succeed, and its settlement is stale. Each says to how
	// many recipients it applied. Limit and Cursor of the filter are not
	// looked at. They work in steps: other calls go on between them,
	// and after an error some of it may have been done.
	Hold(ctx context.Context, f Filter) (int, error)
	Release(ctx context.Context, f Filter) (int, error)
	Retry(ctx context.Context, f Filter, now time.Time) (int, error)
	Drop(ctx context.Context, f Filter) (int, error)

	// Reassign gives mails to another account, those that have an open or failed
	// recipient that matches. It says how many mails it moved, and works in steps as
	// well. An attempt under way is still made by the account that began it.
	Reassign(ctx context.Context, f Filter, account string) (int, error)

	// Accounts counts the mails of each account that are not sent to everybody,
	// but for those of the default account, and at most MaxCounted of each.
	Accounts(ctx context.Context) (map[string]int, error)

	// Stats is cheap, however much is stored.
	Stats(ctx context.Context) (Stats, error)
}

// Filter selects recipients; they must match all fields that are not zero.
type Filter struct {
	ID        string // a mail's id or the beginning of one
	States    []State
	Sender    string // the envelope sender, case-insensitive in ASCII
	Recipient string // the address, case-insensitive in ASCII
	Account   string // relay.DefaultAccount selects those of the default account
	// Received at or after From and before Until.
	From, Until time.Time

	Limit  int // 0 is 100; 1000 at most
	Cursor string
}

// Entry is one line of a list.
type Entry struct {
	Mail      Mail      // without Recipients and without Raw
	Recipient Recipient // History has the latest attempt only
}

// MaxCounted bounds what Accounts counts.
const MaxCounted = 10_000

// Stats counts what is stored.
type Stats struct {
	Recipients map[State]int64 // every state is there
	Mails      int64           // whose content is kept
	Bytes      int64           // the sum of their sizes
	// FailedMails and FailedBytes are the part of them that has no open
	// recipient, and is kept because some failed.
	FailedMails int64
	FailedBytes int64
	// Oldest is when the oldest mail with an open recipient came; the zero
	// time when there is none.
	Oldest time.Time
	// Unbounced counts failed recipients whose sender is still to be told.
	Unbounced int64
}

// Marks are small facts that outlive a restart: until when the gate is closed,
// the rate that was found, what a domain sent today, who has a mail that its
// client is to send again. There are some thousand of them at most. Most are
// short; the last may have some hundred bytes for each recipient of a mail.
type Marks interface {
	// Mark returns a mark's value, "" when it is not set.
	Mark(ctx context.Context, name string) (string, error)
	// Marks returns all marks whose name begins with prefix.
	Marks(ctx context.Context, prefix string) (map[string]string, error)
	// SetMark sets a mark; "" removes it.
	SetMark(ctx context.Context, name, value string) error
	// AddMark adds n to a mark read as a decimal number, 0 when it is not set
	// or not a number, and returns the sum.
	AddMark(ctx context.Context, name string, n int64) (int64, error)
}
