package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// HistoryOptions are the options of NewHistory.
type HistoryOptions struct {
	Store HistoryStore // nil: there is no history, and Missing says why
	// Missing is the error of every call when Store is nil. By default it says
	// that this relay keeps no queue, and so no history.
	Missing error
	Admin   Admin // of the same relay, for its queue
	// Flush, if it is set, writes buffered facts to the store.
	Flush func(ctx context.Context) error
}

// HistoryStore is a history.Store that can also erase a suppression.
type HistoryStore interface {
	history.Store
	// Erase removes an address from the list of suppressions and leaves no trace of it.
	Erase(ctx context.Context, address string) (known bool, err error)
}

// ErrNoHistory says that the relay keeps no history.
var ErrNoHistory = errors.New(`this relay keeps no history, because it keeps no queue (queue.mode = "none")`)

// LocalHistory is a History that reads a store in this process.
type LocalHistory struct{ opt HistoryOptions }

var _ History = (*LocalHistory)(nil)

// NewHistory returns a History of an open store. It need not be closed.
func NewHistory(o HistoryOptions) *LocalHistory { return &LocalHistory{o} }

// prepare checks q and writes buffered facts to the store. It ignores an error of that
// write, because the rest of the history can be shown.
func (l *LocalHistory) prepare(ctx context.Context, q history.Query) error {
	if l.opt.Store == nil {
		return cmp.Or(l.opt.Missing, ErrNoHistory)
	}
	for _, s := range q.States {
		if !slices.Contains(history.States(), s) {
			return fmt.Errorf("%w: there is no state %q", ErrBadRequest, s)
		}
	}
	if l.opt.Flush != nil {
		_ = l.opt.Flush(ctx)
	}
	return ctx.Err()
}

// Find implements History.
func (l *LocalHistory) Find(ctx context.Context, q history.Query) (Found, error) {
	if err := l.prepare(ctx, q); err != nil {
		return Found{}, err
	}
	entries, cursor, err := l.opt.Store.Find(ctx, q)
	if entries == nil {
		entries = []history.Mail{}
	}
	return Found{entries, cursor}, err
}

// shortID matches what can be the beginning of a queue id.
var shortID = regexp.MustCompile(`^[0-9a-v]{4,20}(\.[0-9a-v]*)?$`)

// Trace implements History.
func (l *LocalHistory) Trace(ctx context.Context, q history.Query) (Traced, error) {
	if err := l.prepare(ctx, q); err != nil {
		return Traced{}, err
	}
	if q.Name == "" {
		return Traced{}, fmt.Errorf("%w: name a mail", ErrBadRequest)
	}
	m, found, err := l.opt.Store.Get(ctx, q.Name)
	if err != nil {
		return Traced{}, err
	}
	if found {
		return l.traced(ctx, m), nil
	}
	matches, more, err := l.search(ctx, q)
	switch {
	case err != nil:
		return Traced{}, err
	case len(matches) == 0:
		return l.queued(ctx, q.Name)
	case len(matches) > 1 || more:
		return Traced{Matches: matches, More: more}, nil
	}
	m, found, err = l.opt.Store.Get(ctx, matches[0].ID)
	if err == nil && !found {
		err = fmt.Errorf("%w: %q", queue.ErrNotFound, q.Name) // it was removed just now
	}
	if err != nil {
		return Traced{}, err
	}
	return l.traced(ctx, m), nil
}

// search returns the mails that q.Name names, and then those whose id begins with it,
// without duplicates. It returns at most q.Limit mails, and whether there are more.
func (l *LocalHistory) search(ctx context.Context, q history.Query) (mails []history.Mail, more bool, err error) {
	limit := min(cmp.Or(max(q.Limit, 0), 100), MaxPage)
	q.Limit = min(limit+1, MaxPage) // one more tells whether there are more
	queries := []history.Query{q}
	if q.ID == "" && shortID.MatchString(q.Name) {
		q.ID, q.Name = q.Name, ""
		queries = append(queries, q)
	}
	seen := map[string]bool{}
	for _, q := range queries {
		find := func(cursor string) ([]history.Mail, string, error) {
			if q.Cursor = cursor; cursor != "" {
				q.Limit = MaxPage // of a mail with many recipients
			}
			return l.opt.Store.Find(ctx, q)
		}
		for m, err := range pages("", find) {
			switch {
			case err != nil:
				return nil, false, err
			case seen[m.ID]:
				continue
			case len(mails) == limit:
				return mails, true, nil
			}
			seen[m.ID] = true
			mails = append(mails, m)
		}
	}
	return mails, false, nil
}

