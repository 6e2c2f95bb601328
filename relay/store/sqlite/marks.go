package sqlite

import (
	"context"
	"strconv"
	"strings"
)

// Mark implements queue.Queue.
func (s *Store) Mark(ctx context.Context, name string) (string, error) {
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
func (s *Store) Marks(ctx context.Context, prefix string) (map[string]string, error) {
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
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	return s.change(ctx, func(t *tx) error {
		if value == "" {
			_, err := t.change("DELETE FROM marks WHERE name = ?", name)
			return err
		}
		_, err := t.change("INSERT OR REPLACE INTO marks VALUES (?, ?)", name, value)
		return err
	})
}

// AddMark implements queue.Queue.
func (s *Store) AddMark(ctx context.Context, name string, n int64) (int64, error) {
	sum := int64(0)
	err := s.change(ctx, func(t *tx) (err error) {
		sum, err = t.addMark(name, n)
		return err
	})
	return sum, err
}

// addMark adds to a mark and returns the sum.
func (t *tx) addMark(name string, n int64) (int64, error) {
	r, err := t.One("SELECT value FROM marks WHERE name = ?", name)
	if err != nil {
		return 0, err
	}
	if r != nil {
		old, _ := strconv.ParseInt(r.Text(0), 10, 64) // anything else counts as 0, as the contract says
		n += old
	}
	_, err = t.change("INSERT OR REPLACE INTO marks VALUES (?, ?)", name, strconv.FormatInt(n, 10))
	return n, err
}
