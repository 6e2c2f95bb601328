package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// Options are what a Local is made from.
type Options struct {
	Queue   queue.Operator // nil: the relay keeps none
	Version string
	History history.Noter // learns what an operator does; nil: history.Nothing
	// LeftOut, if set, is what the API is not given of a mail, as it came and
	// with its envelope's sender.
	LeftOut func(raw []byte, from string) []history.LeftOut

	// The rest is a running daemon's. On a stopped daemon's queue all of it
	// is left out.
	Started time.Time
	Pace    func() pace.State
	Warming func(now time.Time) []warm.DomainState // nil: no domain is being warmed
	// LastDay, if set, counts what the provider told since a time.
	LastDay func(ctx context.Context, since time.Time) (LastDay, error)
	// Warnings, if set, adds what others than the queue and the pacer know.
	Warnings func(ctx context.Context, now time.Time) []Warning
	Log      *slog.Logger // of what an operator does; nil: none
	// Reload is the daemon's.
	Reload func(context.Context) (Reload, error)
}

// Local is an Admin that works on a queue in this process.
type Local struct{ opt Options }

var _ Admin = (*Local)(nil)

// New returns an Admin for a queue that is open in this process. It starts
// nothing and needs no end.
func New(o Options) *Local {
	if o.Queue == nil {
		o.Queue = noQueue{}
	}
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Local{o}
}

// Status implements Admin.
func (l *Local) Status(ctx context.Context) (Status, error) {
	v := l.view()
	stats, err := l.opt.Queue.Stats(ctx)
	if err != nil && (!v.running || errors.Is(err, queue.ErrClosed)) {
		return Status{}, err
	}
	s := Status{
		Version: l.opt.Version,
		Running: v.running,
		Since:   utc(l.opt.Started),
		Queue:   countsOf(stats),
		Warming: []Warming{},
	}
	if s.Running {
		s.Pace = paceOf(v.pace)
	}
	for _, d := range v.warming {
		s.Warming = append(s.Warming, warmingOf(d))
	}
	if l.opt.LastDay != nil {
		if d, err := l.opt.LastDay(ctx, v.now.Add(-24*time.Hour)); err == nil {
			s.LastDay = &d
		}
	}
	s.Warnings = v.warnings(s)
	if err != nil {
		s.Warnings = append(s.Warnings, Warning{Level: LevelTrouble, What: "it is not known what waits", Why: "the queue cannot be read: " + text(err.Error()),
			Do: "see to the disk of the data directory; the relay goes on by itself"})
	}
	if l.opt.Warnings != nil {
		s.Warnings = append(s.Warnings, l.opt.Warnings(ctx, v.now)...)
	}
	sortWarnings(s.Warnings)
	s.State, s.Summary = v.judge(s)
	return s, nil
}

// view is what an entry's words depend on besides the entry.
func (l *Local) view() view {
	_, unkept := l.opt.Queue.(noQueue)
	v := view{now: time.Now(), unkept: unkept}
	if l.opt.Pace != nil {
		v.running, v.pace = true, l.opt.Pace()
	}
	if l.opt.Warming != nil {
		v.warming = l.opt.Warming(v.now)
	}
	return v
}

// List implements Admin.
func (l *Local) List(ctx context.Context, f Filter) (Page, error) {
	qf, err := f.queue()
	if err != nil {
		return Page{}, err
	}
	entries, cursor, err := l.opt.Queue.List(ctx, qf)
	if err != nil {
		return Page{}, err
	}
	page := Page{Entries: make([]Entry, len(entries)), Cursor: cursor}
	v := l.view()
	for i, e := range entries {
		page.Entries[i] = v.entry(e)
	}
	return page, nil
}

// Get implements Admin.
func (l *Local) Get(ctx context.Context, id string) (Mail, error) {
	m, err := l.find(ctx, id)
	if err != nil {
		return Mail{}, err
	}
	out := l.view().mail(m)
	out.LeftOut = l.leftOut(ctx, m)
	return out, nil
}

// leftOut maps a mail that is still kept once more: what is sent is made from
// the mail at each attempt, so that this is what the next one would leave out.
func (l *Local) leftOut(ctx context.Context, m queue.Mail) []history.LeftOut {
	if l.opt.LeftOut == nil || m.Damaged || !slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return r.State != queue.Sent }) {
		return nil
	}
	r, err := l.opt.Queue.Raw(ctx, m.Message.ID)
	if err != nil {
		return nil // sent meanwhile, or damaged: its states say so
	}
	defer func() { _ = r.Close() }()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil
	}
	return l.opt.LeftOut(raw, m.Message.From)
}

// Raw implements Admin.
func (l *Local) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	r, err := l.opt.Queue.Raw(ctx, id)
	if id == "" || !errors.Is(err, queue.ErrNotFound) {
		return r, err
	}
	full, err := l.complete(ctx, id)
	if err != nil {
		return nil, err
	}
	if full == id {
		return nil, &saying{"the content of " + id + " is not kept any more", queue.ErrNotFound}
	}
	return l.Raw(ctx, full)
}

// find is Get of an id that may be shortened.
func (l *Local) find(ctx context.Context, id string) (queue.Mail, error) {
	m, err := l.opt.Queue.Get(ctx, id)
	if id == "" || !errors.Is(err, queue.ErrNotFound) {
		return m, err
	}
	full, err := l.complete(ctx, id)
	if err != nil {
		return queue.Mail{}, err
	}
	return l.opt.Queue.Get(ctx, full)
}

