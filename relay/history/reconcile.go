package history

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Reconciliation brings the history in line with the queue after a crash, which
// may have lost the history's last moment: a recipient that was sent just before
// it would be shown as waiting for ever.
type Reconciliation struct {
	Store  Store
	Queued func(ctx context.Context, id string) (queue.Mail, error)
	Noter  Noter
	// Before is when this process started. Of mail that came later nothing is
	// lost yet.
	Before time.Time
}

const (
	// reconcileStep is how many recipients are looked at without a rest.
	reconcileStep = 200
	reconcileGap  = 20 * time.Millisecond
)

// Run looks at each recipient that waits by the history, until ctx ends. Where
// the queue knows how it ended, that is noted; one that the queue does not have
// becomes Unknown. It says how many it settled.
func (r Reconciliation) Run(ctx context.Context) (settled int, err error) {
	q := Query{States: []State{Waiting}, Until: r.Before, Limit: reconcileStep}
	for {
		page, cursor, err := r.Store.Find(ctx, q)
		if err != nil {
			return settled, err
		}
		for _, m := range page {
			done, err := r.recipient(ctx, m.ID, m.Recipients[0].Addr)
			if err != nil {
				return settled, err
			}
			if done {
				settled++
			}
		}
		if q.Cursor = cursor; cursor == "" {
			return settled, nil
		}
		select {
		case <-time.After(reconcileGap):
		case <-ctx.Done():
			return settled, ctx.Err()
		}
	}
}

// recipient settles one, if it does not really wait.
func (r Reconciliation) recipient(ctx context.Context, id, addr string) (settled bool, err error) {
	m, err := r.Queued(ctx, id)
	if err != nil && !errors.Is(err, queue.ErrNotFound) {
		return false, err
	}
	for _, q := range m.Recipients {
		if suppress.Normalise(q.Addr) != suppress.Normalise(addr) {
			continue
		}
		if q.State.Open() || !q.Ended.Before(r.Before) {
			return false, nil // how it ends is noted by whoever ends it
		}
		r.noteEnd(m, q)
		return true, nil
	}
	// It may have been settled in the meantime, and the fact be on its way: the
	// store changes only what waits, and the fact overrides it.
	return true, r.Store.MarkUnknown(ctx, id, addr, r.Before)
}

// noteEnd notes what the queue says of a recipient that ended.
func (r Reconciliation) noteEnd(m queue.Mail, q queue.Recipient) {
	if n := len(q.History); n > 0 {
		last := q.History[n-1].Outcome
		if last.Kind == relay.Accepted || last.Kind.Permanent() {
			r.Noter.Note(Tried{ID: m.Message.ID, From: m.Message.From, To: q.Addr, Number: q.Attempts, Outcome: last, At: q.Ended})
			return
		}
	}
	r.Noter.Note(GaveUp{ID: m.Message.ID, From: m.Message.From, To: q.Addr, Why: "the queue had given it up when the relay ended", At: q.Ended})
}