// traced adds the mail as it is in the queue. If they differ, the queue is right, because
// a crash can lose the last moments of the history.
func (l *LocalHistory) traced(ctx context.Context, m history.Mail) Traced {
	addWords(&m)
	t := Traced{Mail: &m}
	queued, err := l.opt.Admin.Get(ctx, m.ID)
	if err != nil || queued.ID != m.ID {
		return t
	}
	t.Queue = &queued
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State != history.Waiting && r.State != history.Failed && r.State != history.Unknown {
			continue
		}
		for _, current := range queued.Recipients {
			if strings.EqualFold(current.Recipient, r.Addr) {
				r.State, r.Ended = stateInQueue(current.State), current.Ended
			}
		}
	}
	return t
}

func stateInQueue(state string) history.State {
	switch state {
	case queue.Sent.String():
		return history.Sent
	case queue.Failed.String():
		return history.Failed
	}
	return history.Waiting
}

// queued finds a mail that is only in the queue, because it is older than the history or
// the history lost it.
func (l *LocalHistory) queued(ctx context.Context, name string) (Traced, error) {
	notFound := &worded{fmt.Sprintf("%q is neither in the queue nor in the history", name), queue.ErrNotFound}
	switch {
	case len(name) < 4:
		return Traced{}, fmt.Errorf("%w; give at least four characters of the id", notFound)
	case !shortID.MatchString(name):
		return Traced{}, notFound
	}
	q, err := l.opt.Admin.Get(ctx, name)
	switch {
	case errors.Is(err, queue.ErrNotFound) || errors.Is(err, ErrNoQueue):
		return Traced{}, notFound
	case err != nil:
		return Traced{}, err
	}
	m := history.Mail{ID: q.ID, Received: q.Received, Sender: q.Sender, Head: history.Head{
		Size: q.Size, BounceOf: q.BounceOf, Client: q.Client,
	}}
	for _, r := range q.Recipients {
		one := history.Recipient{Addr: r.Recipient, State: stateInQueue(r.State), Ended: r.Ended}
		for i, a := range r.History {
			one.Steps = append(one.Steps, history.Step{At: a.Started, What: history.StepTried, Attempt: &history.Attempt{
				Number: i + 1, Outcome: a.Outcome, Status: a.Status, MessageID: a.MessageID, Detail: a.Detail, Cause: a.Cause, TookMS: a.TookMS,
			}})
			if a.MessageID != "" {
				one.APIID = a.MessageID
			}
		}
		m.Recipients = append(m.Recipients, one)
	}
	addWords(&m)
	return Traced{Mail: &m, Queue: &q}, nil
}

// Forget implements History.
func (l *LocalHistory) Forget(ctx context.Context, r ForgetRequest) (Forgotten, error) {
	if err := l.prepare(ctx, history.Query{}); err != nil {
		return Forgotten{}, err
	}
	if !strings.Contains(r.Address, "@") {
		return Forgotten{}, fmt.Errorf("%w: %q is not an address", ErrBadRequest, r.Address)
	}
	out := Forgotten{Queued: []QueuedMail{}}
	var ids []string
	for _, f := range []Filter{{Sender: r.Address}, {Recipient: r.Address}} {
		for e, err := range All(ctx, l.opt.Admin, f) {
			if err != nil {
				return out, err
			}
			if !slices.Contains(ids, e.ID) {
				ids = append(ids, e.ID)
				out.Queued = append(out.Queued, QueuedMail{ID: e.ID, State: e.State, Received: e.Received})
			}
		}
	}
	var err error
	if r.Suppressions { // first, because Store.Forget searches records.db for the address
		if out.Suppressed, err = l.opt.Store.Erase(ctx, r.Address); err != nil {
			return out, err
		}
	}
	out.Forgotten, err = l.opt.Store.Forget(ctx, r.Address, ids)
	return out, err
}
