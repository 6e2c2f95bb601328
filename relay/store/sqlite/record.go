package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// mailColumns are what readMail reads, from a table called m.
const mailColumns = `m.id, m.sender, m.lane, m.domain, m.urgent, m.received, m.client,
	m.bounce_of, m.size, m.damaged, m.envelope_sum, m.seq, m.body, m.spool, m.body_sum, m.place`

// mailWidth is how many mailColumns there are.
const mailWidth = 16

// stored is a mail's row.
type stored struct {
	queue.Mail
	seq         int64
	envelopeSum int64
	body        int64
	spool       string
	place       int64
	bodySum     int64
}

// readMail takes mailColumns.
func readMail(r row) (stored, error) {
	m := stored{envelopeSum: r.Int(10), seq: r.Int(11), body: r.Int(12), spool: r.Text(13), bodySum: r.Int(14), place: r.Int(15)}
	m.Message = relay.Message{ID: r.Text(0), From: r.Text(1), ReceivedAt: fromMillis(r.Int(5))}
	m.Lane, m.Domain, m.Urgent = r.Text(2), r.Text(3), r.Bool(4)
	m.BounceOf, m.Size, m.Damaged = r.Text(7), r.Int(8), r.Bool(9)
	if err := json.Unmarshal([]byte(r.Text(6)), &m.Message.Client); err != nil {
		return m, fmt.Errorf("%w: mail %s: %w", queue.ErrDamaged, m.Message.ID, err)
	}
	return m, nil
}

// castagnoli has the polynomial that processors compute themselves.
func checksum(parts ...[]byte) int64 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := uint32(0)
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
		sum = crc32.Update(sum, table, []byte{0}) // so that parts cannot run together
	}
	return int64(sum)
}

// envelopeSum covers what decides who a mail is from and how it is handled.
func envelopeSum(m queue.Mail, client string) int64 {
	return checksum([]byte(m.Message.ID), []byte(m.Message.From), []byte(m.Lane), []byte(m.Domain),
		[]byte(m.BounceOf), []byte(client), fmt.Append(nil, m.Urgent, m.Size, millis(m.Message.ReceivedAt)))
}

// addressSum covers who a recipient is, and of which mail.
func addressSum(id string, n int, addr string) int64 {
	return checksum([]byte(id), fmt.Append(nil, n), []byte(addr))
}

// intact reports whether the envelope is the one that was stored.
func (m stored) intact(client string) bool { return envelopeSum(m.Mail, client) == m.envelopeSum }

// millis is how times are stored; fromMillis is the way back.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// stateOf is the contract's word for a stored state.
func stateOf(s int64) queue.State {
	switch s {
	case claimed:
		return queue.Claimed
	case held:
		return queue.Held
	case sent:
		return queue.Sent
	case failed:
		return queue.Failed
	default:
		return queue.Waiting
	}
}

// recipientColumns are what readRecipient reads, from a table called r.
const recipientColumns = `r.addr, r.state, r.due, r.attempts, r.since, r.ended, r.bounced, r.n, r.mail`

func readRecipient(r row) queue.Recipient {
	return queue.Recipient{
		Number: int(r.Int(7)), Addr: r.Text(0), State: stateOf(r.Int(1)), Due: fromMillis(r.Int(2)), Attempts: int(r.Int(3)),
		Since: fromMillis(r.Int(4)), Ended: fromMillis(r.Int(5)), Bounced: r.Bool(6),
	}
}

// insertAttempt records one attempt and forgets the oldest above MaxHistory.
func (t *tx) insertAttempt(seq, n, fence int64, a queue.Attempt) error {
	_, err := t.change(`INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		seq, n, fence, millis(a.Started), a.Unknown, a.NotAnAttempt, int(a.Outcome.Kind), a.Outcome.Status,
		a.Outcome.MessageID, a.Outcome.Detail, causeText(a.Outcome), int64(a.Outcome.RetryAfter), int64(a.Outcome.Took))
	return err
}

// causeText is how the cause of an outcome is stored.
func causeText(o relay.Outcome) string {
	if o.Cause == nil {
		return ""
	}
	return o.Cause.Error()
}

// trimAttempts forgets the oldest attempts of a recipient above MaxHistory.
func (t *tx) trimAttempts(seq, n int64) error {
	_, err := t.change(`DELETE FROM attempts WHERE mail = ?1 AND n = ?2 AND fence <
		(SELECT fence FROM attempts WHERE mail = ?1 AND n = ?2 ORDER BY fence DESC LIMIT 1 OFFSET ?3)`,
		seq, n, queue.MaxHistory-1)
	return err
}

// history reads a recipient's latest attempts, oldest first.
func history(c *conn, seq, n int64, limit int) ([]queue.Attempt, error) {
	var latest []queue.Attempt
	err := c.Each(func(r row) error {
		a := queue.Attempt{Started: fromMillis(r.Int(0)), Unknown: r.Bool(1), NotAnAttempt: r.Bool(2)}
		a.Outcome = relay.Outcome{Kind: relay.Kind(r.Int(3)), Status: int(r.Int(4)), MessageID: r.Text(5), Detail: r.Text(6),
			RetryAfter: time.Duration(r.Int(8)), Took: time.Duration(r.Int(9))}
		if cause := r.Text(7); cause != "" {
			a.Outcome.Cause = errors.New(cause)
		}
		latest = append(latest, a)
		return nil
	}, `SELECT started, unknown, not_counted, kind, status, message_id, detail, cause, retry_after, took
		FROM attempts WHERE mail = ? AND n = ? ORDER BY fence DESC LIMIT ?`, seq, n, limit)
	for i, j := 0, len(latest)-1; i < j; i, j = i+1, j-1 {
		latest[i], latest[j] = latest[j], latest[i]
	}
	return latest, err
}
