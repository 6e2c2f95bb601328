// Package admin is the operator's side of a relay: what waits, since when and
// why, and what to do about it. One interface, Admin, has two implementations:
// Local works on a relay/queue in this process, and Client asks a daemon over
// its unix socket, where Server passes the calls on to a Local. So a command
// cannot tell, nor drift from, what the daemon does.
package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Errors to be told apart with errors.Is, besides those of relay/queue. They
// cross the socket.
var (
	// ErrNothingSelected: a change to many recipients was asked for with a
	// filter that is empty and does not say All.
	ErrNothingSelected = errors.New("nothing is selected: name a filter, or say that all is meant")
	// ErrAmbiguous: the beginning of an id leads to several mails; see
	// AmbiguousError.
	ErrAmbiguous = errors.New("several mails begin like this")
	// ErrNotSuppressed: the address is not on the list.
	ErrNotSuppressed = errors.New("not suppressed")
	// ErrNotTaken: a configuration is wrong, and the one from before stays.
	ErrNotTaken = errors.New("the configuration was not taken; the one from before stays in force")
	// ErrBadRequest: the request makes no sense; its text says why.
	ErrBadRequest = errors.New("the request is not valid")
)

// Admin is what an operator can do.
type Admin interface {
	// Status says how the relay stands.
	Status(ctx context.Context) (Status, error)

	// List returns one page of recipients, in the order their mails came.
	// Follow Page.Cursor, or let All do it.
	List(ctx context.Context, f Filter) (Page, error)

	// Get returns one mail with the history of its recipients. The id may be
	// shortened to a beginning that only one mail has; an *AmbiguousError
	// names the candidates otherwise.
	Get(ctx context.Context, id string) (Mail, error)

	// Raw returns a mail as it came; the id as for Get. What was read is whole
	// only if it ended with io.EOF. The reader must be closed.
	Raw(ctx context.Context, id string) (io.ReadCloser, error)

	// Hold, Release, Retry and Drop are those of relay/queue and say to how
	// many recipients they applied, with an error as well: they work in steps.
	// They look at Filter.All but not at its Limit and Cursor.
	Hold(ctx context.Context, f Filter) (int, error)
	Release(ctx context.Context, f Filter) (int, error)
	Retry(ctx context.Context, f Filter) (int, error)
	Drop(ctx context.Context, f Filter) (int, error)

	// Flush makes all that waits due now. The account's rate and a pause that
	// the API asked for are kept all the same.
	Flush(ctx context.Context) (int, error)

	// Reload has the daemon read its configuration again and go on with it, or
	// with the old one and ErrNotTaken, which says what is wrong. Of a daemon
	// that does not run it is ErrNotRunning.
	Reload(ctx context.Context) (Reload, error)
}

// Reload is what came of one.
type Reload struct {
	Changes  []Change `json:"changes"`
	Warnings []string `json:"warnings,omitempty"` // of the configuration that is in force now
}

// Change is one setting that has another value now. Secrets are not shown.
type Change struct {
	Setting string `json:"setting"`
	Old     string `json:"old"`
	New     string `json:"new"`
}

// Filter selects recipients; they must match all fields that are set.
type Filter struct {
	ID        string    `json:"id,omitempty"`     // a mail's id or the beginning of one
	States    []string  `json:"states,omitempty"` // names of queue.State: "waiting", "sending", ...
	Sender    string    `json:"sender,omitempty"`
	Recipient string    `json:"recipient,omitempty"`
	From      time.Time `json:"from,omitzero"`  // received at this time or later
	Until     time.Time `json:"until,omitzero"` // received before it

	// All is needed to change everything: a forgotten filter must not.
	All bool `json:"all,omitempty"`

	Limit  int    `json:"limit,omitempty"` // entries on a page; 0 is 100; 1000 at most
	Cursor string `json:"cursor,omitempty"`
}

// Selects reports whether the filter leaves anything out.
func (f Filter) Selects() bool {
	return f.ID != "" || len(f.States) > 0 || f.Sender != "" || f.Recipient != "" || !f.From.IsZero() || !f.Until.IsZero()
}

// AmbiguousError names mails whose ids begin with Prefix, in the order in
// which they came.
type AmbiguousError struct {
	Prefix string
	IDs    []string
	More   bool // there are more than those
}

func (e *AmbiguousError) Error() string {
	list := strings.Join(e.IDs, ", ")
	if e.More {
		list += " and more"
	}
	return fmt.Sprintf("several mails begin with %q: %s", e.Prefix, list)
}

// Is makes errors.Is(err, ErrAmbiguous) true.
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }

// MaxPage is the most entries that one page can have.
const MaxPage = 1000

// All lists everything that matches, page by page, so that memory does not grow
// with the queue. An error is the last thing it yields. f.Limit is the size of a
// page; 0 is the largest.
func All(ctx context.Context, a Admin, f Filter) iter.Seq2[Entry, error] {
	f.Limit = cmp.Or(f.Limit, MaxPage)
	return pages(f.Cursor, func(cursor string) ([]Entry, string, error) {
		f.Cursor = cursor
		page, err := a.List(ctx, f)
		return page.Entries, page.Cursor, err
	})
}

// pages yields the entries of one page after the other. next returns a page and
// the cursor of the one after it.
func pages[E any](cursor string, next func(cursor string) ([]E, string, error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		for {
			entries, following, err := next(cursor)
			if err != nil {
				var none E
				yield(none, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if cursor = following; cursor == "" {
				return
			}
		}
	}
}
