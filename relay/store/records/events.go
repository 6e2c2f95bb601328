package records

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

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
func (t *tx) insertEvent(e relay.Event, address string) (fresh bool, err error) {
	n, err := t.Exec("INSERT INTO events (id, type, created, occurred, address, email, message_id, bounce_code, bounce_reason, received)"+
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
		e.ID, e.Type, millis(e.Created), millis(e.Occurred), address, e.Email, e.MessageID, e.BounceCode, e.BounceReason, millis(e.Received))
	return n > 0, err
}

// EventsOfMessage are the events about a mail by the API's message_id, in the
// order in which they came, at most limit.
func (s *Store) EventsOfMessage(ctx context.Context, messageID string, limit int) ([]relay.Event, error) {
	return s.events(ctx, "SELECT "+eventColumns+" FROM events WHERE message_id = ? AND message_id <> '' ORDER BY seq LIMIT ?", messageID, limit)
}

// EventsOfAddress are the latest events about a recipient, in the form in
// which addresses are compared, latest first, at most limit.
func (s *Store) EventsOfAddress(ctx context.Context, address string, limit int) ([]relay.Event, error) {
	return s.events(ctx, "SELECT "+eventColumns+" FROM events WHERE address = ? ORDER BY seq DESC LIMIT ?", address, limit)
}

// eventsIndex finds what senders are not told of, however much else is told.
const eventsIndex = "CREATE INDEX events_bad ON events(received) WHERE type IN ('bounced.hard', 'complained');"

// BadNews counts the hard bounces and complaints that came since a time.
func (s *Store) BadNews(ctx context.Context, since time.Time) (bounced, complained int64, err error) {
	err = s.read(ctx, func(c *db.Conn) error {
		r, err := c.One("SELECT count(*) FILTER (WHERE type = 'bounced.hard'), count(*) FILTER (WHERE type = 'complained')"+
			" FROM events WHERE type IN ('bounced.hard', 'complained') AND received >= ?", millis(since))
		if err == nil && r != nil {
			bounced, complained = r.Int(0), r.Int(1)
		}
		return err
	})
	return bounced, complained, err
}

// Event returns one event by its id.
func (s *Store) Event(ctx context.Context, id string) (e relay.Event, ok bool, err error) {
	all, err := s.events(ctx, "SELECT "+eventColumns+" FROM events WHERE id = ?", id)
	if len(all) == 0 {
		return e, false, err
	}
	return all[0], true, err
}

func (s *Store) events(ctx context.Context, q string, args ...any) (all []relay.Event, err error) {
	err = s.read(ctx, func(c *db.Conn) error {
		return c.Each(func(r db.Row) error {
			all = append(all, readEvent(r))
			return nil
		}, q, args...)
	})
	return all, err
}

func readEvent(r db.Row) relay.Event {
	return relay.Event{
		ID: r.Text(0), Type: r.Text(1), Created: fromMillis(r.Int(2)), Occurred: fromMillis(r.Int(3)), Email: r.Text(4),
		MessageID: r.Text(5), BounceCode: r.Text(6), BounceReason: r.Text(7), Received: fromMillis(r.Int(8)),
	}
}

// ForgetEvents removes events that came before a time, the oldest first and
// at most limit, and says how many those were. An event that comes again after
// it was forgotten is taken as new.
func (s *Store) ForgetEvents(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = s.durable(ctx, func(t *tx) error {
		// Times are of our own clock, which may have been put back: the order of
		// arrival is what bounds the step, the time what ends it.
		n, err = t.Exec("DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, received FROM events ORDER BY seq LIMIT ?) WHERE received < ?)",
			limit, millis(before))
		return err
	})
	return n, err
}

// ForgetEventsOf removes all events about a recipient.
func (s *Store) ForgetEventsOf(ctx context.Context, address string) (n int64, err error) {
	err = s.durable(ctx, func(t *tx) error {
		n, err = t.Exec("DELETE FROM events WHERE address = ?", address)
		return err
	})
	return n, err
}

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
	return time.UnixMilli(ms).UTC()
}
