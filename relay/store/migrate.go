package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The marks of a store whose content is moved. Open refuses a relay a store that has one.
const (
	markMoving   = "store/moving"   // to where; moved is set when that ended
	markMoved    = "store/moved"    // to where
	markArriving = "store/arriving" // from where
	markAt       = "store/at/"      // how far that is, for each part
	ourMarks     = "store/"
)

// errInUse: a relay runs.
var errInUse = errors.New("a relay runs on it; stop all relays first, and wait 30 s if one was killed")

// ErrMoved: its content is moved to another store.
var ErrMoved = errors.New("mail would be sent twice")

// Progress is how far a migration is.
type Progress struct {
	Part  string // "mail", "marks", or a table of the records
	Done  int64  // rows, or mails
	Check bool   // it is read again, and compared
}

// Migration moves all of a store into an empty one.
type Migration struct {
	From, To string         // URLs
	Progress func(Progress) // called now and then
	Log      *slog.Logger
}

// Moved is what was moved.
type Moved struct {
	Mails   int64            `json:"mails"`
	Marks   int64            `json:"marks"`
	Rows    map[string]int64 `json:"rows"`              // of each table of the records
	Damaged []string         `json:"damaged,omitempty"` // mails that stay, because their content is not what came
}

// mover is a Migration at work.
type mover struct {
	Migration
	from, to *Store
	toPlace  Place
	moved    Moved
}

// movable is what an engine's records can do for it.
type movable interface {
	Rows(ctx context.Context, t stored.Table, after []any, limit int) ([]stored.Row, []any, error)
	SetRows(ctx context.Context, t stored.Table, all []stored.Row) error
}

// Run moves what is kept, compares both stores, and leaves word in the old one, so that
// no relay starts on it: its mail would be sent twice. A run that was ended goes on where
// it was when Run is called again with the same URLs.
func (m Migration) Run(ctx context.Context) (moved Moved, err error) {
	w := &mover{Migration: m, moved: Moved{Rows: map[string]int64{}}}
	fromPlace, err := PlaceOf(m.From)
	if err == nil {
		w.toPlace, err = PlaceOf(m.To)
	}
	if err != nil {
		return moved, err
	}
	if fromPlace == w.toPlace {
		return moved, errors.New("both URLs are the same store")
	}
	if w.from, err = openStopped(ctx, m.From, false, m.Log); err != nil {
		return moved, fmt.Errorf("%s: %w", fromPlace.Name, err)
	}
	defer func() { err = errors.Join(err, w.from.Close()) }()
	if w.to, err = openStopped(ctx, m.To, true, m.Log); err != nil {
		return moved, fmt.Errorf("%s: %w", w.toPlace.Name, err)
	}
	defer func() { err = errors.Join(err, w.to.Close()) }()
	if err := w.begin(ctx, fromPlace); err != nil {
		return moved, err
	}
	for _, step := range []func(context.Context) error{w.records, w.mail, w.marks, w.compare, w.end} {
		if err := step(ctx); err != nil {
			return w.moved, err
		}
	}
	return w.moved, nil
}

