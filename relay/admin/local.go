package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// Options are the options of New.
type Options struct {
	Queue   queue.Operator // nil: the relay keeps no queue
	Version string
	History history.Noter // records what an operator does; nil: nothing
	// LeftOut, if it is set, says what of a mail the API would not be given. m is without
	// its content.
	LeftOut func(raw []byte, m relay.Message) []history.LeftOut

	// The rest is for a running daemon, and is not set for one that is stopped.
	Started time.Time
	Pace    func() pace.State
	// Others are the accounts besides the default one.
	Others  []AccountOptions
	Warming func(now time.Time) []warm.DomainState // nil: no domain is warmed
	// LastDay, if it is set, counts the events of the provider since a time.
	LastDay func(ctx context.Context, since time.Time) (LastDay, error)
	// Relays, if it is set, returns all relays that share the store.
	Relays func(context.Context) ([]Relay, error)
	// Warnings, if it is set, returns further warnings.
	Warnings func(ctx context.Context, now time.Time) []Warning
	Log      *slog.Logger // for what an operator does; nil: none
	Reload   func(context.Context) (Reload, error)
}

// AccountOptions describe one account.
type AccountOptions struct {
	Name    string
	Pace    func() pace.State
	Warming func(now time.Time) []warm.DomainState // nil: no domain is warmed
}

// Local is an Admin that works on a queue in this process.
type Local struct{ opt Options }

var _ Admin = (*Local)(nil)

// New returns an Admin for a queue that is open in this process. It need not be closed.
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
	var mails map[string]int
	if err == nil {
		mails, err = l.opt.Queue.Accounts(ctx)
	}
	s.Accounts = l.accounts(v, mails)
	for _, a := range v.all() {
		for _, d := range a.warming {
			s.Warming = append(s.Warming, v.warmingOf(a.name, d))
		}
	}
	if l.opt.Relays != nil {
		s.Relays, _ = l.opt.Relays(ctx) // what fails of the store is told below
	}
	if l.opt.LastDay != nil {
		if d, err := l.opt.LastDay(ctx, v.now.Add(-24*time.Hour)); err == nil {
			s.LastDay = &d
		}
	}
	var more []Warning
	if l.opt.Warnings != nil {
		more = l.opt.Warnings(ctx, v.now)
	}
	v.full = slices.ContainsFunc(more, func(w Warning) bool { return w.Full })
	s.Warnings = v.warnings(s)
	if err != nil {
		s.Warnings = append(s.Warnings, Warning{Level: LevelTrouble, Cause: CauseQueueUnread, What: "it is not known what waits", Why: "the queue cannot be read: " + text(err.Error()),
			Do: "see to the storage; the relay goes on by itself"})
	}
	s.Warnings = append(s.Warnings, more...)
	sortWarnings(s.Warnings)
	s.State, s.Summary = v.judge(s)
	return s, nil
}

// view returns the state of the relay now.
func (l *Local) view() view {
	_, unkept := l.opt.Queue.(noQueue)
	v := view{now: time.Now(), unkept: unkept}
	if l.opt.Pace != nil {
		v.running, v.pace = true, l.opt.Pace()
		v.others = map[string]accountView{}
		for _, a := range l.opt.Others {
			of := accountView{name: a.Name, pace: a.Pace()}
			if a.Warming != nil {
				of.warming = a.Warming(v.now)
			}
			v.others[a.Name] = of
		}
	}
	if l.opt.Warming != nil {
		v.warming = l.opt.Warming(v.now)
	}
	return v
}

// accounts says how each account is, where there are several: those of a running relay
// first, and those that nothing but mail in the queue is of.
func (l *Local) accounts(v view, mails map[string]int) []Account {
	if len(l.opt.Others) == 0 && len(mails) == 0 {
		return nil
	}
	list := []Account{{Name: relay.DefaultAccount}}
	if v.running {
		list[0].Pace = paceOf(v.pace)
	}
	for _, a := range l.opt.Others {
		list = append(list, Account{Name: a.Name, Mails: mails[a.Name], Pace: paceOf(v.others[a.Name].pace)})
		delete(mails, a.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(mails)) {
		list = append(list, Account{Name: text(name), Mails: mails[name]})
	}
	return list
}

// List implements Admin.
func (l *Local) List(ctx context.Context, f Filter) (Page, error) {
	qf, err := f.queue()
	if err != nil {
		return Page{}, err
	}
	entries, cursor, err := l.opt.Queue.List(ctx, qf)
	if errors.Is(err, queue.ErrCursor) {
		err = fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
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

// leftOut maps a mail that is still kept, as the next attempt would.
func (l *Local) leftOut(ctx context.Context, m queue.Mail) []history.LeftOut {
	if l.opt.LeftOut == nil || m.Damaged || !slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return r.State != queue.Sent }) {
		return nil
	}
	r, err := l.opt.Queue.Raw(ctx, m.Message.ID)
	if err != nil {
		return nil // sent meanwhile, or damaged: the mail says so
	}
	defer func() { _ = r.Close() }()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil
	}
	return l.opt.LeftOut(raw, m.Message)
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
		return nil, &worded{"the content of " + id + " is not kept any more", queue.ErrNotFound}
	}
	return l.Raw(ctx, full)
}