// maxCandidates is how many mails an AmbiguousError names.
const maxCandidates = 10

// complete is the one id that begins with a prefix.
func (l *Local) complete(ctx context.Context, prefix string) (string, error) {
	var ids []string
	for f := (queue.Filter{ID: prefix, Limit: MaxPage}); len(ids) <= maxCandidates; {
		entries, cursor, err := l.opt.Queue.List(ctx, f)
		if err != nil {
			return "", err
		}
		for _, e := range entries { // a mail's recipients come one after the other
			if id := e.Mail.Message.ID; len(ids) == 0 || ids[len(ids)-1] != id {
				ids = append(ids, id)
			}
		}
		if cursor == "" {
			break
		}
		f.Cursor = cursor
	}
	switch {
	case len(ids) == 0:
		return "", fmt.Errorf("%w: %q", queue.ErrNotFound, prefix)
	case len(ids) == 1:
		return ids[0], nil
	}
	e := &AmbiguousError{Prefix: prefix, IDs: ids}
	if len(ids) > maxCandidates {
		e.IDs, e.More = ids[:maxCandidates], true
	}
	return "", e
}

// Hold implements Admin.
func (l *Local) Hold(ctx context.Context, f Filter) (int, error) {
	return l.change(ctx, "hold", f, l.opt.Queue.Hold)
}

// Release implements Admin.
func (l *Local) Release(ctx context.Context, f Filter) (int, error) {
	return l.change(ctx, "release", f, l.opt.Queue.Release)
}

// Retry implements Admin.
func (l *Local) Retry(ctx context.Context, f Filter) (int, error) {
	return l.change(ctx, "retry", f, func(ctx context.Context, qf queue.Filter) (int, error) {
		if err := l.noteRetry(ctx, qf); err != nil {
			return 0, err
		}
		return l.opt.Queue.Retry(ctx, qf, time.Now())
	})
}

// Drop implements Admin.
func (l *Local) Drop(ctx context.Context, f Filter) (int, error) {
	return l.change(ctx, "drop", f, func(ctx context.Context, qf queue.Filter) (int, error) {
		if err := l.logDrop(ctx, qf); err != nil {
			return 0, err
		}
		return l.opt.Queue.Drop(ctx, qf)
	})
}

// Flush implements Admin.
func (l *Local) Flush(ctx context.Context) (int, error) {
	n, err := l.opt.Queue.Retry(ctx, queue.Filter{States: []queue.State{queue.Waiting}}, time.Now())
	l.logChange("flush", n, err)
	return n, err
}

// Reload implements Admin.
func (l *Local) Reload(ctx context.Context) (Reload, error) {
	if l.opt.Reload == nil {
		return Reload{}, ErrNotRunning
	}
	r, err := l.opt.Reload(ctx)
	if r.Changes == nil {
		r.Changes = []Change{}
	}
	return r, err
}

// change is the one way to change many recipients, so that the guard against
// an empty filter holds for all of them, whoever calls.
func (l *Local) change(ctx context.Context, what string, f Filter, do func(context.Context, queue.Filter) (int, error)) (int, error) {
	if !f.Selects() && !f.All {
		return 0, ErrNothingSelected
	}
	qf, err := f.queue()
	if err != nil {
		return 0, err
	}
	n, err := do(ctx, qf)
	l.logChange(what, n, err)
	return n, err
}

func (l *Local) logChange(what string, recipients int, err error) {
	attrs := []any{"change", what, "recipients", recipients}
	if err != nil {
		l.opt.Log.Error("an operator's change ended early", append(attrs, "cause", err)...)
		return
	}
	l.opt.Log.Info("an operator changed the queue", attrs...)
}

// noteRetry notes who had failed and is tried again.
func (l *Local) noteRetry(ctx context.Context, f queue.Filter) error {
	if len(f.States) > 0 && !slices.Contains(f.States, queue.Failed) {
		return nil
	}
	f.States, f.Limit, f.Cursor = []queue.State{queue.Failed}, MaxPage, ""
	for {
		entries, cursor, err := l.opt.Queue.List(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Mail.Damaged { // which cannot be retried
				l.opt.History.Note(history.OperatorRetried{ID: e.Mail.Message.ID, To: e.Recipient.Addr, At: time.Now()})
			}
		}
		if f.Cursor = cursor; cursor == "" {
			return nil
		}
	}
}

// logDrop names everyone who is about to be dropped: nobody else is told of
// them, so that without this line a mail that was taken would end unseen. What
// comes or goes at the same moment may be named and not dropped; then its own
// lines follow.
func (l *Local) logDrop(ctx context.Context, f queue.Filter) error {
	if len(f.States) == 0 {
		f.States = []queue.State{queue.Waiting, queue.Claimed, queue.Held, queue.Failed}
	}
	f.Limit, f.Cursor = MaxPage, ""
	for {
		entries, cursor, err := l.opt.Queue.List(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Recipient.State == queue.Sent {
				continue // Drop leaves it alone
			}
			l.opt.Log.Warn("recipient", "id", e.Mail.Message.ID, "from", e.Mail.Message.From, "to", e.Recipient.Addr,
				"session", e.Mail.Message.Client.Session, "outcome", "dropped", "was", e.Recipient.State.String(), "attempts", e.Recipient.Attempts)
			l.opt.History.Note(history.OperatorDropped{ID: e.Mail.Message.ID, To: e.Recipient.Addr, At: time.Now()})
		}
		if cursor == "" {
			return nil
		}
		f.Cursor = cursor
	}
}
