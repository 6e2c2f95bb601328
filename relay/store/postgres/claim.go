package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Claim implements queue.Queue.
func (q *Queue) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	if r.Max < 1 {
		return nil, fmt.Errorf("a claim of %d recipients", r.Max)
	}
	if err := q.enter(); err != nil {
		return nil, err
	}
	defer q.leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.lease.claims.RLock()
	defer q.lease.claims.RUnlock()
	id, lost, err := q.lease.current()
	if err != nil {
		return nil, err
	}
	q.latest.Store(q.in(r.Now))
	var claims []queue.Claim
	defer q.metrics.time(1)()
	err = q.d.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		claims, err = q.claim(ctx, c, id, lost, r)
		return err
	})
	if unknown(err) {
		q.lease.lostAnswer()
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code == "S2R01" {
		err = errNoLease
	}
	q.metrics.failed(err)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		q.lease.claimed(c.Token.Fence)
	}
	return claims, nil
}

func (q *Queue) claim(ctx context.Context, c *pgx.Conn, id int64, lost <-chan struct{}, r queue.ClaimRequest) ([]queue.Claim, error) {
	turns, allowed := limits(r.Limits)
	over := r.PassOver
	if over == nil {
		over = []string{}
	}
	rows, err := c.Query(ctx, `SELECT id, sender, lane, domain, urgent, received, client, bounce_of, account, size, damaged, n, addr, attempts, since, fence, unknown
		FROM smtp2rest.claim_1($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		id, r.Account, q.in(r.Now), r.MaxWait.Milliseconds(), r.Max, turns, allowed, over, r.Latest)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (queue.Claim, error) {
		c := queue.Claim{Lost: lost}
		var m mailRow
		var since int64
		err := row.Scan(append(m.targets(), &c.Token.Recipient, &c.Addr, &c.Attempt, &since, &c.Token.Fence, &c.Unknown)...)
		c.Mail, c.Since = m.mail(q), q.out(since)
		c.Token.Mail = c.Mail.Message.ID
		return c, err
	})
}

// limits are what the lanes of a domain may still get, as arrays.
func limits(of map[string]int) (turns []string, allowed []int32) {
	turns, allowed = []string{}, []int32{}
	for domain, n := range of {
		turns, allowed = append(turns, "="+domain), append(allowed, int32(min(max(n, 0), 1<<30)))
	}
	return turns, allowed
}

// mailFields are what a mailRow is read from, of a table called m.
const mailFields = "m.id, m.sender, m.lane, m.domain, m.urgent, m.received, m.client, m.bounce_of, m.account, m.size, m.damaged"

// mailRow is a mail as it is stored.
type mailRow struct {
	m        queue.Mail
	received int64
	client   string
}

func (r *mailRow) targets() []any {
	m := &r.m
	return []any{&m.Message.ID, &m.Message.From, &m.Lane, &m.Domain, &m.Urgent, &r.received, &r.client, &m.BounceOf, &m.Message.Account, &m.Size, &m.Damaged}
}

func (r *mailRow) mail(q *Queue) queue.Mail {
	r.m.Message.ReceivedAt = q.out(r.received)
	var client relay.Client
	if json.Unmarshal([]byte(r.client), &client) == nil { // it was made by json.Marshal
		r.m.Message.Client = client
	}
	return r.m
}

// NextDue implements queue.Queue.
func (q *Queue) NextDue(ctx context.Context, r queue.ClaimRequest) (time.Time, bool, error) {
	closed := []string{}
	for domain, n := range r.Limits {
		if n <= 0 {
			closed = append(closed, "="+domain)
		}
	}
	var some bool
	var first, last *int64
	err := q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT is_ready, first, last FROM smtp2rest.next_1($1, $2)", r.Account, closed).Scan(&some, &first, &last)
	})
	switch {
	case err != nil:
		return time.Time{}, false, err
	case some:
		return r.Now, true, nil
	case first == nil:
		return time.Time{}, false, nil
	}
	at := q.out(*first)
	if at.Before(r.Now) || r.MaxWait > 0 && q.out(*last).After(r.Now.Add(r.MaxWait)) {
		at = r.Now
	}
	return at, true, nil
}
