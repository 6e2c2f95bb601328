package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/forward"
)

// Forwards is what is to be posted to the endpoints of [[forward]]. Like Admin it has two
// implementations: LocalForwards and Client.
type Forwards interface {
	// ListForwards returns one page, in the order in which the events came. Next leads to
	// the next one.
	ListForwards(ctx context.Context, f ForwardFilter) (ForwardPage, error)
	// RetryForwards makes events due now, dead letters too; DropForwards removes them.
	// They return how many, and fail with ErrNothingSelected if the filter is empty and
	// is not All.
	RetryForwards(ctx context.Context, f ForwardFilter) (int, error)
	DropForwards(ctx context.Context, f ForwardFilter) (int, error)
}

// Forward is one event that an endpoint has not taken. Scripts read it, like the types in
// types.go.
type Forward struct {
	Endpoint string          `json:"endpoint"`
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	State    string          `json:"state"` // ForwardWaiting or ForwardDead
	Created  time.Time       `json:"created"`
	Tries    int             `json:"tries"`
	Due      time.Time       `json:"due,omitzero"` // when it is tried again; missing: when its turn comes
	Why      string          `json:"why,omitempty"`
	Event    json.RawMessage `json:"event"` // as it is posted
}

// The states of an event that an endpoint has not taken.
const (
	ForwardWaiting = "waiting"
	ForwardDead    = "dead"
)

// ForwardFilter selects events. They match all fields that are set.
type ForwardFilter struct {
	Endpoint string `json:"endpoint,omitempty"`
	ID       string `json:"id,omitempty"`
	Dead     bool   `json:"dead,omitempty"`  // dead letters alone
	All      bool   `json:"all,omitempty"`   // needed to change everything
	Limit    int    `json:"limit,omitempty"` // events on a page; 0 is 1000, the most
	After    string `json:"after,omitempty"` // ForwardPage.Next
}

// selects reports whether the filter is narrower than everything.
func (f ForwardFilter) selects() bool { return f.Endpoint != "" || f.ID != "" || f.Dead }

// ForwardPage is one page of a list.
type ForwardPage struct {
	Entries []Forward `json:"entries"`
	Next    string    `json:"next,omitempty"` // "" at the end
}

// AllForwards lists everything that matches, page by page. An error is the last thing it
// yields.
func AllForwards(ctx context.Context, o Forwards, f ForwardFilter) iter.Seq2[Forward, error] {
	return pages(f.After, func(after string) ([]Forward, string, error) {
		f.After = after
		page, err := o.ListForwards(ctx, f)
		return page.Entries, page.Next, err
	})
}

// LocalForwards works on a store in this process.
type LocalForwards struct {
	store   forward.Store // nil: nothing is kept
	changed func()
}

var (
	_ Forwards = (*LocalForwards)(nil)
	_ Forwards = (*Client)(nil)
)

// NewForwards returns Forwards for a store that is open in this process; nil is one that
// has nothing. changed, if it is set, is called when something became due.
func NewForwards(s forward.Store, changed func()) *LocalForwards {
	return &LocalForwards{s, changed}
}

// ListForwards implements Forwards.
func (l *LocalForwards) ListForwards(ctx context.Context, f ForwardFilter) (ForwardPage, error) {
	page := ForwardPage{Entries: []Forward{}}
	if l.store == nil {
		return page, nil
	}
	limit := f.Limit
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	var after int64
	if f.After != "" {
		var err error
		if after, err = strconv.ParseInt(f.After, 10, 64); err != nil {
			return page, fmt.Errorf("%w: %s is no place in the list", ErrBadRequest, text(f.After))
		}
	}
	items, err := l.store.ListForwards(ctx, forward.Filter{Endpoint: f.Endpoint, ID: f.ID, Dead: f.Dead, Limit: limit, After: after})
	if err != nil {
		return page, err
	}
	for _, i := range items {
		page.Entries = append(page.Entries, forwardOf(i))
	}
	if len(items) == limit {
		page.Next = strconv.FormatInt(items[limit-1].Seq, 10)
	}
	return page, nil
}

func forwardOf(i forward.Item) Forward {
	one := Forward{Endpoint: i.Endpoint, ID: i.ID, Type: i.Type, State: ForwardWaiting, Created: i.Created, Tries: i.Tries, Due: utc(i.Due), Why: text(i.Why), Event: i.Body}
	if i.Dead {
		one.State, one.Due = ForwardDead, time.Time{}
	}
	return one
}

// RetryForwards implements Forwards.
func (l *LocalForwards) RetryForwards(ctx context.Context, f ForwardFilter) (int, error) {
	return l.change(f, func(sf forward.Filter) (int, error) { return l.store.RetryForwards(ctx, sf, time.Now()) })
}

// DropForwards implements Forwards.
func (l *LocalForwards) DropForwards(ctx context.Context, f ForwardFilter) (int, error) {
	return l.change(f, func(sf forward.Filter) (int, error) { return l.store.DropForwards(ctx, sf) })
}

func (l *LocalForwards) change(f ForwardFilter, change func(forward.Filter) (int, error)) (int, error) {
	switch {
	case !f.selects() && !f.All:
		return 0, ErrNothingSelected
	case l.store == nil:
		return 0, nil
	}
	n, err := change(forward.Filter{Endpoint: f.Endpoint, ID: f.ID, Dead: f.Dead})
	if l.changed != nil {
		l.changed()
	}
	return n, err
}

// changedForwards is the result of a change.
type changedForwards struct {
	Events int `json:"events"`
}

// handleForwards passes calls on to Forwards. Client makes them.
func handleForwards(mux *http.ServeMux, f Forwards) {
	handle(mux, "forward/list", f.ListForwards)
	for name, change := range map[string]func(context.Context, ForwardFilter) (int, error){"retry": f.RetryForwards, "drop": f.DropForwards} {
		handle(mux, "forward/"+name, func(ctx context.Context, in ForwardFilter) (changedForwards, error) {
			n, err := change(ctx, in)
			return changedForwards{n}, err
		})
	}
}

// ListForwards implements Forwards.
func (c *Client) ListForwards(ctx context.Context, f ForwardFilter) (ForwardPage, error) {
	return call[ForwardPage](ctx, c, "forward/list", f)
}

// RetryForwards implements Forwards.
func (c *Client) RetryForwards(ctx context.Context, f ForwardFilter) (int, error) {
	out, err := call[changedForwards](ctx, c, "forward/retry", f)
	return out.Events, err
}

// DropForwards implements Forwards.
func (c *Client) DropForwards(ctx context.Context, f ForwardFilter) (int, error) {
	out, err := call[changedForwards](ctx, c, "forward/drop", f)
	return out.Events, err
}
