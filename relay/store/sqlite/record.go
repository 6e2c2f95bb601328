package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// mailColumns are what readMail reads, from a table called m.
const mailColumns = `m.id, m.sender, m.lane, m.domain, m.urgent, m.received, m.client,
	m.bounce_of, m.size, m.damaged, m.envelope_sum, m.seq, m.body, m.spool, m.body_sum, m.account`

// mailWidth is how many mailColumns there are.
const mailWidth = 16

// mailRow is a mail's row.
type mailRow struct {
	queue.Mail
	seq         int64
	envelopeSum int64
	body        int64
	spool       string
	bodySum     int64
}

// readMail takes mailColumns.
func readMail(r row) (mailRow, error) {
	m := mailRow{envelopeSum: r.Int(10), seq: r.Int(11), body: r.Int(12), spool: r.Text(13), bodySum: r.Int(14)}
	m.Message = relay.Message{ID: r.Text(0), From: r.Text(1), ReceivedAt: stored.Time(r.Int(5)), Account: r.Text(15)}
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
	parts := [][]byte{[]byte(m.Message.ID), []byte(m.Message.From), []byte(m.Lane), []byte(m.Domain),
		[]byte(m.BounceOf), []byte(client), fmt.Append(nil, m.Urgent, m.Size, stored.Millis(m.Message.ReceivedAt))}
	if m.Message.Account != "" { // which versions before 5 did not have
		parts = append(parts, []byte(m.Message.Account))
	}
	return checksum(parts...)
}

// addressSum covers who a recipient is, and of which mail.
func addressSum(id string, n int, addr string) int64 {
	return checksum([]byte(id), fmt.Append(nil, n), []byte(addr))
}

// intact reports whether the envelope is the one that was stored.
func (m mailRow) intact(client string) bool { return envelopeSum(m.Mail, client) == m.envelopeSum }

// recipientColumns are what readRecipient reads, from a table called r.
const recipientColumns = `r.addr, r.state, r.due, r.attempts, r.since, r.ended, r.bounced, r.n, r.mail, r.hold`

func readRecipient(r row) queue.Recipient {
	return queue.Recipient{
		Number: int(r.Int(7)), Addr: r.Text(0), State: stored.StateOf(r.Int(1)), Due: stored.Time(r.Int(2)), Attempts: int(r.Int(3)),
		Since: stored.Time(r.Int(4)), Ended: stored.Time(r.Int(5)), Bounced: r.Bool(6),
	}
}

