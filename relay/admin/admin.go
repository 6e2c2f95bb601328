// Package admin is the operator's side of a relay: what waits, since when and why, and
// what to do about it. The interface Admin has two implementations. Local works on a
// queue in this process. Client asks a daemon through its unix socket, where Server
// passes the calls on to a Local. So a command does the same with both.
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

// Errors for errors.Is, in addition to those of relay/queue. Client returns them as well
// as Local.
var (
	// ErrNothingSelected says that the filter of a change is empty and is not All.
	ErrNothingSelected = errors.New("nothing is selected: name a filter, or say that all is meant")
	// ErrAmbiguous says that several ids begin in this way; see AmbiguousError.
	ErrAmbiguous = errors.New("several mails begin like this")
	// ErrNotSuppressed says that the address is not on the list.
	ErrNotSuppressed = errors.New("not suppressed")
	// ErrNotTaken says that a configuration is wrong. The one from before stays.
	ErrNotTaken = errors.New("the configuration was not taken; the one from before stays in force")
	// ErrBadRequest says that a request is not valid; the text says why.
	ErrBadRequest = errors.New("the request is not valid")
)

// Admin is what an operator can do.
type Admin interface {
	// Status says how the relay is.
	Status(ctx context.Context) (Status, error)

	// List returns one page of recipients, in the order their mails came.
	// Page.Cursor leads to the next one; All follows it.
	List(ctx context.Context, f Filter) (Page, error)

	// Get returns one mail with the attempts for its recipients. The beginning of an
	// id is enough. If several mails begin like it, the *AmbiguousError names them.
	Get(ctx context.Context, id string) (Mail, error)

	// Raw returns a mail as it came; id is as for Get. The mail is complete only when
	// the reader ends with io.EOF. The reader must be closed.
	Raw(ctx context.Context, id string) (io.ReadCloser, error)

	// Hold, Release, Retry and Drop are those of relay/queue. They return the number
	// of changed recipients, also with an error, because they work in steps. They
	// ignore Limit and Cursor of the filter.
	Hold(ctx context.Context, f Filter) (int, error)
	Release(ctx context.Context, f Filter) (int, error)
	Retry(ctx context.Context, f Filter) (int, error)
	Drop(ctx context.Context, f Filter) (int, error)

	// Reassign gives mails to another account and says how many it moved. They are
	// those that have an open or failed recipient that matches.
	Reassign(ctx context.Context, f Filter, account string) (int, error)

	// Flush makes everything that waits due now. The account's rate and a pause that
	// the API asked for still hold.
	Flush(ctx context.Context) (int, error)

	// Reload makes the daemon read its configuration again. When the configuration is
	// wrong, the old one stays and the error is ErrNotTaken with the reasons. When no
	// daemon runs, it is ErrNotRunning.
	Reload(ctx context.Context) (Reload, error)
}

// Reload is the result of Admin.Reload.
type Reload struct {
	Changes  []Change `json:"changes"`
	Warnings []string `json:"warnings,omitempty"` // of the new configuration
}

// Change is one setting that changed. Secrets are not shown.
type Change struct {
	Setting string `json:"setting"`
	Old     string `json:"old"`
	New     string `json:"new"`
}

// Filter selects recipients. They match all fields that are set.
type Filter struct {
	ID        string    `json:"id,omitempty"`     // a mail's id or the beginning of one
	States    []string  `json:"states,omitempty"` // names of queue.State: "waiting", "sending", ...
	Sender    string    `json:"sender,omitempty"`
	Recipient string    `json:"recipient,omitempty"`
	Account   string    `json:"account,omitempty"` // "default" is the default one
	From      time.Time `json:"from,omitzero"`     // received at this time or later
	Until     time.Time `json:"until,omitzero"`    // received before it

	// All is needed to change everything, in case somebody forgot the filter.
	All bool `json:"all,omitempty"`

	Limit  int    `json:"limit,omitempty"` // entries on a page; 0 is 100; 1000 at most
	Cursor string `json:"cursor,omitempty"`
}

// Selects reports whether the filter is narrower than everything.
func (f Filter) Selects() bool {
	return f.ID != "" || len(f.States) > 0 || f.Sender != "" || f.Recipient != "" || f.Account != "" || !f.From.IsZero() || !f.Until.IsZero()
}

// AmbiguousError names mails whose ids begin with Prefix, in the order in which they
// came.
type AmbiguousError struct {
	Prefix string
	IDs    []string
	More   bool // there are more
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