// find is Get for an id that may be shortened.
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

// complete returns the only id that begins with a prefix.
func (l *Local) complete(ctx context.Context, prefix string) (string, error) {
	var ids []string
	for e, err := range l.entries(ctx, queue.Filter{ID: prefix}) {
		if err != nil {
			return "", err
		}
		if id := e.Mail.Message.ID; len(ids) == 0 || ids[len(ids)-1] != id { // the recipients of a mail are next to each other
			ids = append(ids, id)
		}
		if len(ids) > maxCandidates {
			break
		}
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
		if err := l.recordRetry(ctx, qf); err != nil {
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

// Reassign implements Admin. A running relay refuses an account that it has not: its mail
// would wait for ever.
func (l *Local) Reassign(ctx context.Context, f Filter, account string) (int, error) {
	account = accountKey(account)
	known := []string{""}
	for _, a := range l.opt.Others {
		known = append(known, a.Name)
	}
	if l.opt.Pace == nil {
		known = nil
	}
	if err := checkAccount(known, account); err != nil {
		return 0, err
	}
	return l.change(ctx, "reassign to "+relay.AccountName(account), f, func(ctx context.Context, qf queue.Filter) (int, error) {
		return l.opt.Queue.Reassign(ctx, qf, account)
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

// change changes many recipients. All changes go through it, so that none of them takes
// an empty filter.
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

// recordRetry records the recipients that failed and are tried again.
func (l *Local) recordRetry(ctx context.Context, f queue.Filter) error {
	if len(f.States) > 0 && !slices.Contains(f.States, queue.Failed) {
		return nil
	}
	f.States = []queue.State{queue.Failed}
	for e, err := range l.entries(ctx, f) {
		if err != nil {
			return err
		}
		if !e.Mail.Damaged { // it cannot be retried
			l.opt.History.Note(history.OperatorRetried{ID: e.Mail.Message.ID, To: e.Recipient.Addr, At: time.Now()})
		}
	}
	return nil
}

// entries lists the recipients in the queue that match, page by page.
func (l *Local) entries(ctx context.Context, f queue.Filter) iter.Seq2[queue.Entry, error] {
	f.Limit = MaxPage
	return pages("", func(cursor string) ([]queue.Entry, string, error) {
		f.Cursor = cursor
		return l.opt.Queue.List(ctx, f)
	})
}

// logDrop logs everyone who is about to be dropped. Nobody else is told, so without this
// line nothing would say what became of the mail. It may log a recipient that is sent at
// the same moment, and so is not dropped; then the line about that follows.
func (l *Local) logDrop(ctx context.Context, f queue.Filter) error {
	if len(f.States) == 0 {
		f.States = []queue.State{queue.Waiting, queue.Claimed, queue.Held, queue.Failed}
	}
	for e, err := range l.entries(ctx, f) {
		switch {
		case err != nil:
			return err
		case e.Recipient.State == queue.Sent: // Drop leaves it alone
			continue
		}
		l.opt.Log.Warn("recipient", "id", e.Mail.Message.ID, "from", e.Mail.Message.From, "to", e.Recipient.Addr,
			"session", e.Mail.Message.Client.Session, "outcome", "dropped", "was", e.Recipient.State.String(), "attempts", e.Recipient.Attempts)
		l.opt.History.Note(history.OperatorDropped{ID: e.Mail.Message.ID, To: e.Recipient.Addr, At: time.Now()})
	}
	return nil
}

// ErrNoQueue says that the relay keeps no queue.
var ErrNoQueue = errors.New(`this relay keeps no queue (queue.mode = "none")`)

// noQueue is the queue of a relay that keeps none.
type noQueue struct{}

func (noQueue) Get(context.Context, string) (queue.Mail, error)    { return queue.Mail{}, ErrNoQueue }
func (noQueue) Raw(context.Context, string) (io.ReadCloser, error) { return nil, ErrNoQueue }
func (noQueue) Hold(context.Context, queue.Filter) (int, error)    { return 0, ErrNoQueue }
func (noQueue) Release(context.Context, queue.Filter) (int, error) { return 0, ErrNoQueue }
func (noQueue) Drop(context.Context, queue.Filter) (int, error)    { return 0, ErrNoQueue }
func (noQueue) Stats(context.Context) (queue.Stats, error)         { return queue.Stats{}, nil }
func (noQueue) Accounts(context.Context) (map[string]int, error)   { return nil, nil }
func (noQueue) Reassign(context.Context, queue.Filter, string) (int, error) {
	return 0, ErrNoQueue
}
func (noQueue) Retry(context.Context, queue.Filter, time.Time) (int, error) {
	return 0, ErrNoQueue
}

func (noQueue) List(context.Context, queue.Filter) ([]queue.Entry, string, error) {
	return nil, "", ErrNoQueue
}
