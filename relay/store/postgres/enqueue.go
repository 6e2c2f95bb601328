package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

const (
	// chunk is how much of a body is in one row.
	chunk = 128 << 10
	// groupBytes is how much mail shares a transaction.
	groupBytes = 4 << 20
)

// parcel is a mail made ready for the database.
type parcel struct {
	queue.Mail
	seq    int64 // when its content is there already
	client string
	sum    int64
	kept   bool // something is left to do or to keep it for
}

// enqueue is one call of Enqueue.
type enqueue struct {
	parcels []*parcel
	bounces bool
	bytes   int64
}

// Enqueue implements queue.Queue.
func (q *Queue) Enqueue(ctx context.Context, mails ...queue.Mail) error {
	if err := q.enter(); err != nil {
		return err
	}
	defer q.leave()
	e, err := q.wrap(mails)
	if err != nil || len(e.parcels) == 0 {
		return err
	}
	if slices.ContainsFunc(e.parcels, (*parcel).isLarge) || e.bytes > groupBytes {
		err = q.enqueueLarge(ctx, e)
	} else {
		err = q.enqueues.do(ctx, e)
	}
	if err == nil {
		q.wakeAll()
	}
	return err
}

// wrap prepares mails.
func (q *Queue) wrap(mails []queue.Mail) (*enqueue, error) {
	e := &enqueue{bounces: true}
	for i, m := range mails {
		if slices.ContainsFunc(mails[:i], func(o queue.Mail) bool { return o.Message.ID == m.Message.ID }) {
			continue
		}
		p, err := wrapOne(m)
		if err != nil {
			return nil, err
		}
		e.bounces = e.bounces && p.BounceOf != ""
		if p.kept || !q.bounds.Load().ForgetSent {
			e.parcels = append(e.parcels, p)
			e.bytes += p.Size
		}
	}
	return e, nil
}

func wrapOne(m queue.Mail) (*parcel, error) {
	client, keep, err := stored.Check(m)
	if err != nil {
		return nil, err
	}
	m.Size = int64(len(m.Message.Raw))
	p := &parcel{Mail: m, client: client, sum: checksum(m.Message.Raw), kept: keep}
	words := []string{m.Message.ID, m.Message.From, m.Message.Account, m.Lane, m.Domain, m.BounceOf}
	for _, r := range m.Recipients {
		words = append(words, r.Addr)
	}
	for _, w := range words {
		if w != clean(w) {
			return nil, fmt.Errorf("mail %s: its envelope is not text that the database takes", m.Message.ID)
		}
	}
	return p, nil
}

func (p *parcel) isLarge() bool { return p.kept && p.Size > chunk }

// checksum is CRC-32C, which processors compute themselves.
func checksum(raw []byte) int64 { return int64(crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))) }

// storeGroup stores the mails of several calls.
func (q *Queue) storeGroup(calls []call[*enqueue]) {
	for len(calls) > 0 {
		n, bytes := 0, int64(0)
		for n < len(calls) && (n == 0 || bytes+calls[n].what.bytes <= groupBytes) {
			bytes += calls[n].what.bytes
			n++
		}
		q.storeSome(calls[:n])
		calls = calls[n:]
	}
}

// storeSome stores calls in one transaction. What one of them cannot have is not
// refused to the others: then each has its own.
func (q *Queue) storeSome(calls []call[*enqueue]) {
	together := &enqueue{bounces: true}
	for _, c := range calls {
		together.parcels = append(together.parcels, c.what.parcels...)
		together.bounces = together.bounces && c.what.bounces
	}
	defer q.metrics.time(len(calls))()
	err := q.d.again(context.Background(), func(ctx context.Context, c *pgx.Conn) error { return q.store(ctx, c, partEnqueue, together) })
	if err != nil && len(calls) > 1 && mine(err) {
		for i := range calls {
			q.storeSome(calls[i : i+1])
		}
		return
	}
	q.metrics.failed(err)
	for _, c := range calls {
		c.done <- err
	}
}

