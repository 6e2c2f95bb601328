package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaseTime is for how long a relay's claims are its own after it was heard of.
const leaseTime = 30 * time.Second

// lease is this relay's. Its end is told by the clock of the database, and this relay
// takes it to be over earlier, by a clock of its own that nobody sets: it is reckoned from
// before the renewal was asked for, and a sixth is left for the calls to end in.
type lease struct {
	q *Queue

	// unsure counts down the renewals at which it is looked for claims whose answer
	// was lost. known are the fences of those that were answered.
	claims sync.RWMutex  // read by claims, written by who looks for lost ones
	stands chan struct{} // has a value after a renewal

	mu      sync.Mutex
	id      int64
	until   time.Time // by the monotonic clock
	failing bool      // the latest renewal failed
	lost    chan struct{}
	timer   *time.Timer // closes lost at until
	known   map[int64]struct{}
	unsure  int
}

// errNoLease: the claims of this relay may be another's, or soon.
var errNoLease = errors.New("the lease of this relay in the database is not renewed; nothing is claimed until it is")

// length is for how long a lease holds.
func (l *lease) length() time.Duration {
	if l.q.d.opts.lease > 0 {
		return l.q.d.opts.lease
	}
	return leaseTime
}

// begin enters this relay as a new owner.
func (l *lease) begin(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	asked := time.Now()
	var id, now int64
	err = l.q.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `INSERT INTO smtp2rest.relays (name, version, started, heartbeat, expires)
			VALUES ($1, $2, clock_timestamp(), clock_timestamp(), clock_timestamp() + $3 * interval '1 millisecond')
			RETURNING id, (extract(epoch FROM heartbeat) * 1000)::bigint`, name, l.q.d.opts.Version, l.length().Milliseconds()).Scan(&id, &now)
	})
	if err != nil {
		return err
	}
	l.q.skew.measure(l.q, asked, now)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id, l.known = id, map[int64]struct{}{}
	lost := make(chan struct{}) // the one before is closed, or there is none
	l.lost, l.failing = lost, false
	l.until = asked.Add(l.length() - l.length()/6)
	l.timer = time.AfterFunc(time.Until(l.until), func() { close(lost) })
	return nil
}

// renewed is told when a renewal was asked for that succeeded. It is false when that came
// too late: the claims are Lost.
func (l *lease) renewed(asked time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil || !l.timer.Stop() {
		return false
	}
	l.failing = false
	l.until = asked.Add(l.length() - l.length()/6)
	l.timer.Reset(time.Until(l.until))
	return true
}

// isLost reports whether the claims of this relay are Lost.
func (l *lease) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// over ends the claims of this relay now.
func (l *lease) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = true
	if l.timer != nil && l.timer.Stop() {
		close(l.lost)
	}
	l.timer = nil
}

// current is the owner's number, and a channel that is closed before anybody else can
// have its claims.
func (l *lease) current() (id int64, lost <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.lost == nil:
		return 0, nil, errors.New("a command cannot claim")
	case l.failing || time.Now().After(l.until):
		return 0, nil, errNoLease
	}
	return l.id, l.lost, nil
}

// owner is the number under which this relay counts, 0 for a command.
func (l *lease) owner() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *lease) name() string { return strconv.FormatInt(l.owner(), 10) }

// run renews the lease until ctx ends. One that failed is tried again soon.
func (l *lease) run(ctx context.Context) {
	pause := l.length() / 6
	for {
		wait(ctx, jitter(pause))
		if ctx.Err() != nil {
			return
		}
		pause = l.length() / 6
		if err := l.renew(ctx); err != nil {
			pause = l.length() / 30
			l.mu.Lock()
			first := !l.failing
			l.failing = true
			l.mu.Unlock()
			if first {
				l.q.d.log.Warn("the lease in the database is not renewed; nothing is claimed until it is", "error", err)
			}
			continue
		}
		poke(l.stands)
	}
}

// runTidy tidies after each renewal until ctx ends. It may have to wait for locks and for
// claims that are under way, for which no renewal must wait.
func (l *lease) runTidy(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.stands:
			l.tidy(ctx)
		}
	}
}

