package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Rows reads the rows of a table after a place, "" for the first, up to a limit, and the
// place to go on from.
func (s *Records) Rows(ctx context.Context, t stored.Table, after []any, limit int) (all []stored.Row, last []any, err error) {
	order := t.Order
	if order == nil {
		order = t.Key
	}
	where := ""
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (?%s)", strings.Join(order, ", "), strings.Repeat(", ?", len(order)-1))
	}
	q := fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT ?", strings.Join(slices.Concat(t.Columns, order), ", "), t.Name, where, strings.Join(order, ", "))
	err = s.readAll(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			one := make(stored.Row, len(t.Columns))
			for i, name := range t.Columns {
				if one[i] = r.Text(i); slices.Contains(t.Numbers, name) {
					one[i] = r.Int(i)
				}
			}
			last = nil
			for i := range order {
				if t.Order != nil {
					last = append(last, r.Int(len(t.Columns)+i))
				} else {
					last = append(last, r.Text(len(t.Columns)+i))
				}
			}
			all = append(all, one)
			return nil
		}, q, append(slices.Clone(after), limit)...)
	})
	return all, last, err
}

// SetRows stores rows as they are. One that is there already is replaced.
func (s *Records) SetRows(ctx context.Context, t stored.Table, all []stored.Row) error {
	q := fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT (%s) DO ", t.Name, strings.Join(t.Columns, ", "), strings.Repeat(", ?", len(t.Columns)-1), strings.Join(t.Key, ", "))
	var set []string
	for _, c := range t.Columns {
		if !slices.Contains(t.Key, c) {
			set = append(set, c+" = excluded."+c)
		}
	}
	if set == nil {
		q += "NOTHING"
	} else {
		q += "UPDATE SET " + strings.Join(set, ", ")
	}
	return s.change(ctx, func(tx *tx) error {
		for _, r := range all {
			tx.exec(q, r...)
		}
		return nil
	})
}
