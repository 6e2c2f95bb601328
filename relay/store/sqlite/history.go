package sqlite

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// historySchema is one row for each mail, one for each of its recipients with
// all that happened to it, and the mails of which nothing more is recorded.
// Addresses stand beside the form in which they are compared, the key.
const historySchema = `
CREATE TABLE mails (
	id         TEXT PRIMARY KEY,
	received   INTEGER NOT NULL,            -- ms, as all times here
	sender     TEXT NOT NULL,
	sender_key TEXT NOT NULL,
	message_id TEXT NOT NULL DEFAULT '',    -- of the mail's header
	subject    TEXT NOT NULL DEFAULT '',
	head       TEXT NOT NULL DEFAULT '',    -- the rest of what is known, as JSON
	reply      TEXT NOT NULL DEFAULT '',
	answered   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX mails_received ON mails (received);
CREATE INDEX mails_sender ON mails (sender_key, received);
CREATE INDEX mails_message_id ON mails (message_id) WHERE message_id <> '';
CREATE TABLE mail_recipients (
	mail      TEXT NOT NULL,                -- mails.id
	key       TEXT NOT NULL,
	received  INTEGER NOT NULL,             -- mails.received
	addr      TEXT NOT NULL,
	named     TEXT NOT NULL DEFAULT '',     -- the alias that the client named
	named_key TEXT NOT NULL DEFAULT '',
	state     TEXT NOT NULL,
	ended     INTEGER NOT NULL DEFAULT 0,
	api_id    TEXT NOT NULL DEFAULT '',     -- the API's message_id
	steps     TEXT NOT NULL DEFAULT '',     -- JSON, one on each line
	PRIMARY KEY (mail, key)
) WITHOUT ROWID;
CREATE INDEX mail_recipients_key ON mail_recipients (key, received);
CREATE INDEX mail_recipients_named ON mail_recipients (named_key) WHERE named_key <> '';
CREATE INDEX mail_recipients_api_id ON mail_recipients (api_id) WHERE api_id <> '';
CREATE TABLE mails_forgotten (id TEXT PRIMARY KEY) WITHOUT ROWID;
`