// renew says that this relay is alive. If that comes too late it begins anew as another,
// even if its lease has not ended in the database yet: what it claimed was given up, and
// what of that was not settled must wait again.
func (l *lease) renew(ctx context.Context) error {
	asked := time.Now()
	var now int64
	err := pgx.ErrNoRows
	if !l.isLost() {
		now, err = l.extend(ctx)
	}
	if err == nil {
		l.q.skew.measure(l.q, asked, now)
		if l.renewed(asked) {
			return nil
		}
		err = pgx.ErrNoRows
	}
	if errors.Is(err, pgx.ErrNoRows) {
		l.over()
		l.q.d.log.Error("the lease in the database has ended; what was claimed may be tried by another relay")
		return l.begin(ctx)
	}
	return err
}

// extend moves the end of the lease, and returns the database's time. It finds no row when the
// lease has ended.
func (l *lease) extend(ctx context.Context) (now int64, err error) {
	// One that hangs leaves time for another.
	err = l.q.d.within(ctx, min(statementTimeout, l.length()/3), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `UPDATE smtp2rest.relays SET heartbeat = clock_timestamp(), expires = clock_timestamp() + $2 * interval '1 millisecond'
			WHERE id = $1 AND expires > clock_timestamp() RETURNING (extract(epoch FROM heartbeat) * 1000)::bigint`, l.owner(), l.length().Milliseconds()).Scan(&now)
	})
	return now, err
}

// tidy ends what others left, and gives back what was claimed without an answer.
func (l *lease) tidy(ctx context.Context) {
	freed, err := l.q.number(ctx, "SELECT smtp2rest.reap_1($1, $2)", l.owner(), partLease)
	if err == nil && freed > 0 {
		l.q.d.log.Warn("the lease of another relay ended; each of its attempts under way may have been sent", "recipients", freed)
		l.q.wakeAll()
	}
	l.mu.Lock()
	unsure := l.unsure
	l.unsure = max(0, unsure-1)
	l.mu.Unlock()
	if unsure == 0 {
		return
	}
	l.claims.Lock() // so that no answer is on its way
	defer l.claims.Unlock()
	l.mu.Lock()
	known := make([]int64, 0, len(l.known))
	for fence := range l.known {
		known = append(known, fence)
	}
	l.mu.Unlock()
	freed, err = l.q.number(ctx, "SELECT smtp2rest.unclaim_1($1, $2, $3)", l.owner(), partLease, known)
	if err == nil && freed > 0 {
		l.q.d.log.Info("claims whose answer was lost wait again", "recipients", freed)
		l.q.wakeAll()
	}
}

// lostAnswer: a claim may have been made that nobody knows of. It may even be on its way
// to the server still, so it is looked for more than once.
func (l *lease) lostAnswer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure = 3
}

func (l *lease) claimed(fence int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[fence] = struct{}{}
}

func (l *lease) settled(fence int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, fence)
}

// end gives all claims back. It comes last.
func (l *lease) end() {
	l.over()
	if l.owner() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	if _, err := l.q.number(ctx, "SELECT smtp2rest.leave_1($1)", l.owner()); err != nil {
		l.q.d.log.Warn("the lease could not be given back; it ends by itself", "after", l.length().String(), "error", err)
		return
	}
	l.q.d.Notify(topicQueue, "")
}

// skew is how much the clock of the database is ahead of this machine's. Times go to
// the database by its own clock and come back by this one's, so that a relay whose clock
// is wrong makes nothing due too early or too late.
type skew struct {
	mu     sync.Mutex
	millis int64
}

// skewTolerated is how far apart two clocks may be: those that are set by NTP are closer, and
// times stay exactly as they are.
const skewTolerated = time.Second

// measure is given the database's time, which was told between asked and now.
func (k *skew) measure(q *Queue, asked time.Time, database int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	took := time.Since(asked)
	measured := database - q.clock(asked.Add(took/2)).UnixMilli()
	off := time.Duration(measured-k.millis) * time.Millisecond
	if off.Abs() <= skewTolerated+took/2 {
		return
	}
	k.millis = measured
	q.d.log.Warn("this machine's clock and the database's are apart; the database's counts", "database_ahead", fmt.Sprint(time.Duration(measured)*time.Millisecond))
}

func (q *Queue) clock(now time.Time) time.Time {
	if q.d.opts.now != nil {
		return q.d.opts.now()
	}
	return now
}

// in is how a time is stored, and out the way back.
func (q *Queue) in(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	q.skew.mu.Lock()
	defer q.skew.mu.Unlock()
	return t.UnixMilli() + q.skew.millis
}

func (q *Queue) out(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	q.skew.mu.Lock()
	defer q.skew.mu.Unlock()
	return time.UnixMilli(ms - q.skew.millis).UTC()
}
