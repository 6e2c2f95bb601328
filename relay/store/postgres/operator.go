package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// read runs f in a transaction that only reads, so that all it reads is of one
// moment. The planner must go by the indexes: what it knows of a table that
// fills and empties is mostly wrong.
func (q *Queue) read(ctx context.Context, f func(ctx context.Context, t pgx.Tx) error) error {
	o := beginning()
	o.BeginQuery = strings.Replace(o.BeginQuery, "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 1) + indexesOnly
	return q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, o, func(t pgx.Tx) error { return f(ctx, t) })
	})
}

const indexesOnly = "; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off"

// Get implements queue.Queue.
func (q *Queue) Get(ctx context.Context, id string) (queue.Mail, error) {
	var m queue.Mail
	err := q.read(ctx, func(ctx context.Context, t pgx.Tx) (err error) {
		m, err = q.readWhole(ctx, t, "m.id = $1", clean(id))
		return err
	})
	return m, err
}

// recipientFields are what a recipientRow is read from, of a table called r.
const recipientFields = "r.n, r.addr, r.state, r.due, r.attempts, r.since, r.ended, r.bounced"

// recipientRow is a recipient as it is stored.
type recipientRow struct {
	r                 queue.Recipient
	state             int
	due, since, ended int64
}

func (r *recipientRow) targets() []any {
	return []any{&r.r.Number, &r.r.Addr, &r.state, &r.due, &r.r.Attempts, &r.since, &r.ended, &r.r.Bounced}
}

func (r *recipientRow) recipient(q *Queue) queue.Recipient {
	r.r.State, r.r.Due, r.r.Since, r.r.Ended = stored.StateOf(int64(r.state)), q.out(r.due), q.out(r.since), q.out(r.ended)
	return r.r
}

// attemptFields are what an attemptRow is read from, of a table called a.
const attemptFields = "a.started, a.unknown, a.not_counted, a.kind, a.status, a.message_id, a.detail, a.cause, a.retry_after, a.took"

// attemptRow is an attempt as it is stored. A list may have a recipient that has none.
type attemptRow struct {
	started, retryAfter, took *int64
	unknown, notCounted       *bool
	kind, status              *int
	messageID, detail, cause  *string
}

func (r *attemptRow) targets() []any {
	return []any{&r.started, &r.unknown, &r.notCounted, &r.kind, &r.status, &r.messageID, &r.detail, &r.cause, &r.retryAfter, &r.took}
}

func (r *attemptRow) attempt(q *Queue) queue.Attempt {
	a := queue.Attempt{Started: q.out(*r.started), Unknown: *r.unknown, NotAnAttempt: *r.notCounted}
	a.Outcome = relay.Outcome{Kind: relay.Kind(*r.kind), Status: *r.status, MessageID: *r.messageID, Detail: *r.detail,
		Cause: stored.CauseOf(*r.cause), RetryAfter: time.Duration(*r.retryAfter), Took: time.Duration(*r.took)}
	return a
}

// readWhole reads one mail with its recipients and their histories.
func (q *Queue) readWhole(ctx context.Context, t pgx.Tx, where string, key any) (queue.Mail, error) {
	var row mailRow
	var seq int64
	err := t.QueryRow(ctx, "SELECT "+mailFields+", m.seq FROM smtp2rest.mails m WHERE "+where, key).Scan(append(row.targets(), &seq)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return queue.Mail{}, queue.ErrNotFound
	}
	if err != nil {
		return queue.Mail{}, err
	}
	m := row.mail(q)
	rows, err := t.Query(ctx, "SELECT "+recipientFields+" FROM smtp2rest.recipients r WHERE r.mail = $1 ORDER BY r.n", seq)
	if err != nil {
		return m, err
	}
	places := map[int]int{}
	m.Recipients, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (queue.Recipient, error) {
		var r recipientRow
		err := row.Scan(r.targets()...)
		places[r.r.Number] = len(places)
		return r.recipient(q), err
	})
	if err != nil {
		return m, err
	}
	rows, err = t.Query(ctx, "SELECT a.n, "+attemptFields+" FROM smtp2rest.attempts a WHERE a.mail = $1 ORDER BY a.n, a.fence", seq)
	if err != nil {
		return m, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var a attemptRow
		if err := rows.Scan(append([]any{&n}, a.targets()...)...); err != nil {
			return m, err
		}
		if i, ok := places[n]; ok {
			h := append(m.Recipients[i].History, a.attempt(q))
			m.Recipients[i].History = h[max(0, len(h)-queue.MaxHistory):]
		}
	}
	return m, rows.Err()
}

