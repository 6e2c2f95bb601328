package stored

import (
	"cmp"
	"encoding/json"
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

// Dialect is what conditions need to know of an engine.
type Dialect struct {
	Mails, Recipients, Events string // the tables of the records
	Join                      string // "JOIN", or what keeps the order of tables
	// Same compares a column with an argument, and Contains looks for an argument in one,
	// both without regard to case in ASCII. Account is that of a record m.
	Same, Contains, Account string
}

const (
	// StepsMax bounds what one recipient's attempts take. Beyond it only what ends a
	// recipient is still recorded.
	StepsMax = 64 << 10
	// EventsShown bounds how many events of one recipient are shown: somebody may
	// open a mail very often.
	EventsShown = 200
	// TendStep is how many rows one call of Tend looks at, of each kind.
	TendStep = 500
	// Lateness is the longest an entry of LearnSoon is left in memory, and SoonMax is how
	// many of them wait at most.
	Lateness = 500 * time.Millisecond
	SoonMax  = 8192
)

// SuppressionColumns are those of an entry.
const SuppressionColumns = "address, reason, source, since, expires, event, detail, note"

// Reasons sets what of an entry is stored as a word. A word of another version is
// unknown, and as weak as can be.
func Reasons(e *suppress.Entry, reason, source string) {
	e.Reason, _ = suppress.ParseReason(reason)
	e.Source, _ = suppress.ParseSource(source)
}

// Words are the words of a list.
func Words[T interface{ String() string }](list []T) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = v.String()
	}
	return all
}

// Head is how the head of a record is stored: some of it has columns of its own, doc is the
// rest as JSON, "" where nothing is known.
func Head(h *history.Head) (columns history.Head, doc string, err error) {
	if h == nil {
		return history.Head{}, "", nil
	}
	rest := *h
	rest.MessageID, rest.Subject = "", ""
	b, err := json.Marshal(rest)
	return *h, string(b), err
}

// ReadHead sets the head of a record whose columns are set.
func ReadHead(m *history.Mail, doc string) error {
	if doc == "" {
		return nil
	}
	id, subject := m.MessageID, m.Subject
	if err := json.Unmarshal([]byte(doc), &m.Head); err != nil {
		return fmt.Errorf("the record of mail %s: %w", m.ID, err)
	}
	m.MessageID, m.Subject = id, subject
	return nil
}

// NewRecipient is what the row of a recipient begins with.
func NewRecipient(r history.RecipientChange) (namedKey string, state history.State, ended time.Time, steps string, err error) {
	if r.Named != "" {
		namedKey = suppress.Normalise(r.Named)
	}
	state, ended = r.State, r.Ended
	switch {
	case state == "" && r.Refused.IsZero():
		state = history.Waiting
	case state == "":
		state, ended = r.StateOfRefused(), r.Refused
	}
	var b strings.Builder
	enc := json.NewEncoder(&b) // ends each with a line break
	for _, s := range r.Steps {
		if err := enc.Encode(s); err != nil {
			return "", "", ended, "", err
		}
	}
	return namedKey, state, ended, b.String(), nil
}

// ReadSteps sets the steps of a recipient. What stands there twice was written again,
// because nobody knew whether it was stored.
func ReadSteps(r *history.Recipient, text string) error {
	read := map[string]bool{}
	for line := range strings.Lines(text) {
		if read[line] {
			continue
		}
		read[line] = true
		var s history.Step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return fmt.Errorf("the record of <%s>: %w", r.Addr, err)
		}
		r.Steps = append(r.Steps, s)
	}
	return nil
}

// AddEvents joins what the provider told of a recipient to its record.
func AddEvents(r *history.Recipient, events []relay.Event) {
	taken := takenAt(*r)
	for _, e := range events {
		at := cmp.Or(e.Occurred, e.Created)
		if at.IsZero() || at.Before(taken) { // then by our own clock
			if at = e.Received; at.Before(taken) {
				at = taken
			}
		}
		r.Steps = append(r.Steps, history.Step{At: at, What: history.StepEvent, Event: &history.Event{
			ID: e.ID, Type: e.Type, Email: e.Email, MessageID: e.MessageID, Code: e.BounceCode, Reason: e.BounceReason, Received: e.Received,
		}})
		r.State = r.State.After(e.Type)
	}
	slices.SortStableFunc(r.Steps, func(a, b history.Step) int { return a.At.Compare(b.At) })
}

