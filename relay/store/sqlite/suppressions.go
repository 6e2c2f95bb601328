package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

const suppressionsSchema = `
CREATE TABLE suppressions (
	address TEXT PRIMARY KEY, -- in the form in which addresses are compared
	reason TEXT NOT NULL,
	source TEXT NOT NULL,     -- who told us: api, webhook, operator
	since INT NOT NULL,
	expires INT NOT NULL,
	event TEXT NOT NULL,      -- the id of the event that caused it
	detail TEXT NOT NULL,     -- what the provider said of it
	note TEXT NOT NULL        -- the operator's
) WITHOUT ROWID;
CREATE INDEX suppressions_expires ON suppressions(expires) WHERE expires > 0;

-- What an operator took off the list, so that what happened before it does not
-- put it on again.
CREATE TABLE removals (
	address TEXT PRIMARY KEY,
	at INT NOT NULL
) WITHOUT ROWID;
CREATE INDEX removals_at ON removals(at);
`

// Attach implements suppress.Store. It reads in the writer, so that no change
// falls between what was there and what came after.
func (s *Records) Attach(ctx context.Context, w suppress.Watcher) error {
	return s.change(ctx, func(t *tx) error {
		s.watcher = w
		t.each(func(r row) { w.Set(readSuppression(r)) }, "SELECT "+stored.SuppressionColumns+" FROM suppressions")
		return nil
	})
}

// Entry implements suppress.Store.
func (s *Records) Entry(ctx context.Context, address string) (e suppress.Entry, ok bool, err error) {
	err = s.readAll(ctx, func(c *conn) error {
		r, err := c.One(oneSuppression, address)
		if ok = r != nil; ok {
			e = readSuppression(r)
		}
		return err
	})
	return e, ok, err
}

// Entries implements suppress.Store.
func (s *Records) Entries(ctx context.Context, f suppress.Filter) (all []suppress.Entry, err error) {
	q, args := "SELECT "+stored.SuppressionColumns+" FROM suppressions WHERE address > ?", []any{f.After}
	for _, list := range []struct {
		column string
		words  []string
	}{{"reason", stored.Words(f.Reasons)}, {"source", stored.Words(f.Sources)}} {
		if len(list.words) == 0 {
			continue
		}
		q += " AND " + list.column + " IN (?" + strings.Repeat(",?", len(list.words)-1) + ")"
		for _, w := range list.words {
			args = append(args, w)
		}
	}
	if f.Domain != "" { // the end of an address, with no pattern in it
		q += " AND substr(address, -length(?1)) = ?1"
		q = strings.Replace(q, "address > ?", "address > ?2", 1)
		args = append([]any{"@" + f.Domain}, args...)
	}
	q += " ORDER BY address LIMIT ?"
	limit := f.Limit
	if limit <= 0 {
		limit = -1 // SQLite's none
	}
	err = s.readAll(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			all = append(all, readSuppression(r))
			return nil
		}, q, append(args, limit)...)
	})
	return all, err
}

// Put implements suppress.Store.
func (s *Records) Put(ctx context.Context, entries []suppress.Entry) error {
	return s.change(ctx, func(t *tx) error {
		for _, e := range entries {
			t.exec("DELETE FROM removals WHERE address = ?", e.Address)
			s.setSuppression(t, e)
		}
		return nil
	})
}

// Remove implements suppress.Store.
func (s *Records) Remove(ctx context.Context, addresses []string, at time.Time) (removed int, err error) {
	err = s.change(ctx, func(t *tx) error {
		removed = 0
		for _, a := range addresses {
			removed += int(s.unsetSuppression(t, a))
			t.exec("INSERT INTO removals (address, at) VALUES (?, ?) ON CONFLICT (address) DO UPDATE SET at = excluded.at", a, stored.Millis(at))
		}
		return nil
	})
	return removed, err
}

// Erase takes an address off the list as if it had never been there, and says
// whether it was on it. Remove is not enough to forget somebody: it remembers
// whom it removed. It is taken off the list of every account.
func (s *Records) Erase(ctx context.Context, address string) (known bool, err error) {
	key := suppress.Normalise(address)
	err = s.change(ctx, func(t *tx) error {
		keys := []string{key}
		for _, table := range []string{"suppressions", "removals"} {
			t.each(func(r row) {
				keys = append(keys, r.Text(0))
			}, "SELECT address FROM "+table+" WHERE address > '@' AND address < 'A' AND substr(address, instr(address, '/') + 1) = ?", key) // of other accounts: see suppress.Split
		}
		known = false
		for _, key := range keys {
			known = s.unsetSuppression(t, key) > 0 || known
			t.exec("DELETE FROM removals WHERE address = ?", key)
		}
		return nil
	})
	return known, err
}

// TakeEvent implements suppress.Store.
func (s *Records) TakeEvent(ctx context.Context, e relay.Event, address string, learnt *suppress.Entry) (fresh bool, err error) {
	err = s.change(ctx, func(t *tx) error {
		if fresh = t.insertEvent(e, address); fresh && learnt != nil {
			s.learn(t, *learnt, e.Received)
		}
		return nil
	})
	return fresh && err == nil, err
}

// learn merges an entry into what is known. The watcher is told what came of
// it in any case: it may have been ahead of us.
func (s *Records) learn(t *tx, e suppress.Entry, now time.Time) {
	old, known := t.findSuppression(e.Address)
	removed := t.number("SELECT at FROM removals WHERE address = ?", e.Address)
	if merged, changed := suppress.Learn(old, e, stored.Time(removed), now); changed {
		s.setSuppression(t, merged)
		return
	}
	t.after(func() { s.tell(e.Address, old, known) })
}