// insertAttempt records one attempt.
func (t *tx) insertAttempt(seq, n, fence int64, a queue.Attempt) {
	t.exec(`INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		seq, n, fence, stored.Millis(a.Started), a.Unknown, a.NotAnAttempt, int(a.Outcome.Kind), a.Outcome.Status,
		a.Outcome.MessageID, a.Outcome.Detail, stored.Cause(a.Outcome), int64(a.Outcome.RetryAfter), int64(a.Outcome.Took))
}

// trimAttempts forgets the oldest attempts of a recipient above MaxHistory.
func (t *tx) trimAttempts(seq, n int64) {
	t.exec(`DELETE FROM attempts WHERE mail = ?1 AND n = ?2 AND fence <
		(SELECT fence FROM attempts WHERE mail = ?1 AND n = ?2 ORDER BY fence DESC LIMIT 1 OFFSET ?3)`,
		seq, n, queue.MaxHistory-1)
}

// attemptsOf reads a recipient's latest attempts, oldest first.
func attemptsOf(c *conn, seq, n int64, limit int) ([]queue.Attempt, error) {
	var latest []queue.Attempt
	err := c.Each(func(r row) error {
		a := queue.Attempt{Started: stored.Time(r.Int(0)), Unknown: r.Bool(1), NotAnAttempt: r.Bool(2)}
		a.Outcome = relay.Outcome{Kind: relay.Kind(r.Int(3)), Status: int(r.Int(4)), MessageID: r.Text(5), Detail: r.Text(6),
			Cause: stored.CauseOf(r.Text(7)), RetryAfter: time.Duration(r.Int(8)), Took: time.Duration(r.Int(9))}
		latest = append(latest, a)
		return nil
	}, `SELECT started, unknown, not_counted, kind, status, message_id, detail, cause, retry_after, took
		FROM attempts WHERE mail = ? AND n = ? ORDER BY fence DESC LIMIT ?`, seq, n, limit)
	slices.Reverse(latest)
	return latest, err
}

// counts is what Stats needs, kept up to date by each commit instead of being
// counted. It is stored with the commit, so that it is right after a crash.
type counts struct {
	state     [failed + 1]int64 // ready counts for later too
	kept      kept
	failed    kept // the part of it that has no open recipient
	unbounced int64
	seq       int64 // the latest mail's
	fence     int64 // the latest claim's
}

// kept is mails whose content is kept, and the sum of their sizes.
type kept struct{ mails, bytes int64 }

func (k *kept) add(size int64) {
	k.mails++
	k.bytes += size
}

// loadCounts makes the counts in the file those of the latest commit.
func (s *Queue) loadCounts() error {
	n, err := readCounts(s.conn)
	if err == nil {
		s.last.counts = n
		s.published.Store(&n)
	}
	return err
}

func readCounts(c *conn) (counts, error) {
	r, err := c.One("SELECT waiting, claimed, held, sent, failed, mails, bytes, unbounced, seq, fence, failed_mails, failed_bytes FROM counts")
	if err != nil || r == nil {
		return counts{}, err
	}
	n := counts{kept: kept{r.Int(5), r.Int(6)}, unbounced: r.Int(7), seq: r.Int(8), fence: r.Int(9), failed: kept{r.Int(10), r.Int(11)}}
	for i, s := range [...]int{ready, claimed, held, sent, failed} {
		n.state[s] = r.Int(i)
	}
	return n, nil
}

// rebuildCounts makes the row anew if it is missing, as it may be in a database that
// was rescued with .recover: without it every mail would be refused. What has lost
// its mail cannot be sent, and would stop the claims of all others.
func (s *Queue) rebuildCounts() (bool, error) {
	r, err := s.conn.One("SELECT 1 FROM counts")
	if err != nil || r != nil {
		return false, err
	}
	if s.opts.Existing {
		return false, fmt.Errorf("%w: its counts are missing", ErrOlder)
	}
	if err := s.conn.Script("BEGIN IMMEDIATE"); err != nil {
		return false, err
	}
	orphans, err := s.conn.Exec("DELETE FROM recipients WHERE mail NOT IN (SELECT seq FROM mails)")
	if err != nil {
		return false, err
	}
	if err := s.conn.Script(countAnew + "; COMMIT"); err != nil {
		return false, err
	}
	s.log.Warn("the queue's counts were missing; they were counted anew", "recipients_without_mail", orphans)
	return true, nil
}

const countAnew = `DELETE FROM attempts WHERE (mail, n) NOT IN (SELECT mail, n FROM recipients);
INSERT INTO counts (one, waiting, claimed, held, sent, failed, mails, bytes, unbounced, seq, fence) SELECT 1, count(*) FILTER (WHERE state IN (0, 1)), count(*) FILTER (WHERE state = 2),
	count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5),
	0, 0, count(*) FILTER (WHERE state = 5 AND bounced = 0), 0, coalesce(max(fence), 0) FROM recipients;
UPDATE counts SET fence = max(fence, (SELECT coalesce(max(fence), 0) FROM attempts)),
	seq = (SELECT coalesce(max(seq), 0) FROM mails),
	(mails, bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM mails WHERE body <> 0),
	(failed_mails, failed_bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM mails WHERE body <> 0
		AND NOT EXISTS (SELECT 1 FROM recipients WHERE mail = seq AND state IN (0, 1, 2, 3)))`

func (n counts) save(c *conn) error {
	_, err := c.Exec(`UPDATE counts SET waiting=?, claimed=?, held=?, sent=?, failed=?,
		mails=?, bytes=?, unbounced=?, seq=?, fence=?, failed_mails=?, failed_bytes=?`,
		n.state[ready], n.state[claimed], n.state[held], n.state[sent], n.state[failed],
		n.kept.mails, n.kept.bytes, n.unbounced, n.seq, n.fence, n.failed.mails, n.failed.bytes)
	return err
}

// add counts delta recipients in a state.
func (n *counts) add(state int64, delta int64) {
	if state == later {
		state = ready
	}
	n.state[state] += delta
}

// move counts one recipient that changed its state.
func (n *counts) move(from, to int64) {
	n.add(from, -1)
	n.add(to, 1)
}

// countFailed counts a mail that has no open recipient, and is kept because of
// its failed ones, delta times. What may change that calls it with -1 before and
// with 1 after.
func (t *tx) countFailed(seq, delta int64) {
	// From the end, because its recipients are tried from the beginning.
	r := t.one(`SELECT size FROM mails WHERE seq = ?1 AND body <> 0 AND
		(SELECT 1 FROM recipients WHERE mail = ?1 AND state IN (0, 1, 2, 3) ORDER BY n DESC LIMIT 1) IS NULL`, seq)
	if r != nil {
		t.counts.failed.mails += delta
		t.counts.failed.bytes += delta * r.Int(0)
	}
}

// Mark implements queue.Queue.
func (s *Queue) Mark(ctx context.Context, name string) (string, error) {
	value := ""
	err := s.read(ctx, func(c *conn) error {
		r, err := c.One("SELECT value FROM marks WHERE name = ?", name)
		if r != nil {
			value = r.Text(0)
		}
		return err
	})
	return value, err
}

// Marks implements queue.Queue.
func (s *Queue) Marks(ctx context.Context, prefix string) (map[string]string, error) {
	marks := map[string]string{}
	err := s.read(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			if strings.HasPrefix(r.Text(0), prefix) {
				marks[r.Text(0)] = r.Text(1)
			}
			return nil
		}, "SELECT name, value FROM marks WHERE name >= ?", prefix)
	})
	return marks, err
}

// SetMark implements queue.Queue.
func (s *Queue) SetMark(ctx context.Context, name, value string) error {
	return s.change(ctx, func(t *tx) error {
		if value == "" {
			t.exec("DELETE FROM marks WHERE name = ?", name)
		} else {
			t.exec("INSERT OR REPLACE INTO marks VALUES (?, ?)", name, value)
		}
		return nil
	})
}

// AddMark implements queue.Queue.
func (s *Queue) AddMark(ctx context.Context, name string, n int64) (int64, error) {
	sum := int64(0)
	err := s.change(ctx, func(t *tx) error {
		sum = t.addMark(name, n)
		return nil
	})
	return sum, err
}

// addMark adds to a mark and returns the sum.
func (t *tx) addMark(name string, n int64) int64 {
	if r := t.one("SELECT value FROM marks WHERE name = ?", name); r != nil {
		old, _ := strconv.ParseInt(r.Text(0), 10, 64) // anything else counts as 0, as the contract says
		n += old
	}
	t.exec("INSERT OR REPLACE INTO marks VALUES (?, ?)", name, strconv.FormatInt(n, 10))
	return n
}
