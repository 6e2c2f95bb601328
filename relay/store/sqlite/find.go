package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	text, args, err := findQuery(q, limit)
	if err != nil {
		return nil, "", err
	}
	err = s.read(ctx, func(c *conn) error {
		key := ""
		err := c.Each(func(r row) error {
			m, err := mailOf(r[:8])
			if err != nil {
				return err
			}
			one, err := recipientOf(r[8:14])
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), r.Text(14)
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		for i := range found {
			r := &found[i].Recipients[0]
			if err := addEvents(c, r); err != nil {
				return err
			}
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

// byName are the recipients that a name leads to, whatever it is a name of.
// ?1 is the address, ?2 the name as it was given, ?3 a Message-ID, and from ?4 to
// before ?5 are all addresses with that local part.
const byName = `SELECT mail, key FROM mail_recipients WHERE key = ?1
	UNION SELECT mail, key FROM mail_recipients WHERE key >= ?4 AND key < ?5
	UNION SELECT mail, key FROM mail_recipients WHERE named_key = ?1 AND named_key <> ''
	UNION SELECT mail, key FROM mail_recipients WHERE named_key >= ?4 AND named_key < ?5 AND named_key <> ''
	UNION SELECT mail, key FROM mail_recipients WHERE api_id = ?2 AND api_id <> ''
	UNION SELECT mail, key FROM mail_recipients WHERE mail IN (
		SELECT id FROM mails WHERE sender_key = ?1 OR sender_key >= ?4 AND sender_key < ?5
		UNION SELECT id FROM mails WHERE message_id = ?3 AND message_id <> '')`

// findQuery builds the one statement of a search. Which index leads is chosen
// here and not left to the planner, which cannot know how many rows an address
// has: CROSS JOIN keeps the order.
func findQuery(q history.Query, limit int) (string, []any, error) {
	from, lead := "mails m CROSS JOIN mail_recipients r ON r.mail = m.id", "m"
	var where []string
	var args []any
	switch {
	case q.Name != "":
		key, id := suppress.Normalise(q.Name), strings.Trim(q.Name, "<> ")
		from, lead = "("+byName+") n CROSS JOIN mail_recipients r ON r.mail = n.mail AND r.key = n.key CROSS JOIN mails m ON m.id = r.mail", "r"
		first, end := "", "" // of a local part at any domain: nobody knows which one completed it then
		if !strings.Contains(key, "@") {
			first, end = key+"@", key+"A" // "A" follows "@"
		}
		args = []any{key, q.Name, id, first, end}
	case q.Recipient != "":
		from, lead = "mail_recipients r CROSS JOIN mails m ON m.id = r.mail", "r"
	}
	add := func(cond string, more ...any) {
		where = append(where, cond)
		args = append(args, more...)
	}
	if q.Recipient != "" {
		add("r.key = ?", suppress.Normalise(q.Recipient))
	}
	if q.Sender != "" {
		add("m.sender_key = ?", suppress.Normalise(q.Sender))
	}
	if q.ID != "" {
		add("m.id >= ? AND m.id < ?", q.ID, q.ID+"\x7f")
	}
	switch q.Account {
	case "":
	case relay.DefaultAccount:
		add("json_extract(m.head, '$.account') IS NULL")
	default:
		add("json_extract(m.head, '$.account') = ?", q.Account)
	}
	if q.Subject != "" {
		add("instr(lower(m.subject), lower(?)) > 0", q.Subject)
	}
	if !q.From.IsZero() {
		add(lead+".received >= ?", ceilMillis(q.From))
	}
	if !q.Until.IsZero() {
		add(lead+".received < ?", ceilMillis(q.Until))
	}
	if len(q.States) > 0 {
		cond, err := stateCondition(q.States)
		if err != nil {
			return "", nil, err
		}
		add(cond)
	}
	if q.Cursor != "" {
		at, id, key, err := parseFindCursor(q.Cursor)
		if err != nil {
			return "", nil, err
		}
		mail := map[string]string{"m": "m.id", "r": "r.mail"}[lead]
		add(fmt.Sprintf("(%s.received, %s) <= (?, ?) AND NOT (%s = ? AND r.key <= ?)", lead, mail, mail), at, id, id, key)
	}
	text := `SELECT m.id, m.received, m.sender, m.message_id, m.subject, m.head, m.reply, m.answered,
		r.addr, r.named, r.state, r.ended, r.api_id, '', r.key FROM ` + from
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	order := "m.received DESC, m.id DESC, r.key"
	if lead == "r" {
		order = "r.received DESC, r.mail DESC, r.key"
	}
	return text + " ORDER BY " + order + " LIMIT " + strconv.Itoa(limit), args, nil
}

// ceilMillis keeps "at or after" and "before" exact for times with fractions of
// a millisecond.
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

// stateCondition is on the recipient's own state and, for those that were
// sent, on the strongest of the provider's events.
func stateCondition(states []history.State) (string, error) {
	const has = "EXISTS (SELECT 1 FROM events e WHERE e.message_id = r.api_id AND e.type IN (%s))"
	bounced := fmt.Sprintf(has, quoted(history.TypesOf(history.Bounced)))
	complained := fmt.Sprintf(has, quoted(history.TypesOf(history.Complained)))
	delivered := fmt.Sprintf(has, quoted(history.TypesOf(history.Delivered)))
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

func quoted(words []string) string { return "'" + strings.Join(words, "','") + "'" }
