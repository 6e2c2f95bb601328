package records

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// alone runs f on the writer's connection outside of any transaction, for what
// SQLite does only so. All other writes wait for it.
func (s *Store) alone(ctx context.Context, f func(c *db.Conn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.writer.hand(op{alone: f, done: make(chan error, 1)})
}

// apart separates the writes that share a transaction from those that run
// alone.
func apart(ops []op) (together, alone []op) {
	for _, o := range ops {
		if o.alone != nil {
			alone = append(alone, o)
		} else {
			together = append(together, o)
		}
	}
	return together, alone
}

func (w *writer) repairedThen(f func(c *db.Conn) error) error {
	if err := w.repair(); err != nil {
		return err
	}
	return w.failed(f(w.conn))
}
