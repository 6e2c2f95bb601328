package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// dialect is PostgreSQL's.
func dialect() stored.Dialect {
	return stored.Dialect{Mails: "smtp2rest.history_mails", Recipients: "smtp2rest.history_recipients", Events: "smtp2rest.events", Join: "JOIN",
		Same: `lower(%s COLLATE "C") = lower(? COLLATE "C")`, Contains: `strpos(lower(%s COLLATE "C"), lower(? COLLATE "C")) > 0`, Account: "m.account"}
}

// numbered is a statement whose arguments are ? as PostgreSQL takes it, with the arguments
// as it takes them.
func numbered(sql string, args []any) (string, []any) {
	var b strings.Builder
	for i, piece := range strings.Split(sql, "?") {
		if i > 0 {
			fmt.Fprintf(&b, "$%d", i)
		}
		b.WriteString(piece)
	}
	own := slices.Clone(args)
	for i, a := range own {
		if text, ok := a.(string); ok {
			own[i] = clean(text)
		}
	}
	return b.String(), own
}

// List implements queue.Queue.
func (q *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Entry, string, error) {
	at, err := stored.ParseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	limit := stored.PageSize(f.Limit)
	var entries []queue.Entry
	next := ""
	err = q.read(ctx, func(ctx context.Context, t pgx.Tx) error {
		entries = nil
		columns := mailFields + ", " + recipientFields + ", " + attemptFields
		end, more, err := scan(ctx, q, t, f, at, limit, columns, func(rows pgx.Rows, c *stored.Cursor) error {
			var m mailRow
			var r recipientRow
			var a attemptRow
			if err := rows.Scan(slices.Concat([]any{&c.Mail, &c.N}, m.targets(), r.targets(), a.targets())...); err != nil {
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

// scan calls f for the recipients that match, in order, from after a cursor on, at
// most limit of them and looking at no more than stored.ScanAtOnce. It says where it ended and
// whether that was before the end. f reads the cursor before its own columns.
func scan(ctx context.Context, q *Queue, t pgx.Tx, filter queue.Filter, at stored.Cursor, limit int, columns string, f func(pgx.Rows, *stored.Cursor) error) (stored.Cursor, bool, error) {
	var w stored.Where
	source := "true"
	if state, few := stored.FewStates(filter); few {
		source = fmt.Sprintf("r.state = %d", state)
	}
	w.And(source)
	w.And("(r.mail, r.n) > (?, ?)", at.Mail, at.N)
	few, err := fewMails(ctx, t, filter.ID)
	if err != nil {
		return at, false, err
	}
	last, bounded := at, false
	if few {
		w.And("r.mail IN (SELECT seq FROM smtp2rest.mails WHERE id >= ? AND id < ?)", filter.ID, stored.After(filter.ID))
	} else if last, bounded, err = stepEnd(ctx, t, source, at); err != nil {
		return at, false, err
	} else if bounded {
		w.And("(r.mail, r.n) <= (?, ?)", last.Mail, last.N)
	}
	dialect().Filter(&w, filter, q.in)
	sql, args := numbered("SELECT r.mail, r.n, "+columns+` FROM smtp2rest.recipients r JOIN smtp2rest.mails m ON m.seq = r.mail
		LEFT JOIN LATERAL (SELECT * FROM smtp2rest.attempts b WHERE b.mail = r.mail AND b.n = r.n ORDER BY b.fence DESC LIMIT 1) a ON true`+
		w.String()+" ORDER BY r.mail, r.n LIMIT ?", append(w.Args, limit))
	rows, err := t.Query(ctx, sql, args...)
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
func stepEnd(ctx context.Context, t pgx.Tx, source string, at stored.Cursor) (stored.Cursor, bool, error) {
	end := at
	err := t.QueryRow(ctx, "SELECT r.mail, r.n FROM smtp2rest.recipients r WHERE "+source+
		" AND (r.mail, r.n) > ($1, $2) ORDER BY r.mail, r.n OFFSET $3 LIMIT 1", at.Mail, at.N, stored.ScanAtOnce-1).Scan(&end.Mail, &end.N)
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
		clean(prefix), stored.After(clean(prefix)), stored.MaxList+1).Scan(&n)
	return n <= stored.MaxList, err
}
