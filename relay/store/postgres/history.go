package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// historyLock is the advisory lock that Forget has alone, and Write shares: so no record
// is begun of what is being forgotten.
const historyLock = 0x7332726869737400 // "s2rhist"

// Write implements history.Store. Several relays may write of one mail: all take the
// rows in the same order, so that none waits for another in a circle.
func (s *Records) Write(ctx context.Context, changes []history.Change) error {
	if s.closed.Load() {
		return errRecordsClosed
	}
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b history.Change) int { return cmp.Compare(a.ID, b.ID) })
	return s.wrote(s.d.tx(ctx, func(ctx context.Context, t pgx.Tx) error {
		forgotten, err := forgottenOf(ctx, t, changes)
		if err != nil {
			return err
		}
		var b pgx.Batch
		for _, c := range changes {
			if forgotten[c.ID] || c.Head != nil && c.Head.BounceOf != "" && forgotten[clean(c.Head.BounceOf)] {
				// What becomes of such a mail is not recorded, nor is the bounce of one.
				b.Queue("INSERT INTO smtp2rest.history_forgotten VALUES ($1) ON CONFLICT DO NOTHING", clean(c.ID))
				continue
			}
			if err := writeMail(&b, c); err != nil {
				return err
			}
		}
		return t.SendBatch(ctx, &b).Close()
	}))
}

// forgottenOf are those of some mails, and of those they report on, of which nothing is
// recorded.
func forgottenOf(ctx context.Context, t pgx.Tx, changes []history.Change) (map[string]bool, error) {
	if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1)", int64(historyLock)); err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range changes {
		ids = append(ids, clean(c.ID))
		if c.Head != nil && c.Head.BounceOf != "" {
			ids = append(ids, clean(c.Head.BounceOf))
		}
	}
	forgotten := map[string]bool{}
	list, err := texts(ctx, t, "SELECT id FROM smtp2rest.history_forgotten WHERE id = ANY($1::text[])", ids)
	for _, id := range list {
		forgotten[id] = true
	}
	return forgotten, err
}

func writeMail(b *pgx.Batch, c history.Change) error {
	head, raw, err := stored.Head(c.Head)
	if err != nil {
		return err
	}
	b.Queue(`INSERT INTO smtp2rest.history_mails AS m (id, received, sender, sender_key, account, message_id, subject, head, reply, answered)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id) DO UPDATE SET
			sender = CASE WHEN excluded.sender <> '' THEN excluded.sender ELSE m.sender END,
			sender_key = CASE WHEN excluded.sender <> '' THEN excluded.sender_key ELSE m.sender_key END,
			account = CASE WHEN excluded.head <> '' THEN excluded.account ELSE m.account END,
			message_id = CASE WHEN excluded.head <> '' THEN excluded.message_id ELSE m.message_id END,
			subject = CASE WHEN excluded.head <> '' THEN excluded.subject ELSE m.subject END,
			head = CASE WHEN excluded.head <> '' THEN excluded.head ELSE m.head END,
			reply = CASE WHEN excluded.reply <> '' THEN excluded.reply ELSE m.reply END,
			answered = CASE WHEN excluded.reply <> '' THEN excluded.answered ELSE m.answered END`,
		clean(c.ID), stored.Millis(c.Received), clean(c.Sender), clean(suppress.Normalise(c.Sender)), clean(head.Account), clean(head.MessageID), clean(head.Subject),
		clean(raw), clean(c.Reply), stored.Millis(c.Answered))
	recipients := slices.Clone(c.Recipients)
	slices.SortStableFunc(recipients, func(a, b history.RecipientChange) int {
		return cmp.Compare(suppress.Normalise(a.Addr), suppress.Normalise(b.Addr))
	})
	for _, r := range recipients {
		if err := writeRecipient(b, c, r); err != nil {
			return err
		}
	}
	return nil
}