// Tend implements suppress.Store.
func (s *Records) Tend(ctx context.Context, now, forget time.Time) (more bool, err error) {
	var expired []string
	err = s.read(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			expired = append(expired, r.Text(0))
			return nil
		}, "SELECT address FROM suppressions WHERE expires > 0 AND expires <= ? LIMIT ?", stored.Millis(now), stored.TendStep)
	})
	if err != nil {
		return false, err
	}
	var removals int64
	err = s.change(ctx, func(t *tx) error {
		for _, a := range expired {
			if e, ok := t.findSuppression(a); ok && e.Expired(now) { // it may have been renewed since
				s.unsetSuppression(t, a)
			}
		}
		removals = t.exec("DELETE FROM removals WHERE address IN (SELECT address FROM removals WHERE at < ? LIMIT ?)", stored.Millis(forget), stored.TendStep)
		return nil
	})
	if err != nil {
		return false, err
	}
	events, err := s.forgetEvents(ctx, forget, stored.TendStep)
	return max(int64(len(expired)), removals, events) == stored.TendStep, err
}

const oneSuppression = "SELECT " + stored.SuppressionColumns + " FROM suppressions WHERE address = ?"

func (t *tx) findSuppression(address string) (e suppress.Entry, ok bool) {
	r := t.one(oneSuppression, address)
	if r == nil {
		return e, false
	}
	return readSuppression(r), true
}

func (s *Records) setSuppression(t *tx, e suppress.Entry) {
	t.exec("INSERT OR REPLACE INTO suppressions ("+stored.SuppressionColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		e.Address, e.Reason.String(), e.Source.String(), stored.Millis(e.Since), stored.Millis(e.Expires), e.Event, e.Detail, e.Note)
	t.after(func() { s.tell(e.Address, e, true) })
}

func (s *Records) unsetSuppression(t *tx, address string) int64 {
	t.after(func() { s.tell(address, suppress.Entry{}, false) })
	return t.exec("DELETE FROM suppressions WHERE address = ?", address)
}

// tell keeps the watcher right. The writer alone calls it.
func (s *Records) tell(address string, e suppress.Entry, known bool) {
	switch {
	case s.watcher == nil:
	case known:
		s.watcher.Set(e)
	default:
		s.watcher.Unset(address)
	}
}

func readSuppression(r row) suppress.Entry {
	e := suppress.Entry{Address: r.Text(0), Since: stored.Time(r.Int(3)), Expires: stored.Time(r.Int(4)), Event: r.Text(5), Detail: r.Text(6), Note: r.Text(7)}
	stored.Reasons(&e, r.Text(1), r.Text(2))
	return e
}

const eventsSchema = `
-- What the provider's webhooks told. The address is in the form in which
-- addresses are compared, the email as the provider wrote it.
CREATE TABLE events (
	seq INTEGER PRIMARY KEY, -- the order of arrival
	id TEXT NOT NULL,
	type TEXT NOT NULL,
	created INT NOT NULL,
	occurred INT NOT NULL,
	address TEXT NOT NULL,
	email TEXT NOT NULL,
	message_id TEXT NOT NULL,
	bounce_code TEXT NOT NULL,
	bounce_reason TEXT NOT NULL,
	received INT NOT NULL
);
CREATE UNIQUE INDEX events_id ON events(id);
CREATE INDEX events_message ON events(message_id) WHERE message_id <> '';
CREATE INDEX events_address ON events(address);
`

const eventColumns = "id, type, created, occurred, email, message_id, bounce_code, bounce_reason, received"

// insertEvent adds an event unless its id is known. address is the recipient
// in the form in which addresses are compared.
func (t *tx) insertEvent(e relay.Event, address string) (fresh bool) {
	return t.exec("INSERT INTO events (id, type, created, occurred, address, email, message_id, bounce_code, bounce_reason, received)"+
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
		e.ID, e.Type, stored.Millis(e.Created), stored.Millis(e.Occurred), address, e.Email, e.MessageID, e.BounceCode, e.BounceReason, stored.Millis(e.Received)) > 0
}

// eventsIndex finds what senders are not told of, however much else is told.
const eventsIndex = "CREATE INDEX events_bad ON events(received) WHERE type IN ('bounced.hard', 'complained');"

// BadNews counts the hard bounces and complaints that came since a time.
func (s *Records) BadNews(ctx context.Context, since time.Time) (bounced, complained int64, err error) {
	err = s.read(ctx, func(c *conn) error {
		r, err := c.One("SELECT count(*) FILTER (WHERE type = 'bounced.hard'), count(*) FILTER (WHERE type = 'complained')"+
			" FROM events WHERE type IN ('bounced.hard', 'complained') AND received >= ?", stored.Millis(since))
		if err == nil && r != nil {
			bounced, complained = r.Int(0), r.Int(1)
		}
		return err
	})
	return bounced, complained, err
}

func readEvent(r row) relay.Event {
	return relay.Event{
		ID: r.Text(0), Type: r.Text(1), Created: stored.Time(r.Int(2)), Occurred: stored.Time(r.Int(3)), Email: r.Text(4),
		MessageID: r.Text(5), BounceCode: r.Text(6), BounceReason: r.Text(7), Received: stored.Time(r.Int(8)),
	}
}

// forgetEvents removes events that came before a time, the oldest first and
// at most limit, and says how many those were. An event that comes again after
// it was forgotten is taken as new.
func (s *Records) forgetEvents(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = s.change(ctx, func(t *tx) error {
		// Times are of our own clock, which may have been put back: the order of
		// arrival is what bounds the step, the time what ends it.
		n = t.exec("DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, received FROM events ORDER BY seq LIMIT ?) WHERE received < ?)",
			limit, stored.Millis(before))
		return nil
	})
	return n, err
}