// Write implements history.Store. The recorder waits for it, and nobody else.
func (s *Records) Write(ctx context.Context, changes []history.Change) error {
	if err := s.room(); err != nil {
		return err
	}
	return s.change(ctx, func(t *tx) error {
		for _, c := range changes {
			if err := t.writeMail(c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) writeMail(c history.Change) error {
	of := ""
	if c.Head != nil {
		of = c.Head.BounceOf
	}
	if t.number("SELECT count(*) FROM mails_forgotten WHERE id IN (?, ?)", c.ID, of) > 0 {
		// What becomes of such a mail is not recorded, nor is the bounce of one.
		t.exec("INSERT OR IGNORE INTO mails_forgotten VALUES (?)", c.ID)
		return nil
	}
	if err := t.writeHead(c); err != nil {
		return err
	}
	for _, r := range c.Recipients {
		if err := t.writeRecipient(c, r); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) writeHead(c history.Change) error {
	head, raw, err := stored.Head(c.Head)
	if err != nil {
		return err
	}
	t.exec(`INSERT INTO mails (id, received, sender, sender_key, message_id, subject, head, reply, answered) VALUES (?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET
			sender = iif(excluded.sender <> '', excluded.sender, sender),
			sender_key = iif(excluded.sender <> '', excluded.sender_key, sender_key),
			message_id = iif(excluded.head <> '', excluded.message_id, message_id),
			subject = iif(excluded.head <> '', excluded.subject, subject),
			head = iif(excluded.head <> '', excluded.head, head),
			reply = iif(excluded.reply <> '', excluded.reply, reply),
			answered = iif(excluded.reply <> '', excluded.answered, answered)`,
		c.ID, stored.Millis(c.Received), c.Sender, suppress.Normalise(c.Sender), head.MessageID, head.Subject, raw, c.Reply, stored.Millis(c.Answered))
	return nil
}

func (t *tx) writeRecipient(c history.Change, r history.RecipientChange) error {
	named, state, ended, steps, err := stored.NewRecipient(r)
	if err != nil {
		return err
	}
	t.exec(`INSERT INTO mail_recipients (mail, key, received, addr, named, named_key, state, ended, api_id, steps)
		VALUES (?1, ?2, (SELECT received FROM mails WHERE id = ?1), ?3, ?4, ?5, ?6, ?7, ?8, ?9)
		ON CONFLICT (mail, key) DO UPDATE SET
			named = iif(?4 <> '', ?4, named),
			named_key = iif(?4 <> '', ?5, named_key),
			state = iif(?10 OR ?12 AND state IN ('waiting', 'failed', 'unknown'), ?6, iif(state = 'unknown', 'waiting', state)),
			ended = iif(?10 OR ?12 AND state IN ('waiting', 'failed', 'unknown'), iif(state <> ?6, ?7, ended), iif(state = 'unknown', 0, ended)),
			api_id = iif(?8 <> '', ?8, api_id),
			steps = iif(?10 OR length(steps) < ?11, steps || ?9, steps)`,
		c.ID, suppress.Normalise(r.Addr), r.Addr, r.Named, named, string(state), stored.Millis(ended), r.APIID, steps,
		r.State != "", stored.StepsMax, !r.Refused.IsZero())
	return nil
}

// MarkUnknown implements history.Store.
func (s *Records) MarkUnknown(ctx context.Context, id, addr string, at time.Time) error {
	return s.change(ctx, func(t *tx) error {
		t.exec("UPDATE mail_recipients SET state = 'unknown', ended = ? WHERE mail = ? AND key = ? AND state = 'waiting'",
			stored.Millis(at), id, suppress.Normalise(addr))
		return nil
	})
}

// Get implements history.Store.
func (s *Records) Get(ctx context.Context, id string) (m history.Mail, found bool, err error) {
	err = s.read(ctx, func(c *conn) error {
		r, err := c.One("SELECT "+mailFields+" FROM mails m WHERE id = ?", id)
		if err != nil || r == nil {
			return err
		}
		if m, err = mailOf(r); err != nil {
			return err
		}
		found = true
		err = c.Each(func(r row) error {
			one, err := recipientOf(r)
			if err == nil {
				m.Recipients = append(m.Recipients, one)
			}
			return err
		}, "SELECT addr, named, state, ended, api_id, steps FROM mail_recipients WHERE mail = ? ORDER BY key", id)
		if err != nil {
			return err
		}
		for i := range m.Recipients {
			if err := addEvents(c, &m.Recipients[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return m, found, err
}

// mailFields are what mailOf reads, from a table called m.
const mailFields = "m.id, m.received, m.sender, m.message_id, m.subject, m.head, m.reply, m.answered"

func mailOf(r row) (history.Mail, error) {
	m := history.Mail{ID: r.Text(0), Received: stored.Time(r.Int(1)), Sender: r.Text(2), Reply: r.Text(6), Answered: stored.Time(r.Int(7))}
	m.MessageID, m.Subject = r.Text(3), r.Text(4)
	return m, stored.ReadHead(&m, r.Text(5))
}

// recipientOf reads addr, named, state, ended, api_id and steps.
func recipientOf(r row) (history.Recipient, error) {
	out := history.Recipient{
		Addr: r.Text(0), Named: r.Text(1), State: history.State(r.Text(2)), Ended: stored.Time(r.Int(3)), APIID: r.Text(4),
	}
	return out, stored.ReadSteps(&out, r.Text(5))
}

// addEvents joins what the provider told of a recipient to its record. The API
// gives each recipient a message_id of its own.
func addEvents(c *conn, r *history.Recipient) error {
	if r.APIID == "" {
		return nil
	}
	var events []relay.Event
	err := c.Each(func(row row) error {
		events = append(events, readEvent(row))
		return nil
	}, "SELECT "+eventColumns+" FROM events WHERE message_id = ? AND message_id <> '' ORDER BY seq LIMIT ?", r.APIID, stored.EventsShown)
	stored.AddEvents(r, events)
	return err
}

// Prune implements history.Store.
func (s *Records) Prune(ctx context.Context, before time.Time, limit int, force bool) (n int, err error) {
	err = s.change(ctx, func(t *tx) error {
		n = 0
		const settled = " AND NOT EXISTS (SELECT 1 FROM mail_recipients r WHERE r.mail = m.id AND r.state = 'waiting')"
		q := "SELECT id FROM mails m WHERE received < ?" + settled + " ORDER BY received LIMIT ?"
		if force {
			q = "SELECT id FROM mails m WHERE received < ? ORDER BY received LIMIT ?"
		}
		ids := t.texts(q, stored.Millis(before), limit)
		for _, id := range ids {
			t.removeMail(id)
		}
		n = len(ids)
		return nil
	})
	return n, err
}

func (t *tx) removeMail(id string) {
	t.exec("DELETE FROM mail_recipients WHERE mail = ?", id)
	t.exec("DELETE FROM mails WHERE id = ?", id)
}

// texts is the first column of all rows.
func (t *tx) texts(q string, args ...any) (all []string) {
	t.each(func(r row) { all = append(all, r.Text(0)) }, q, args...)
	return all
}

// Bytes implements history.Store. The file has the suppressions and events as
// well, which are small beside the history; pages that are free are not counted.
func (s *Records) Bytes(ctx context.Context) (n int64, err error) {
	err = s.read(ctx, func(c *conn) error {
		pages, err := c.Number("PRAGMA page_count")
		if err != nil {
			return err
		}
		free, err := c.Number("PRAGMA freelist_count")
		if err != nil {
			return err
		}
		size, err := c.Number("PRAGMA page_size")
		n = (pages - free) * size
		return err
	})
	return n, err
}

// Find implements history.Store.
func (s *Records) Find(ctx context.Context, q history.Query) (found []history.Mail, cursor string, err error) {
	text, args, err := dialect().Find(mailFields+", r.addr, r.named, r.state, r.ended, r.api_id, '', r.key", q)
	if err != nil {
		return nil, "", err
	}
	err = s.read(ctx, func(c *conn) error {
		key := ""
		err := c.Each(func(r row) error {
			m, err := mailOf(r[:8])
			if err != nil {
				return err
			}
			one, err := recipientOf(r[8:14])
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), r.Text(14)
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		for i := range found {
			r := &found[i].Recipients[0]
			if err := addEvents(c, r); err != nil {
				return err
			}
			r.Steps = nil
		}
		if n := len(found); n == stored.FindLimit(q) {
			cursor = stored.FindCursor(found[n-1], key)
		}
		return nil
	})
	return found, cursor, err
}
