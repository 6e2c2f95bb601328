package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// tableOf is how a table of the records is called here.
func tableOf(t stored.Table) string {
	switch t.Name {
	case "mails":
		return "smtp2rest.history_mails"
	case "mail_recipients":
		return "smtp2rest.history_recipients"
	case "mails_forgotten":
		return "smtp2rest.history_forgotten"
	default:
		return "smtp2rest." + t.Name
	}
}

// places are $1 and so on, n of them, with their types.
func places(t stored.Table, columns []string, from int) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = fmt.Sprintf("$%d::text", from+i)
		if slices.Contains(t.Numbers, c) || slices.Contains(t.Order, c) {
			list[i] = fmt.Sprintf("$%d::bigint", from+i)
		}
	}
	return strings.Join(list, ", ")
}

// Rows reads the rows of a table after a place, nil for the first, up to a limit, and
// the place to go on from.
func (s *Records) Rows(ctx context.Context, t stored.Table, after []any, limit int) (all []stored.Row, last []any, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	order := t.Order
	if order == nil {
		order = t.Key
	}
	where := ""
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (%s)", strings.Join(order, ", "), places(t, order, 1))
	}
	q := fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d", strings.Join(slices.Concat(t.Columns, order), ", "), tableOf(t), where, strings.Join(order, ", "), limit)
	err = s.rows(ctx, func(r pgx.Rows) error {
		values, err := r.Values()
		all, last = append(all, values[:len(t.Columns)]), values[len(t.Columns):]
		return err
	}, q, after...)
	return all, last, err
}

// SetRows stores rows as they are. One that is there already is replaced.
func (s *Records) SetRows(ctx context.Context, t stored.Table, all []stored.Row) error {
	columns, values := strings.Join(t.Columns, ", "), places(t, t.Columns, 1)
	var more string // what is stored here besides
	switch t.Name {
	case "suppressions":
		more = ", nextval('smtp2rest.suppression_seq')"
		columns += ", seq"
	case "mails":
		more = fmt.Sprintf(", $%d::text", len(t.Columns)+1)
		columns += ", account"
	}
	var set []string
	for _, c := range t.Columns {
		if !slices.Contains(t.Key, c) {
			set = append(set, c+" = excluded."+c)
		}
	}
	do := "NOTHING"
	if set != nil {
		do = "UPDATE SET " + strings.Join(set, ", ")
	}
	q := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s%s) ON CONFLICT (%s) DO %s", tableOf(t), columns, values, more, strings.Join(t.Key, ", "), do)
	var b pgx.Batch
	for _, r := range all {
		args := make([]any, len(r))
		for i, v := range r {
			if args[i] = v; !slices.Contains(t.Numbers, t.Columns[i]) {
				args[i] = clean(v.(string))
			}
		}
		if t.Name == "mails" {
			args = append(args, accountOf(args[slices.Index(t.Columns, "head")].(string)))
		}
		b.Queue(q, args...)
	}
	return s.changeList(ctx, func(ctx context.Context, tx *listTx) error { return tx.SendBatch(ctx, &b).Close() })
}

// accountOf is the account in the stored head of a mail.
func accountOf(head string) string {
	var h history.Head
	_ = json.Unmarshal([]byte(head), &h) // "" where there is none, or it cannot be read
	return h.Account
}

// Relay is one relay of a database.
type Relay struct {
	Name, Version      string
	Started, Heartbeat time.Time
	Alive              bool // its lease has not ended
}

// Relays are all relays that are known of, by the database's clock.
func (d *DB) Relays(ctx context.Context) (all []Relay, err error) {
	err = d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return eachRow(ctx, c, func(r pgx.Rows) error {
			var one Relay
			err := r.Scan(&one.Name, &one.Version, &one.Started, &one.Heartbeat, &one.Alive)
			all = append(all, one)
			return err
		}, "SELECT name, version, started, heartbeat, expires > clock_timestamp() FROM smtp2rest.relays ORDER BY started, id")
	})
	return all, err
}