func writeRecipient(b *pgx.Batch, c history.Change, r history.RecipientChange) error {
	named, state, ended, steps, err := stored.NewRecipient(r)
	if err != nil {
		return err
	}
	b.Queue(`INSERT INTO smtp2rest.history_recipients AS r (mail, key, received, addr, named, named_key, state, ended, api_id, steps)
		VALUES ($1, $2, (SELECT received FROM smtp2rest.history_mails WHERE id = $1), $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (mail, key) DO UPDATE SET
			named = CASE WHEN excluded.named <> '' THEN excluded.named ELSE r.named END,
			named_key = CASE WHEN excluded.named <> '' THEN excluded.named_key ELSE r.named_key END,
			state = CASE WHEN $10::bool OR $12::bool AND r.state IN ('waiting', 'failed', 'unknown') THEN excluded.state
				WHEN r.state = 'unknown' THEN 'waiting' ELSE r.state END,
			ended = CASE WHEN $10::bool OR $12::bool AND r.state IN ('waiting', 'failed', 'unknown')
				THEN CASE WHEN r.state <> excluded.state THEN excluded.ended ELSE r.ended END
				WHEN r.state = 'unknown' THEN 0 ELSE r.ended END,
			api_id = CASE WHEN excluded.api_id <> '' THEN excluded.api_id ELSE r.api_id END,
			steps = CASE WHEN $10::bool OR length(r.steps) < $11::bigint THEN r.steps || excluded.steps ELSE r.steps END`,
		clean(c.ID), clean(suppress.Normalise(r.Addr)), clean(r.Addr), clean(r.Named), clean(named), string(state), stored.Millis(ended), clean(r.APIID), clean(steps),
		r.State != "", int64(stored.StepsMax), !r.Refused.IsZero())
	return nil
}

// MarkUnknown implements history.Store.
func (s *Records) MarkUnknown(ctx context.Context, id, addr string, at time.Time) error {
	_, err := s.exec(ctx, "UPDATE smtp2rest.history_recipients SET state = 'unknown', ended = $1 WHERE mail = $2 AND key = $3 AND state = 'waiting'",
		stored.Millis(at), clean(id), clean(suppress.Normalise(addr)))
	return err
}

const (
	mailColumns      = "m.id, m.received, m.sender, m.message_id, m.subject, m.head, m.reply, m.answered"
	recipientColumns = "r.addr, r.named, r.state, r.ended, r.api_id, r.steps"
)

// Get implements history.Store.
func (s *Records) Get(ctx context.Context, id string) (m history.Mail, found bool, err error) {
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := eachRow(ctx, c, func(r pgx.Rows) error {
			found = true
			m, _, err = scanMail(r, nil)
			return err
		}, "SELECT "+mailColumns+" FROM smtp2rest.history_mails m WHERE id = $1", clean(id))
		if err != nil || !found {
			return err
		}
		err = eachRow(ctx, c, func(r pgx.Rows) error {
			var one history.Recipient
			err := scanRecipient(r, &one)
			m.Recipients = append(m.Recipients, one)
			return err
		}, "SELECT "+recipientColumns+" FROM smtp2rest.history_recipients r WHERE mail = $1 ORDER BY key", clean(id))
		if err != nil {
			return err
		}
		all := make([]*history.Recipient, len(m.Recipients))
		for i := range all {
			all[i] = &m.Recipients[i]
		}
		return addEvents(ctx, c, all)
	})
	return m, found, err
}

// scanMail reads mailColumns and, if recipient is not nil, recipientColumns and a key.
func scanMail(r pgx.Rows, recipient *history.Recipient) (m history.Mail, key string, err error) {
	var received, answered, ended int64
	var head, state, steps string
	to := []any{&m.ID, &received, &m.Sender, &m.MessageID, &m.Subject, &head, &m.Reply, &answered}
	if recipient != nil {
		to = append(to, &recipient.Addr, &recipient.Named, &state, &ended, &recipient.APIID, &steps, &key)
	}
	if err := r.Scan(to...); err != nil {
		return m, "", err
	}
	m.Received, m.Answered = stored.Time(received), stored.Time(answered)
	if err := stored.ReadHead(&m, head); err != nil {
		return m, "", err
	}
	if recipient != nil {
		recipient.State, recipient.Ended = history.State(state), stored.Time(ended)
	}
	return m, key, nil
}

// scanRecipient reads recipientColumns.
func scanRecipient(r pgx.Rows, to *history.Recipient) error {
	var state, steps string
	var ended int64
	if err := r.Scan(&to.Addr, &to.Named, &state, &ended, &to.APIID, &steps); err != nil {
		return err
	}
	to.State, to.Ended = history.State(state), stored.Time(ended)
	return stored.ReadSteps(to, steps)
}