// mine: it is what was asked for that was refused, and something else might not be.
func mine(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return !ok || strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "54")
}

// enqueueLarge stores large mail in a transaction of its own, so that small ones do
// not wait for it, and few at a time.
func (q *Queue) enqueueLarge(ctx context.Context, e *enqueue) error {
	select {
	case q.large <- struct{}{}:
		defer func() { <-q.large }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return q.d.again(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, beginning(), func(t pgx.Tx) error {
			if err := storeBodies(ctx, t, e.parcels); err != nil {
				return err
			}
			return q.store(ctx, t, partLarge, e)
		})
	})
}

// execer is a connection or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// storeBodies stores the content of large mail in pieces, before the mail.
func storeBodies(ctx context.Context, t execer, parcels []*parcel) error {
	for _, p := range parcels {
		if !p.isLarge() {
			continue
		}
		if err := t.QueryRow(ctx, "SELECT nextval('smtp2rest.arrivals')").Scan(&p.seq); err != nil {
			return err
		}
		part := 0
		for piece := range slices.Chunk(p.Message.Raw, chunk) {
			if _, err := t.Exec(ctx, "INSERT INTO smtp2rest.bodies VALUES ($1, $2, $3)", p.seq, part, piece); err != nil {
				return err
			}
			part++
		}
	}
	return nil
}

// store stores mails, if there is room.
func (q *Queue) store(ctx context.Context, c execer, part int, e *enqueue) error {
	o := q.bounds.Load()
	maxMails, maxBytes := int64(o.MaxMails), o.MaxBytes
	if e.bounces && maxMails > 0 {
		maxMails += queue.ReservedMails
	}
	if e.bounces && maxBytes > 0 {
		maxBytes += queue.ReservedBytes
	}
	room, err := q.insert(ctx, c, part, maxMails, maxBytes, e.parcels)
	if err == nil && !room {
		err = fmt.Errorf("%w: %d mails wait at most, of %d bytes", queue.ErrFull, o.MaxMails, o.MaxBytes)
	}
	return err
}

// insert calls the function. It is false when there is no room.
func (q *Queue) insert(ctx context.Context, c execer, part int, maxMails, maxBytes int64, parcels []*parcel) (bool, error) {
	var m mailArrays
	var r recipientArrays
	var a attemptArrays
	for i, p := range parcels {
		m.add(q, p)
		for n, one := range p.Recipients {
			r.add(q, p, i+1, n)
			for _, h := range one.History[max(0, len(one.History)-queue.MaxHistory):] {
				a.add(q, i+1, n, h)
			}
		}
	}
	args := slices.Concat([]any{q.lease.owner(), part, maxMails, maxBytes}, m.args(), r.args(), a.args())
	var seqs []int64
	err := c.QueryRow(ctx, "SELECT smtp2rest.enqueue_1("+placeholders(len(args))+")", args...).Scan(&seqs)
	for i, p := range parcels { // the content of mail that was there already
		if err == nil && seqs != nil && p.seq > 0 && seqs[i] == 0 {
			_, err = c.Exec(ctx, "DELETE FROM smtp2rest.bodies WHERE seq = $1", p.seq)
		}
	}
	return seqs != nil, err
}

func placeholders(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	return b.String()
}

// mailArrays are mails by columns, as the function takes them.
type mailArrays struct {
	seq, received, size, done, sum                      []int64
	id, sender, lane, domain, client, bounceOf, account []string
	urgent, kept                                        []bool
	raw                                                 [][]byte
}