// openStopped opens a store that no relay runs on. Beside an embedded one no relay can
// start while it is open; a shared one has a mark that tells relays not to.
func openStopped(ctx context.Context, url string, create bool, log *slog.Logger) (*Store, error) {
	o := Options{Existing: true, Log: log}
	if create {
		made, err := Open(ctx, url, Options{Part: OnlyRecords, Log: log})
		if err != nil {
			return nil, err
		}
		if err := made.Close(); err != nil {
			return nil, err
		}
		p, err := PlaceOf(url)
		if err != nil {
			return nil, err
		}
		o.Existing = p.Dir == "" // a data directory needs its queue as well
	}
	s, err := Open(ctx, url, o)
	if err == nil && s.Records == nil {
		err = errors.Join(s.RecordsErr, s.Close())
	}
	if err != nil {
		return nil, err
	}
	if s.Relays != nil {
		relays, err := s.Relays(ctx)
		if err == nil && slices.ContainsFunc(relays, func(r Relay) bool { return r.Alive }) {
			err = errInUse
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// begin leaves word in both stores, unless they are where another run left them.
func (w *mover) begin(ctx context.Context, fromPlace Place) error {
	there, err := w.to.Queue.Marks(ctx, ourMarks)
	if err != nil {
		return err
	}
	here, err := w.from.Queue.Marks(ctx, ourMarks)
	if err != nil {
		return err
	}
	switch from := there[markArriving]; {
	case here[markMoved] != "":
		return fmt.Errorf("%s was moved to %s already", fromPlace.Name, here[markMoved])
	case here[markArriving] != "":
		return fmt.Errorf("%s is not whole: it is being moved there from %s; finish that first", fromPlace.Name, here[markArriving])
	case there[markMoved] != "" || from != "" && from != fromPlace.Name:
		return fmt.Errorf("%s has what was moved from or to another store; name an empty one", w.toPlace.Name)
	case from == "":
		if err := w.empty(ctx); err != nil {
			return err
		}
	}
	if err := w.to.Queue.SetMark(ctx, markArriving, fromPlace.Name); err != nil {
		return err
	}
	return w.from.Queue.SetMark(ctx, markMoving, w.toPlace.Name)
}

// empty refuses a store that has something: it would be mixed up with what comes.
func (w *mover) empty(ctx context.Context) error {
	entries, _, err := w.to.Queue.List(ctx, queue.Filter{Limit: 1})
	if err != nil {
		return err
	}
	full := len(entries) > 0
	for _, t := range stored.Tables() {
		some, _, err := w.to.Records.(movable).Rows(ctx, t, nil, 1)
		if err != nil {
			return err
		}
		full = full || len(some) > 0
	}
	if full {
		return fmt.Errorf("%s is not empty; name an empty directory or database", w.toPlace.Name)
	}
	return nil
}

// step is how many rows are moved at a time.
const step = 500

func (w *mover) records(ctx context.Context) error {
	from, to := w.from.Records.(movable), w.to.Records.(movable)
	for _, t := range stored.Tables() {
		after, err := w.at(ctx, t.Name)
		if err != nil {
			return err
		}
		for n := int64(0); ; {
			all, last, err := from.Rows(ctx, t, after, step)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				break
			}
			if err := to.SetRows(ctx, t, all); err != nil {
				return err
			}
			if err := w.reached(ctx, t.Name, last); err != nil {
				return err
			}
			after, n = last, n+int64(len(all))
			w.tell(Progress{Part: t.Name, Done: n})
		}
	}
	return nil
}

// at is how far a part is, nil for its beginning.
func (w *mover) at(ctx context.Context, part string) (at []any, err error) {
	text, err := w.to.Queue.Mark(ctx, markAt+part)
	if err != nil || text == "" {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&at); err != nil {
		return nil, err
	}
	for i, v := range at {
		if n, ok := v.(json.Number); ok {
			if at[i], err = n.Int64(); err != nil {
				return nil, err
			}
		}
	}
	return at, nil
}

func (w *mover) reached(ctx context.Context, part string, at []any) error {
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return w.to.Queue.SetMark(ctx, markAt+part, string(text))
}

func (w *mover) tell(p Progress) {
	if w.Progress != nil {
		w.Progress(p)
	}
}

// groupBytes is how much mail is stored at a time.
const groupBytes = 4 << 20

// mail moves the queue, in its order. A mail that is there already is left as it is.
func (w *mover) mail(ctx context.Context) error {
	at, err := w.at(ctx, "mail")
	if err != nil {
		return err
	}
	cursor := ""
	if at != nil {
		cursor = at[0].(string)
	}
	var group []queue.Mail
	size, n := int64(0), int64(0)
	flush := func() error {
		err := w.to.Queue.Enqueue(ctx, group...)
		n += int64(len(group))
		group, size = nil, 0
		w.tell(Progress{Part: "mail", Done: n})
		return err
	}
	for {
		var next string
		next, err = eachMail(ctx, w.from.Queue, cursor, func(id string) error {
			one, whole, err := wholeMail(ctx, w.from.Queue, id)
			if err != nil || !whole { // compare says which those are
				return err
			}
			group = append(group, one)
			if size += one.Size; size >= groupBytes || len(group) >= step {
				return flush()
			}
			return nil
		})
		if err == nil && len(group) > 0 {
			err = flush()
		}
		if err != nil || next == "" {
			return err
		}
		cursor = next
		if err := w.reached(ctx, "mail", []any{cursor}); err != nil {
			return err
		}
	}
}

// eachMail calls f for the mails of one page of a list. One whose recipients are on two
// pages is named twice.
func eachMail(ctx context.Context, q queue.Queue, cursor string, f func(id string) error) (next string, err error) {
	entries, next, err := q.List(ctx, queue.Filter{Limit: 1000, Cursor: cursor})
	if err != nil {
		return "", err
	}
	before := ""
	for _, e := range entries {
		if id := e.Mail.Message.ID; id != before {
			before = id
			if err := f(id); err != nil {
				return "", err
			}
		}
	}
	return next, nil
}

// wholeMail is a mail as it is enqueued. It is false for one whose content is damaged.
func wholeMail(ctx context.Context, q queue.Queue, id string) (m queue.Mail, whole bool, err error) {
	if m, err = q.Get(ctx, id); err != nil {
		return m, false, err
	}
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.State == queue.Claimed { // its relay is gone
			r.State, r.Due = queue.Waiting, time.Time{}
		}
	}
	raw, err := q.Raw(ctx, id)
	switch {
	case errors.Is(err, queue.ErrDamaged):
		return m, false, nil
	case errors.Is(err, queue.ErrNotFound): // it was sent
		m.Size = 0
		return m, true, nil
	case err != nil:
		return m, false, err
	}
	m.Message.Raw, err = io.ReadAll(raw)
	err = errors.Join(err, raw.Close())
	if errors.Is(err, queue.ErrDamaged) {
		return m, false, nil
	}
	m.Size = int64(len(m.Message.Raw))
	return m, err == nil, err
}

func (w *mover) marks(ctx context.Context) error {
	all, err := w.from.Queue.Marks(ctx, "")
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, ourMarks) {
			continue
		}
		if err := w.to.Queue.SetMark(ctx, name, all[name]); err != nil {
			return err
		}
		w.moved.Marks++
	}
	w.tell(Progress{Part: "marks", Done: w.moved.Marks})
	return nil
}