// addEvents joins what the provider told of recipients to their records. The API gives
// each recipient a message_id of its own.
func addEvents(ctx context.Context, c querier, recipients []*history.Recipient) error {
	of := map[string][]relay.Event{}
	for _, r := range recipients {
		if r.APIID != "" {
			of[r.APIID] = nil
		}
	}
	if len(of) == 0 {
		return nil
	}
	err := eachRow(ctx, c, func(row pgx.Rows) error {
		var e relay.Event
		var created, occurred, received int64
		if err := row.Scan(&e.ID, &e.Type, &created, &occurred, &e.Email, &e.MessageID, &e.BounceCode, &e.BounceReason, &received); err != nil {
			return err
		}
		e.Created, e.Occurred, e.Received = stored.Time(created), stored.Time(occurred), stored.Time(received)
		of[e.MessageID] = append(of[e.MessageID], e)
		return nil
	}, `SELECT e.* FROM unnest($1::text[]) AS i(id), LATERAL (SELECT id, type, created, occurred, email, message_id, bounce_code, bounce_reason, received
		FROM smtp2rest.events WHERE message_id = i.id AND message_id <> '' ORDER BY seq LIMIT $2) e`, slices.Collect(maps.Keys(of)), stored.EventsShown)
	for _, r := range recipients {
		stored.AddEvents(r, of[r.APIID])
	}
	return err
}

// Prune implements history.Store.
func (s *Records) Prune(ctx context.Context, before time.Time, limit int, force bool) (n int, err error) {
	if s.closed.Load() {
		return 0, errRecordsClosed
	}
	settled := " AND NOT EXISTS (SELECT 1 FROM smtp2rest.history_recipients r WHERE r.mail = m.id AND r.state = 'waiting')"
	if force {
		settled = ""
	}
	// Those that another relay is writing, or removing, are left for the next time.
	count, err := s.exec(ctx, `WITH old AS (SELECT id FROM smtp2rest.history_mails m WHERE received < $1`+settled+` ORDER BY received, id LIMIT $2 FOR UPDATE SKIP LOCKED),
		recipients AS (DELETE FROM smtp2rest.history_recipients WHERE mail IN (SELECT id FROM old))
		DELETE FROM smtp2rest.history_mails WHERE id IN (SELECT id FROM old)`, stored.Millis(before), limit)
	return int(count), err
}

// Bytes implements history.Store. It is an estimate of what the rows take, with as much
// again for their indexes: the files of a database do not shrink when rows are removed,
// and what is free in them is used again. Of large tables a part of the pages is read.
func (s *Records) Bytes(ctx context.Context) (total int64, err error) {
	for _, table := range []string{"history_mails", "history_recipients"} {
		var pages int64
		if err := s.rows(ctx, func(r pgx.Rows) error { return r.Scan(&pages) },
			"SELECT pg_relation_size('smtp2rest."+table+"'::regclass) / 8192"); err != nil {
			return 0, err
		}
		percent := min(100, 100*float64(sampledPages)/float64(max(1, pages)))
		var bytes int64
		if err := s.rows(ctx, func(r pgx.Rows) error { return r.Scan(&bytes) },
			fmt.Sprintf("SELECT coalesce(sum(pg_column_size(t.*)), 0)::bigint FROM smtp2rest.%s t TABLESAMPLE SYSTEM (%f)", table, percent)); err != nil {
			return 0, err
		}
		total += 2 * int64(float64(bytes)*100/percent)
	}
	return total, nil
}

// sampledPages is of how many pages the size of a table is told, some 16 MiB.
const sampledPages = 2000

// Find implements history.Store.
func (s *Records) Find(ctx context.Context, q history.Query) (found []history.Mail, cursor string, err error) {
	text, args, err := dialect().Find(mailColumns+", r.addr, r.named, r.state, r.ended, r.api_id, '', r.key", q)
	if err != nil {
		return nil, "", err
	}
	text, args = numbered(text, args)
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		key := ""
		err := eachRow(ctx, c, func(r pgx.Rows) error {
			var one history.Recipient
			m, k, err := scanMail(r, &one)
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), k
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		all := make([]*history.Recipient, len(found))
		for i := range found {
			all[i] = &found[i].Recipients[0]
		}
		if err := addEvents(ctx, c, all); err != nil {
			return err
		}
		for _, r := range all {
			r.Steps = nil
		}
		if n := len(found); n == stored.FindLimit(q) {
			cursor = stored.FindCursor(found[n-1], key)
		}
		return nil
	})
	return found, cursor, err
}