// takenAt is when the API took the mail. Nothing that the provider tells of it happened
// before; but its times are whole seconds, and its clock is not ours.
func takenAt(r history.Recipient) time.Time {
	for _, s := range r.Steps {
		if s.Attempt != nil && s.Attempt.MessageID == r.APIID {
			return s.At
		}
	}
	return time.Time{}
}

// FindLimit is how many records a page of a search has.
func FindLimit(q history.Query) int {
	if q.Limit <= 0 {
		return 100
	}
	return min(q.Limit, 1000)
}

// FindCursor is where the next page of a search begins, after a record and the key of its
// recipient.
func FindCursor(last history.Mail, key string) string {
	return fmt.Sprintf("%d %s %s", Millis(last.Received), last.ID, key)
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

// byName are the recipients that a name leads to, whatever it is a name of.
func (d Dialect) byName(name string) (sql string, args []any) {
	key, message := suppress.Normalise(name), strings.Trim(name, "<> ")
	first, end := "", "" // of a local part at any domain: nobody knows which one completed it then
	if !strings.Contains(key, "@") {
		first, end = key+"@", key+"A" // "A" follows "@"
	}
	sql = strings.NewReplacer("MAILS", d.Mails, "RECIPIENTS", d.Recipients).Replace(
		`SELECT mail, key FROM RECIPIENTS WHERE key = ?
		UNION SELECT mail, key FROM RECIPIENTS WHERE key >= ? AND key < ?
		UNION SELECT mail, key FROM RECIPIENTS WHERE named_key = ? AND named_key <> ''
		UNION SELECT mail, key FROM RECIPIENTS WHERE named_key >= ? AND named_key < ? AND named_key <> ''
		UNION SELECT mail, key FROM RECIPIENTS WHERE api_id = ? AND api_id <> ''
		UNION SELECT mail, key FROM RECIPIENTS WHERE mail IN (
			SELECT id FROM MAILS WHERE sender_key = ? OR sender_key >= ? AND sender_key < ?
			UNION SELECT id FROM MAILS WHERE message_id = ? AND message_id <> '')`)
	return sql, []any{key, first, end, key, first, end, name, key, first, end, message}
}

// nameAlone reports whether a query asks for no more than a name and a time.
func nameAlone(q history.Query) bool {
	return q.Name != "" && q.Recipient == "" && q.Sender == "" && q.ID == "" && q.Account == "" && q.Subject == "" && len(q.States) == 0
}

// newestByName is byName for a page of the newest, where nothing is asked for but a name
// and a time: each part gives no more than a page, so that a sender of a million mails costs
// hardly more than one of a hundred. Only what looks for a local part, an alias or a
// Message-ID has no index in the order of time, and sorts what it finds.
func (d Dialect) newestByName(q history.Query) (sql string, args []any, err error) {
	var at int64
	var id, past string
	if q.Cursor != "" {
		if at, id, past, err = parseFindCursor(q.Cursor); err != nil {
			return "", nil, err
		}
	}
	var parts []string
	// part takes what is between the names of a table and an order, of the times that q asks for.
	part := func(text, table string, limit int, condition string, given ...any) {
		var w Where
		w.And(condition, given...)
		received, mail := table+".received", map[string]string{"m": "m.id", "r": "r.mail"}[table]
		if !q.From.IsZero() {
			w.And(received+" >= ?", ceilMillis(q.From))
		}
		if !q.Until.IsZero() {
			w.And(received+" < ?", ceilMillis(q.Until))
		}
		if q.Cursor != "" {
			w.And("("+received+", "+mail+") <= (?, ?)", at, id)
			if strings.Contains(text, "r.key") {
				w.And("NOT (r.mail = ? AND r.key <= ?)", id, past)
			}
		}
		parts = append(parts, fmt.Sprintf(text, w))
		args = append(append(args, w.Args...), limit)
	}
	limit := FindLimit(q)
	recipients := func(condition string, given ...any) {
		part("SELECT * FROM (SELECT r.mail, r.key FROM "+d.Recipients+" r%s ORDER BY r.received DESC, r.mail DESC, r.key LIMIT ?) x", "r", limit, condition, given...)
	}
	// The one mail more is that of the cursor, which may have no recipient left.
	mails := func(condition string, given ...any) {
		part("SELECT a.mail, a.key FROM (SELECT m.id FROM "+d.Mails+" m%s AND EXISTS (SELECT 1 FROM "+d.Recipients+" e WHERE e.mail = m.id) ORDER BY m.received DESC, m.id DESC LIMIT ?) few "+
			d.Join+" "+d.Recipients+" a ON a.mail = few.id", "m", limit+1, condition, given...)
	}
	key, message := suppress.Normalise(q.Name), strings.Trim(q.Name, "<> ")
	recipients("r.key = ?", key)
	recipients("r.named_key = ? AND r.named_key <> ''", key)
	recipients("r.api_id = ? AND r.api_id <> ''", q.Name)
	// A mail can have many recipients: these are taken in their order from the mails in theirs.
	part("SELECT * FROM (SELECT r.mail, r.key FROM "+d.Mails+" m "+d.Join+" "+d.Recipients+" r ON r.mail = m.id%s ORDER BY m.received DESC, m.id DESC, r.key LIMIT ?) x",
		"m", limit, "m.sender_key = ?", key)
	mails("m.message_id = ? AND m.message_id <> ''", message)
	if !strings.Contains(key, "@") { // a local part at any domain: nobody knows which one completed it then
		first, end := key+"@", key+"A" // "A" follows "@"
		recipients("r.key >= ? AND r.key < ?", first, end)
		recipients("r.named_key >= ? AND r.named_key < ? AND r.named_key <> ''", first, end)
		mails("m.sender_key >= ? AND m.sender_key < ?", first, end)
	}
	return strings.Join(parts, "\n\t\tUNION "), args, nil
}

// Find is the one statement of a search, for mails m and recipients r. Which index leads is
// chosen here as far as the engine lets it, and not left to the planner, which cannot
// know how many rows an address has.
func (d Dialect) Find(columns string, q history.Query) (sql string, args []any, err error) {
	from, lead, mail := fmt.Sprintf("%s m %s %s r ON r.mail = m.id", d.Mails, d.Join, d.Recipients), "m", "m.id"
	if q.Name != "" || q.Recipient != "" {
		from, lead, mail = fmt.Sprintf("%s r %s %s m ON m.id = r.mail", d.Recipients, d.Join, d.Mails), "r", "r.mail"
	}
	if q.Name != "" {
		named, of := d.byName(q.Name)
		if nameAlone(q) {
			if named, of, err = d.newestByName(q); err != nil {
				return "", nil, err
			}
		}
		args = of
		from = fmt.Sprintf("(%s) n %s %s r ON r.mail = n.mail AND r.key = n.key %s %s m ON m.id = r.mail", named, d.Join, d.Recipients, d.Join, d.Mails)
	}
	w := Where{Args: args}
	if q.Recipient != "" {
		w.And("r.key = ?", suppress.Normalise(q.Recipient))
	}
	if q.Sender != "" {
		w.And("m.sender_key = ?", suppress.Normalise(q.Sender))
	}
	if q.ID != "" {
		w.And("m.id >= ? AND m.id < ?", q.ID, q.ID+"\x7f")
	}
	if q.Account != "" {
		w.And(d.Account+" = ?", account(q.Account))
	}
	if q.Subject != "" {
		w.And(fmt.Sprintf(d.Contains, "m.subject"), q.Subject)
	}
	if !q.From.IsZero() {
		w.And(lead+".received >= ?", ceilMillis(q.From))
	}
	if !q.Until.IsZero() {
		w.And(lead+".received < ?", ceilMillis(q.Until))
	}
	if len(q.States) > 0 {
		condition, err := d.stateCondition(q.States)
		if err != nil {
			return "", nil, err
		}
		w.And(condition)
	}
	if q.Cursor != "" {
		at, id, key, err := parseFindCursor(q.Cursor)
		if err != nil {
			return "", nil, err
		}
		w.And(fmt.Sprintf("(%s.received, %s) <= (?, ?) AND NOT (%s = ? AND r.key <= ?)", lead, mail, mail), at, id, id, key)
	}
	sql = fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s.received DESC, %s DESC, r.key LIMIT ?", columns, from, w, lead, mail)
	return sql, append(w.Args, FindLimit(q)), nil
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

// stateCondition is on the recipient's own state and, for those that were sent, on the
// strongest of the provider's events. However often a state is named it stands there once.
func (d Dialect) stateCondition(of []history.State) (string, error) {
	told := func(s history.State) string {
		return fmt.Sprintf("EXISTS (SELECT 1 FROM %s e WHERE e.message_id = r.api_id AND e.message_id <> '' AND e.type IN ('%s'))",
			d.Events, strings.Join(history.TypesOf(s), "','"))
	}
	bounced, complained, delivered := told(history.Bounced), told(history.Complained), told(history.Delivered)
	for _, s := range of {
		if !slices.Contains(history.States(), s) {
			return "", fmt.Errorf("there is no state %q", s)
		}
	}
	var any []string
	for _, s := range history.States() {
		if !slices.Contains(of, s) {
			continue
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