func (m *mailArrays) add(q *Queue, p *parcel) {
	m.seq, m.id, m.sender, m.lane, m.domain = append(m.seq, p.seq), append(m.id, p.Message.ID), append(m.sender, p.Message.From), append(m.lane, p.Lane), append(m.domain, p.Domain)
	m.urgent, m.received, m.client = append(m.urgent, p.Urgent), append(m.received, q.in(p.Message.ReceivedAt)), append(m.client, p.client)
	m.bounceOf, m.account, m.size, m.kept, m.sum = append(m.bounceOf, p.BounceOf), append(m.account, p.Message.Account), append(m.size, p.Size), append(m.kept, p.kept), append(m.sum, p.sum)
	done := int64(0)
	if !p.kept {
		for _, r := range p.Recipients {
			done = max(done, q.in(r.Ended), 1)
		}
	}
	m.done = append(m.done, done)
	var raw []byte // nil is NULL: it is elsewhere, or not kept
	if p.kept && p.seq == 0 {
		raw = append([]byte{}, p.Message.Raw...)
	}
	m.raw = append(m.raw, raw)
}

func (m *mailArrays) args() []any {
	return []any{m.seq, m.id, m.sender, m.lane, m.domain, m.urgent, m.received, m.client, m.bounceOf, m.account, m.size, m.kept, m.done, m.sum, m.raw}
}

// recipientArrays are recipients by columns.
type recipientArrays struct {
	mail, n, state, attempts []int32
	bounced                  []bool
	due, since, ended        []int64
	turn, addr               []string
}

func (a *recipientArrays) add(q *Queue, p *parcel, mail, n int) {
	r, received := p.Recipients[n], q.in(p.Message.ReceivedAt)
	state := int32(stored.State(r.State, q.in(r.Due), received))
	a.mail, a.n, a.state, a.bounced = append(a.mail, int32(mail)), append(a.n, int32(n)), append(a.state, state), append(a.bounced, r.Bounced)
	a.attempts, a.due, a.since = append(a.attempts, int32(r.Attempts)), append(a.due, q.in(r.Due)), append(a.since, cmp.Or(q.in(r.Since), received))
	a.ended, a.turn, a.addr = append(a.ended, q.in(r.Ended)), append(a.turn, turnOf(p.Mail)), append(a.addr, r.Addr)
}

func (a *recipientArrays) args() []any {
	return []any{a.mail, a.n, a.state, a.bounced, a.attempts, a.due, a.since, a.ended, a.turn, a.addr}
}

// turnOf is the first part of a lane's key: urgent mail has lanes of its own, and
// the lanes of one domain lie together.
func turnOf(m queue.Mail) string {
	if m.Urgent {
		return ""
	}
	return "=" + m.Domain
}

// attemptArrays are attempts by columns.
type attemptArrays struct {
	mail, n, kind, status     []int32
	started, retryAfter, took []int64
	unknown, notCounted       []bool
	messageID, detail, cause  []string
}

func (x *attemptArrays) add(q *Queue, mail, n int, a queue.Attempt) {
	x.mail, x.n, x.started = append(x.mail, int32(mail)), append(x.n, int32(n)), append(x.started, q.in(a.Started))
	x.unknown, x.notCounted = append(x.unknown, a.Unknown), append(x.notCounted, a.NotAnAttempt)
	x.outcome(a.Outcome)
}

func (x *attemptArrays) outcome(o relay.Outcome) {
	x.kind, x.status, x.messageID = append(x.kind, int32(o.Kind)), append(x.status, int32(o.Status)), append(x.messageID, clean(o.MessageID))
	x.detail, x.cause = append(x.detail, clean(o.Detail)), append(x.cause, clean(stored.Cause(o)))
	x.retryAfter, x.took = append(x.retryAfter, int64(o.RetryAfter)), append(x.took, int64(o.Took))
}

func (x *attemptArrays) args() []any {
	return append([]any{x.mail, x.n, x.started, x.unknown, x.notCounted}, x.outcomes()...)
}

func (x *attemptArrays) outcomes() []any {
	return []any{x.kind, x.status, x.messageID, x.detail, x.cause, x.retryAfter, x.took}
}