// oldest is the number of a mail before which nothing was open a short time ago, so that Stats
// does not pass over the same finished mail each time.
type oldest struct {
	mu    sync.Mutex
	seq   int64
	since time.Time
}

// oldestFor is for how long it is believed: another relay may retry what had failed.
const oldestFor = time.Minute

func (o *oldest) get() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.since) > oldestFor {
		o.seq, o.since = 0, time.Now()
	}
	return o.seq
}

func (o *oldest) set(seq int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq = max(o.seq, seq)
}

func (o *oldest) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Time{}
}

// Stats implements queue.Queue.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	var s queue.Stats
	var open, claims, onHold, done, gaveUp int64
	var seq, received *int64
	from := q.oldest.get()
	err := q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT open, claimed, held, sent, failed, unbounced, mails, bytes, failed_mails, failed_bytes, oldest, received FROM smtp2rest.stats_1($1)", from).
			Scan(&open, &claims, &onHold, &done, &gaveUp, &s.Unbounced, &s.Mails, &s.Bytes, &s.FailedMails, &s.FailedBytes, &seq, &received)
	})
	if err != nil {
		return s, err
	}
	s.Recipients = map[queue.State]int64{queue.Waiting: open - claims, queue.Claimed: claims, queue.Held: onHold, queue.Sent: done, queue.Failed: gaveUp}
	if seq != nil {
		q.oldest.set(*seq)
		s.Oldest = q.out(*received)
	}
	return s, nil
}

// operate applies a change to all recipients that match, in steps.
func (q *Queue) operate(ctx context.Context, f queue.Filter, change string, now time.Time, account string) (int, error) {
	if err := q.enter(); err != nil {
		return 0, err
	}
	defer q.leave()
	total := 0
	for at, more := stored.BeforeAll(), true; more; {
		var mails []int64
		var numbers []int32
		err := q.read(ctx, func(ctx context.Context, t pgx.Tx) (err error) {
			mails, numbers = nil, nil
			at, more, err = scan(ctx, q, t, f, at, stored.OperateAtOnce, "r.state", func(rows pgx.Rows, c *stored.Cursor) error {
				var state int
				err := rows.Scan(&c.Mail, &c.N, &state)
				mails, numbers = append(mails, c.Mail), append(numbers, int32(c.N))
				return err
			})
			return err
		})
		if err != nil {
			return total, err
		}
		if len(mails) == 0 {
			continue
		}
		changed, err := q.number(ctx, "SELECT smtp2rest.operate_1($1, $2, $3, $4, $5, $6, $7, $8)",
			q.lease.owner(), partOperator, change, mails, numbers, q.in(now), q.bounds.Load().ForgetSent, account)
		if err != nil {
			return total, err
		}
		total += changed
		if changed > 0 && change != "hold" && change != "drop" {
			q.wakeAll()
		}
	}
	q.oldest.forget()
	return total, nil
}

// Hold implements queue.Queue.
func (q *Queue) Hold(ctx context.Context, f queue.Filter) (int, error) {
	return q.operate(ctx, f, "hold", time.Time{}, "")
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, f queue.Filter) (int, error) {
	return q.operate(ctx, f, "release", time.Time{}, "")
}

// Retry implements queue.Queue.
func (q *Queue) Retry(ctx context.Context, f queue.Filter, now time.Time) (int, error) {
	return q.operate(ctx, f, "retry", now, "")
}

// Drop implements queue.Queue.
func (q *Queue) Drop(ctx context.Context, f queue.Filter) (int, error) {
	return q.operate(ctx, f, "drop", time.Time{}, "")
}

// Reassign implements queue.Queue.
func (q *Queue) Reassign(ctx context.Context, f queue.Filter, account string) (int, error) {
	if err := stored.CheckAccount(account); err != nil {
		return 0, err
	}
	return q.operate(ctx, f, "reassign", time.Time{}, account)
}

// Accounts implements queue.Queue.
func (q *Queue) Accounts(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	err := q.read(ctx, func(ctx context.Context, t pgx.Tx) error {
		for account := ""; ; {
			err := t.QueryRow(ctx, "SELECT account FROM smtp2rest.mails WHERE account <> '' AND done = 0 AND account > $1 ORDER BY account LIMIT 1", account).Scan(&account)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			n := 0
			if err := t.QueryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM smtp2rest.mails WHERE account <> '' AND done = 0 AND account = $1 LIMIT $2) x",
				account, queue.MaxCounted).Scan(&n); err != nil {
				return err
			}
			counts[account] = n
		}
	})
	return counts, err
}
