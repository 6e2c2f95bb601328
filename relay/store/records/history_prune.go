package records

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// Prune implements history.Store.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int, force bool) (n int, err error) {
	err = s.durable(ctx, func(t *tx) error {
		n = 0
		const settled = " AND NOT EXISTS (SELECT 1 FROM mail_recipients r WHERE r.mail = m.id AND r.state = 'waiting')"
		q := "SELECT id FROM mails m WHERE received < ?" + settled + " ORDER BY received LIMIT ?"
		if force {
			q = "SELECT id FROM mails m WHERE received < ? ORDER BY received LIMIT ?"
		}
		ids, err := t.texts(q, millis(before), limit)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := t.removeMail(id); err != nil {
				return err
			}
		}
		n = len(ids)
		return nil
	})
	return n, err
}

func (t *tx) removeMail(id string) error {
	if _, err := t.Exec("DELETE FROM mail_recipients WHERE mail = ?", id); err != nil {
		return err
	}
	_, err := t.Exec("DELETE FROM mails WHERE id = ?", id)
	return err
}

// texts is the first column of all rows.
func (t *tx) texts(q string, args ...any) (all []string, err error) {
	err = t.Each(func(r db.Row) error {
		all = append(all, r.Text(0))
		return nil
	}, q, args...)
	return all, err
}

// Bytes implements history.Store. The file has the suppressions and events as
// well, which are small beside the history; pages that are free are not counted.
func (s *Store) Bytes(ctx context.Context) (n int64, err error) {
	err = s.read(ctx, func(c *db.Conn) error {
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

var _ history.Store = (*Store)(nil)