// compare reads both stores and compares numbers and checksums.
func (w *mover) compare(ctx context.Context) error {
	for _, t := range stored.Tables() {
		here, err := w.sum(ctx, w.from, t)
		if err != nil {
			return err
		}
		there, err := w.sum(ctx, w.to, t)
		if err != nil {
			return err
		}
		if here != there {
			return differ(t.Name, here, there)
		}
		w.moved.Rows[t.Name] = here.Count
	}
	here, damaged, err := w.mailSum(ctx, w.from.Queue)
	if err != nil {
		return err
	}
	there, _, err := w.mailSum(ctx, w.to.Queue)
	if err != nil {
		return err
	}
	if here != there {
		return differ("mail", here, there)
	}
	w.moved.Mails, w.moved.Damaged = here.Count, damaged
	return nil
}

func differ(what string, here, there stored.Sum) error {
	return fmt.Errorf("%s: %d were read and %d are there, with the checksums %016x and %016x; the old store is as it was", what, here.Count, there.Count, here.Sum, there.Sum)
}

func (w *mover) sum(ctx context.Context, s *Store, t stored.Table) (sum stored.Sum, err error) {
	for after := []any(nil); ; {
		all, last, err := s.Records.(movable).Rows(ctx, t, after, step)
		if err != nil || len(all) == 0 {
			return sum, err
		}
		for _, r := range all {
			for i, v := range r {
				if text, ok := v.(string); ok {
					r[i] = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD") // what every engine stores
				}
			}
			sum.Add(r...)
		}
		after = last
		w.tell(Progress{Part: t.Name, Done: sum.Count, Check: true})
	}
}

