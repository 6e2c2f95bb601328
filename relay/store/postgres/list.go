package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

const (
	defaultList = 100
	maxList     = 1000
	// scanAtOnce is how many recipients one page looks at, at most.
	scanAtOnce = 20000
)

// cursor is the key of the recipient a page ended with.
type cursor struct {
	mail int64
	n    int32
}

func (c cursor) String() string { return fmt.Sprintf("%d.%d", c.mail, c.n) }

func parseCursor(s string) (cursor, error) {
	if s == "" {
		return cursor{mail: -1}, nil
	}
	var c cursor
	if _, err := fmt.Sscanf(s, "%d.%d", &c.mail, &c.n); err != nil {
		return c, fmt.Errorf("%q is not a cursor", s)
	}
	return c, nil
}

// List implements queue.Queue.
func (q *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Entry, string, error) {
	at, err := parseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	limit := min(cmp.Or(max(f.Limit, 0), defaultList), maxList)
	var entries []queue.Entry
	next := ""
	err = q.read(ctx, func(ctx context.Context, t pgx.Tx) error {
		entries = nil
		columns := mailFields + ", " + recipientFields + ", " + attemptFields
		end, more, err := scan(ctx, q, t, f, at, limit, columns, func(rows pgx.Rows, c *cursor) error {
			var m mailRow
			var r recipientRow
			var a attemptRow
			if err := rows.Scan(slices.Concat([]any{&c.mail, &c.n}, m.targets(), r.targets(), a.targets())...); err != nil {
				return err
			}
			e := queue.Entry{Mail: m.mail(q), Recipient: r.recipient(q)}
			if a.started != nil {
				e.Recipient.History = []queue.Attempt{a.attempt(q)}
			}
			entries = append(entries, e)
			return nil
		})
		if more {
			next = end.String()
		}
		return err
	})
	return entries, next, err
}

// query is the WHERE clause that a filter comes to. A ? of a condition is an argument.
type query struct {
	where []string
	args  []any
}

func (w *query) and(condition string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(w.args)), 1)
	}
	w.where = append(w.where, condition)
}

// scan calls f for the recipients that match, in order, from after a cursor on, at
// most limit of them and looking at no more than scanAtOnce. It says where it ended and
// whether that was before the end. f reads the cursor before its own columns.
func scan(ctx context.Context, q *Queue, t pgx.Tx, filter queue.Filter, at cursor, limit int, columns string, f func(pgx.Rows, *cursor) error) (cursor, bool, error) {
	var w query
	source := "true" // few are held or failed, while many may wait
	if len(filter.States) == 1 && filter.States[0] == queue.Held {
		source = "r.state = 3"
	} else if len(filter.States) == 1 && filter.States[0] == queue.Failed {
		source = "r.state = 5"
	}
	w.and(source)
	w.and("(r.mail, r.n) > (?, ?)", at.mail, at.n)
	few, err := fewMails(ctx, t, filter.ID)
	if err != nil {
		return at, false, err
	}
	last, bounded := at, false
	if few {
		w.and("r.mail IN (SELECT seq FROM smtp2rest.mails WHERE id >= ? AND id < ?)", clean(filter.ID), after(filter.ID))
	} else if last, bounded, err = stepEnd(ctx, t, source, at); err != nil {
		return at, false, err
	} else if bounded {
		w.and("(r.mail, r.n) <= (?, ?)", last.mail, last.n)
	}
	w.filter(q, filter)
	w.args = append(w.args, limit)
	rows, err := t.Query(ctx, "SELECT r.mail, r.n, "+columns+` FROM smtp2rest.recipients r JOIN smtp2rest.mails m ON m.seq = r.mail
		LEFT JOIN LATERAL (SELECT * FROM smtp2rest.attempts b WHERE b.mail = r.mail AND b.n = r.n ORDER BY b.fence DESC LIMIT 1) a ON true
		WHERE `+strings.Join(w.where, " AND ")+" ORDER BY r.mail, r.n LIMIT $"+strconv.Itoa(len(w.args)), w.args...)
	if err != nil {
		return at, false, err
	}
	defer rows.Close()
	seen, end := 0, at
	for rows.Next() {
		seen++
		if err := f(rows, &end); err != nil {
			return end, false, err
		}
	}
	if err := rows.Err(); err != nil || seen == limit {
		return end, err == nil, err
	}
	return last, bounded, nil
}

// stepEnd is the last recipient of a step, if the step does not reach the end.
func stepEnd(ctx context.Context, t pgx.Tx, source string, at cursor) (cursor, bool, error) {
	end := at
	err := t.QueryRow(ctx, "SELECT r.mail, r.n FROM smtp2rest.recipients r WHERE "+source+
		" AND (r.mail, r.n) > ($1, $2) ORDER BY r.mail, r.n OFFSET $3 LIMIT 1", at.mail, at.n, scanAtOnce-1).Scan(&end.mail, &end.n)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, false, nil
	}
	return end, err == nil, err
}

// fewMails: the beginning of an id leads to so few mails that going there is better
// than looking at all in order.
func fewMails(ctx context.Context, t pgx.Tx, prefix string) (bool, error) {
	if prefix == "" {
		return false, nil
	}
	n := 0
	err := t.QueryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM smtp2rest.mails WHERE id >= $1 AND id < $2 LIMIT $3) x",
		clean(prefix), after(prefix), maxList+1).Scan(&n)
	return n <= maxList, err
}

// after is a string greater than all that begin with prefix.
func after(prefix string) string { return clean(prefix) + "\U0010FFFF" }

// filter adds what a filter asks for.
func (w *query) filter(q *Queue, f queue.Filter) {
	if f.ID != "" {
		w.and("m.id >= ? AND m.id < ?", clean(f.ID), after(f.ID))
	}
	if len(f.States) > 0 {
		var in []string
		for stored := ready; stored <= failed; stored++ {
			if slices.Contains(f.States, stateOf(stored)) {
				in = append(in, strconv.Itoa(stored))
			}
		}
		w.and("r.state IN (" + strings.Join(in, ", ") + ")")
	}
	if f.Sender != "" {
		w.and(`lower(m.sender COLLATE "C") = lower(? COLLATE "C")`, clean(f.Sender))
	}
	if f.Recipient != "" {
		w.and(`lower(r.addr COLLATE "C") = lower(? COLLATE "C")`, clean(f.Recipient))
	}
	switch f.Account {
	case "":
	case relay.DefaultAccount:
		w.and("m.account = ''")
	default:
		w.and("m.account = ?", clean(f.Account))
	}
	if !f.From.IsZero() {
		w.and("m.received >= ?", q.in(f.From))
	}
	if !f.Until.IsZero() {
		w.and("m.received < ?", q.in(f.Until))
	}
}
