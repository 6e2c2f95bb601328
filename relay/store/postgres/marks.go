package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Mark implements queue.Queue.
func (q *Queue) Mark(ctx context.Context, name string) (value string, err error) {
	err = q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, "SELECT value FROM smtp2rest.marks WHERE name = $1", name).Scan(&value)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return value, err
}

// Marks implements queue.Queue.
func (q *Queue) Marks(ctx context.Context, prefix string) (map[string]string, error) {
	marks := map[string]string{}
	err := q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT name, value FROM smtp2rest.marks WHERE name >= $1 AND name < $2", prefix, stored.After(prefix))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				return err
			}
			if strings.HasPrefix(name, prefix) {
				marks[name] = value
			}
		}
		return rows.Err()
	})
	return marks, err
}

// SetMark implements queue.Queue.
func (q *Queue) SetMark(ctx context.Context, name, value string) error {
	if err := q.enter(); err != nil {
		return err
	}
	defer q.leave()
	return q.d.again(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		if value == "" {
			_, err = c.Exec(ctx, "DELETE FROM smtp2rest.marks WHERE name = $1", name)
		} else {
			_, err = c.Exec(ctx, "INSERT INTO smtp2rest.marks VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
		}
		return err
	})
}

// AddMark implements queue.Queue. It is not repeated when its answer is lost.
func (q *Queue) AddMark(ctx context.Context, name string, n int64) (sum int64, err error) {
	err = q.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `INSERT INTO smtp2rest.marks AS m VALUES ($1, ($2::bigint)::text)
			ON CONFLICT (name) DO UPDATE SET value = (smtp2rest.number_1(m.value) + $2::bigint)::text RETURNING value::bigint`, name, n).Scan(&sum)
	})
	return sum, err
}
