package sqlite

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Get implements queue.Queue.
func (s *Store) Get(ctx context.Context, id string) (queue.Mail, error) {
	var m queue.Mail
	err := s.read(ctx, func(c *conn) (err error) {
		m, err = readWhole(c, "m.id = ?", id)
		return err
	})
	return m, err
}

// readWhole reads one mail with its recipients and their histories.
func readWhole(c *conn, where string, key any) (queue.Mail, error) {
	v, err := c.One("SELECT "+mailColumns+" FROM mails m WHERE "+where, key)
	if err != nil {
		return queue.Mail{}, err
	}
	if v == nil {
		return queue.Mail{}, queue.ErrNotFound
	}
	m, err := readMail(v)
	if err != nil {
		m.Damaged = true // show what is there
	}
	err = c.Each(func(r row) error {
		m.Recipients = append(m.Recipients, readRecipient(r))
		return nil
	}, "SELECT "+recipientColumns+" FROM recipients r WHERE r.mail = ? ORDER BY r.n", m.seq)
	if err != nil {
		return queue.Mail{}, err
	}
	for i, r := range m.Recipients {
		if m.Recipients[i].History, err = history(c, m.seq, int64(r.Number), queue.MaxHistory); err != nil {
			return queue.Mail{}, err
		}
	}
	return m.Mail, nil
}

// oldest is the number of a mail before which nothing is open, so that Stats
// does not pass over the same finished mail each time. It is taken before what
// is read and replaced after a commit that may have made it wrong, so that
// nobody can put back one that is.
type oldest struct{ seq int64 }

// Stats implements queue.Queue.
func (s *Store) Stats(ctx context.Context) (queue.Stats, error) {
	var stats queue.Stats
	from := s.oldest.Load()
	err := s.read(ctx, func(c *conn) error {
		n, err := loadCounts(c)
		if err != nil {
			return err
		}
		stats = queue.Stats{Recipients: map[queue.State]int64{}, Mails: n.mails, Bytes: n.bytes, FailedMails: n.failed.mails, FailedBytes: n.failed.bytes, Unbounced: n.unbounced}
		for state, count := range n.state {
			stats.Recipients[stateOf(int64(state))] += count
		}
		if n.state[ready]+n.state[claimed]+n.state[held] == 0 {
			return nil
		}
		r, err := c.One(`SELECT r.mail, m.received FROM recipients r CROSS JOIN mails m ON m.seq = r.mail
			WHERE r.mail >= ? AND r.state IN (0, 1, 2, 3) ORDER BY r.mail LIMIT 1`, from.seq)
		if err != nil || r == nil {
			return err
		}
		s.oldest.CompareAndSwap(from, &oldest{r.Int(0)})
		stats.Oldest = fromMillis(r.Int(1))
		return nil
	})
	return stats, err
}