func (w *mover) mailSum(ctx context.Context, q queue.Queue) (sum stored.Sum, damaged []string, err error) {
	last, cursor := "", ""
	for {
		cursor, err = eachMail(ctx, q, cursor, func(id string) error {
			if id == last { // on two pages
				return nil
			}
			last = id
			m, whole, err := wholeMail(ctx, q, id)
			switch {
			case err != nil:
				return err
			case !whole:
				damaged = append(damaged, id)
			default:
				sum.Add(partsOf(m)...)
			}
			return nil
		})
		if err != nil || cursor == "" {
			return sum, damaged, err
		}
		w.tell(Progress{Part: "mail", Done: sum.Count, Check: true})
	}
}

// partsOf is all of a mail that is kept.
func partsOf(m queue.Mail) []any {
	parts := []any{m.Message.ID, m.Message.From, m.Message.ReceivedAt.UnixMilli(), m.Message.Client, m.Message.Account,
		fmt.Sprintf("%x", sha256.Sum256(m.Message.Raw)), m.Lane, m.Domain, m.Urgent, m.BounceOf}
	ms := func(t time.Time) int64 { return max(0, t.UnixMilli()) }
	for _, r := range m.Recipients {
		due := int64(0)
		if r.State == queue.Waiting || r.State == queue.Held {
			due = ms(r.Due)
		}
		parts = append(parts, r.Addr, r.State, due, r.Attempts, ms(r.Since), ms(r.Ended), r.Bounced, len(r.History))
		for _, a := range r.History {
			o := a.Outcome
			parts = append(parts, ms(a.Started), a.NotAnAttempt, a.Unknown, int(o.Kind), o.Status, o.MessageID, o.Detail, o.RetryAfter, o.Took, o.Cause)
		}
	}
	return parts
}

// end makes the new store one that a relay may start on, and the old one not.
func (w *mover) end(ctx context.Context) error {
	if err := w.from.Queue.SetMark(ctx, markMoved, w.toPlace.Name); err != nil {
		return err
	}
	there, err := w.to.Queue.Marks(ctx, ourMarks)
	if err != nil {
		return err
	}
	for _, name := range append(slices.Sorted(maps.Keys(there)), markArriving) {
		if err := w.to.Queue.SetMark(ctx, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// Whole fails if what is kept in a store is moved from or to another one. A relay must not
// start then.
func (s *Store) Whole(ctx context.Context) error {
	marks, err := s.Queue.Marks(ctx, ourMarks)
	switch {
	case err != nil:
		return err
	case marks[markMoved] != "":
		return fmt.Errorf("%w: what was here was moved to %s by 'smtp2rest migrate'; name that store, or another directory", ErrMoved, marks[markMoved])
	case marks[markMoving] != "":
		return fmt.Errorf("%w: what is here is being moved to %s; let 'smtp2rest migrate' finish, or run it with --abandon to go on here", ErrMoved, marks[markMoving])
	case marks[markArriving] != "":
		return fmt.Errorf("it is not whole: what was in %s is being moved here; let 'smtp2rest migrate' finish", marks[markArriving])
	}
	return nil
}

// Abandon lets a relay go on with a store from which not all was moved. What is in the
// new one already has to be thrown away.
func Abandon(ctx context.Context, url string, log *slog.Logger) (err error) {
	s, err := openStopped(ctx, url, false, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	moved, err := s.Queue.Mark(ctx, markMoved)
	if err == nil && moved != "" {
		err = fmt.Errorf("all was moved to %s, where relays may have sent it", moved)
	}
	if err != nil {
		return err
	}
	return s.Queue.SetMark(ctx, markMoving, "")
}
