package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// settle is one call of Settle.
type settle struct {
	what  []queue.Settlement
	stale []queue.Token
}

// Settle implements queue.Queue.
func (q *Queue) Settle(ctx context.Context, settlements ...queue.Settlement) error {
	if err := stored.CheckResults(settlements); err != nil {
		return err
	}
	if err := q.enter(); err != nil {
		return err
	}
	defer q.leave()
	if len(settlements) == 0 {
		return ctx.Err()
	}
	s := &settle{what: settlements}
	if err := q.settles.do(ctx, s); err != nil {
		return err
	}
	wakes := false
	for _, x := range settlements {
		q.lease.settled(x.Token.Fence)
		wakes = wakes || x.Result == queue.Later && x.Due.IsZero()
	}
	if wakes {
		q.wakeAll()
	}
	if len(s.stale) > 0 {
		return &queue.StaleError{Tokens: s.stale}
	}
	return nil
}

// settleGroup settles for several calls.
func (q *Queue) settleGroup(calls []call[*settle]) {
	defer q.metrics.time(len(calls))()
	err := q.settleSome(calls)
	if err != nil && len(calls) > 1 && mine(err) {
		for i := range calls {
			err := q.settleSome(calls[i : i+1])
			q.metrics.failed(err)
			calls[i].done <- err
		}
		return
	}
	q.metrics.failed(err)
	for _, c := range calls {
		c.done <- err
	}
}

func (q *Queue) settleSome(calls []call[*settle]) error {
	var a settlementArrays
	var owners []*settle
	var tokens []queue.Token
	for _, c := range calls {
		for _, x := range c.what.what {
			a.add(q, x)
			owners, tokens = append(owners, c.what), append(tokens, x.Token)
		}
	}
	args := slices.Concat([]any{q.lease.owner(), partSettle, q.bounds.Load().ForgetSent}, a.args())
	var stale []int32
	// Twice is harmless: what was settled by the first stays as it is.
	err := q.d.again(context.Background(), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT smtp2rest.settle_1("+placeholders(len(args))+")", args...).Scan(&stale)
	})
	for _, i := range stale {
		owners[i-1].stale = append(owners[i-1].stale, tokens[i-1])
	}
	return err
}

// settlementArrays are settlements by columns.
type settlementArrays struct {
	id, count      []string
	n, result      []int32
	fence, at, due []int64
	back           []bool
	attemptArrays
}

func (a *settlementArrays) add(q *Queue, x queue.Settlement) {
	a.id, a.n, a.fence = append(a.id, x.Token.Mail), append(a.n, int32(x.Token.Recipient)), append(a.fence, x.Token.Fence)
	a.result, a.at, a.due = append(a.result, int32(x.Result)), append(a.at, q.in(x.At)), append(a.due, q.in(x.Due))
	a.back, a.count = append(a.back, x.NotAnAttempt), append(a.count, x.Count)
	a.outcome(x.Outcome)
}

func (a *settlementArrays) args() []any {
	return append([]any{a.id, a.n, a.fence, a.result, a.at, a.due, a.back, a.count}, a.outcomes()...)
}

// Purge implements queue.Queue.
func (q *Queue) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	return q.change(ctx, "SELECT smtp2rest.purge_1($1, $2, $3, $4)", q.lease.owner(), partOperator, q.in(before), limit)
}

// PurgeFailed implements queue.Queue.
func (q *Queue) PurgeFailed(ctx context.Context, before time.Time, limit int) (int, error) {
	return q.change(ctx, "SELECT smtp2rest.purge_failed_1($1, $2, $3, $4)", q.lease.owner(), partOperator, q.in(before), limit)
}

// change runs a statement whose answer is a number, for a call that has not entered. It is
// not repeated.
func (q *Queue) change(ctx context.Context, sql string, args ...any) (n int, err error) {
	err = q.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return c.QueryRow(ctx, sql, args...).Scan(&n) })
	q.metrics.failed(err)
	return n, err
}

// BouncesDue implements queue.Queue.
func (q *Queue) BouncesDue(ctx context.Context, now time.Time, grace time.Duration, limit int) ([]queue.Bounce, error) {
	var bounces []queue.Bounce
	err := q.read(ctx, func(ctx context.Context, t pgx.Tx) error {
		rows, err := t.Query(ctx, `SELECT x.mail FROM (SELECT DISTINCT mail FROM smtp2rest.recipients WHERE state = 5 AND NOT bounced) x WHERE EXISTS (
				SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = x.mail AND r.state = 5 AND NOT r.bounced AND (r.ended <= $1 OR r.ended > $2))
			OR NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = x.mail AND r.state <= 3) ORDER BY x.mail LIMIT $3`,
			q.in(now.Add(-grace)), q.in(now), limit)
		if err != nil {
			return err
		}
		seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			m, err := q.readWhole(ctx, t, "m.seq = $1", seq)
			if err != nil {
				return err
			}
			bounces = append(bounces, stored.BounceOf(m))
		}
		return nil
	})
	return bounces, err
}

// Bounced implements queue.Queue.
func (q *Queue) Bounced(ctx context.Context, id string, recipients []int, bounce *queue.Mail) error {
	if err := q.enter(); err != nil {
		return err
	}
	defer q.leave()
	e := &enqueue{}
	if bounce != nil {
		var err error
		if e, err = q.wrap([]queue.Mail{*bounce}); err != nil {
			return err
		}
	}
	numbers := make([]int32, 0, len(recipients))
	for _, n := range recipients {
		numbers = append(numbers, int32(n))
	}
	err := q.d.again(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, beginning(), func(t pgx.Tx) error {
			var marked int
			err := t.QueryRow(ctx, "SELECT smtp2rest.bounced_1($1, $2, $3, $4)", q.lease.owner(), partOperator, id, numbers).Scan(&marked)
			if err == nil && marked < 0 {
				err = queue.ErrNotFound
			}
			if err != nil || marked == 0 || len(e.parcels) == 0 {
				return err
			}
			if err := storeBodies(ctx, t, e.parcels); err != nil {
				return err
			}
			_, err = q.insert(ctx, t, partOperator, 0, 0, e.parcels)
			return err
		})
	})
	q.metrics.failed(err)
	if err == nil && bounce != nil {
		q.wakeAll()
	}
	return err
}
