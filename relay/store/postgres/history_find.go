package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Find implements history.Store.
func (s *Records) Find(ctx context.Context, q history.Query) (found []history.Mail, cursor string, err error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	f := &finder{}
	text, err := f.query(q, limit)
	if err != nil {
		return nil, "", err
	}
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		key := ""
		err := eachRow(ctx, c, func(r pgx.Rows) error {
			var one history.Recipient
			m, k, err := scanMail(r, &one)
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), k
			return err
		}, text, f.args...)
		if err != nil {
			return err
		}
		all := make([]*history.Recipient, len(found))
		for i := range found {
			all[i] = &found[i].Recipients[0]
		}
		if err := addEvents(ctx, c, all); err != nil {
			return err
		}
		for _, r := range all {
			r.Steps = nil
		}
		if n := len(found); n == limit {
			last := found[n-1]
			cursor = fmt.Sprintf("%d %s %s", millis(last.Received), last.ID, key)
		}
		return nil
	})
	return found, cursor, err
}

// finder builds the statement of a search with its arguments.
type finder struct {
	args  []any
	where []string
}

// arg adds an argument and returns its place.
func (f *finder) arg(v any) string {
	if s, ok := v.(string); ok {
		v = clean(s)
	}
	f.args = append(f.args, v)
	place := "$" + strconv.Itoa(len(f.args))
	if _, ok := v.(int64); ok {
		return place + "::bigint"
	}
	return place + "::text"
}

func (f *finder) add(format string, args ...any) {
	places := make([]any, len(args))
	for i, a := range args {
		places[i] = f.arg(a)
	}
	f.where = append(f.where, fmt.Sprintf(format, places...))
}

// byName are the recipients that a name leads to, whatever it is a name of: the address,
// the name as it was given, a Message-ID, and all addresses with a local part.
func (f *finder) byName(name string) string {
	key, first, end := suppress.Normalise(name), "", ""
	if !strings.Contains(key, "@") { // nobody knows which domain completed it then
		first, end = key+"@", key+"A" // "A" follows "@"
	}
	return strings.NewReplacer("ADDRESS", f.arg(key), "NAME", f.arg(name), "MESSAGE", f.arg(strings.Trim(name, "<> ")), "FIRST", f.arg(first), "END", f.arg(end)).Replace(
		`SELECT mail, key FROM smtp2rest.history_recipients WHERE key = ADDRESS
		UNION SELECT mail, key FROM smtp2rest.history_recipients WHERE key >= FIRST AND key < END
		UNION SELECT mail, key FROM smtp2rest.history_recipients WHERE named_key = ADDRESS AND named_key <> ''
		UNION SELECT mail, key FROM smtp2rest.history_recipients WHERE named_key >= FIRST AND named_key < END AND named_key <> ''
		UNION SELECT mail, key FROM smtp2rest.history_recipients WHERE api_id = NAME AND api_id <> ''
		UNION SELECT mail, key FROM smtp2rest.history_recipients WHERE mail IN (
			SELECT id FROM smtp2rest.history_mails WHERE sender_key = ADDRESS OR sender_key >= FIRST AND sender_key < END
			UNION SELECT id FROM smtp2rest.history_mails WHERE message_id = MESSAGE AND message_id <> '')`)
}

func (f *finder) query(q history.Query, limit int) (string, error) {
	from, lead, mail := "smtp2rest.history_mails m JOIN smtp2rest.history_recipients r ON r.mail = m.id", "m", "m.id"
	if q.Recipient != "" || q.Name != "" {
		lead, mail = "r", "r.mail"
	}
	if q.Name != "" {
		from += " JOIN (" + f.byName(q.Name) + ") n ON r.mail = n.mail AND r.key = n.key"
	}
	if q.Recipient != "" {
		f.add("r.key = %s", suppress.Normalise(q.Recipient))
	}
	if q.Sender != "" {
		f.add("m.sender_key = %s", suppress.Normalise(q.Sender))
	}
	if q.ID != "" {
		f.add("m.id >= %s AND m.id < %s", q.ID, q.ID+"\x7f")
	}
	switch q.Account {
	case "":
	case relay.DefaultAccount:
		f.add("m.account = ''")
	default:
		f.add("m.account = %s", q.Account)
	}
	if q.Subject != "" {
		f.add(`strpos(lower(m.subject COLLATE "C"), lower(%s COLLATE "C")) > 0`, q.Subject)
	}
	if !q.From.IsZero() {
		f.add(lead+".received >= %s", ceilMillis(q.From))
	}
	if !q.Until.IsZero() {
		f.add(lead+".received < %s", ceilMillis(q.Until))
	}
	if len(q.States) > 0 {
		cond, err := stateCondition(q.States)
		if err != nil {
			return "", err
		}
		f.where = append(f.where, cond)
	}
	if q.Cursor != "" {
		at, id, key, err := parseFindCursor(q.Cursor)
		if err != nil {
			return "", err
		}
		f.add("("+lead+".received, "+mail+") <= (%s, %s) AND NOT ("+mail+" = %s AND r.key <= %s)", at, id, id, key)
	}
	text := "SELECT " + mailColumns + ", r.addr, r.named, r.state, r.ended, r.api_id, '', r.key FROM " + from
	if len(f.where) > 0 {
		text += " WHERE " + strings.Join(f.where, " AND ")
	}
	return fmt.Sprintf("%s ORDER BY %s.received DESC, %s DESC, r.key LIMIT %d", text, lead, mail, limit), nil
}

// ceilMillis keeps "at or after" and "before" exact for times with fractions of a
// millisecond.
func ceilMillis(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

func parseFindCursor(s string) (at int64, id, key string, err error) {
	parts := strings.SplitN(s, " ", 3)
	if len(parts) == 3 {
		at, err = strconv.ParseInt(parts[0], 10, 64)
	}
	if len(parts) != 3 || err != nil {
		return 0, "", "", errors.New("that is no cursor")
	}
	return at, parts[1], parts[2], nil
}

// stateCondition is on the recipient's own state and, for those that were sent, on the
// strongest of the provider's events.
func stateCondition(states []history.State) (string, error) {
	const has = "EXISTS (SELECT 1 FROM smtp2rest.events e WHERE e.message_id = r.api_id AND e.message_id <> '' AND e.type IN ('%s'))"
	told := func(s history.State) string { return fmt.Sprintf(has, strings.Join(history.TypesOf(s), "','")) }
	bounced, complained, delivered := told(history.Bounced), told(history.Complained), told(history.Delivered)
	var any []string
	for _, s := range states {
		if !slices.Contains(history.States(), s) {
			return "", fmt.Errorf("there is no state %q", s)
		}
		switch s {
		case history.Bounced:
			any = append(any, "r.state = 'sent' AND "+bounced)
		case history.Complained:
			any = append(any, "r.state = 'sent' AND "+complained+" AND NOT "+bounced)
		case history.Delivered:
			any = append(any, "r.state = 'sent' AND "+delivered+" AND NOT "+bounced+" AND NOT "+complained)
		case history.Sent:
			any = append(any, "r.state = 'sent' AND NOT "+bounced+" AND NOT "+complained+" AND NOT "+delivered)
		default:
			any = append(any, "r.state = '"+string(s)+"'")
		}
	}
	return "((" + strings.Join(any, ") OR (") + "))", nil
}
