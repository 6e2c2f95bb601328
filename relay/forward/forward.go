// Package forward tells applications what becomes of mail: the provider's events and
// what the relay itself decides are posted, as signed JSON, to the addresses of
// [[forward]]. Outbox makes events and stores them; Forwarder posts what is stored, each
// endpoint by itself: one that is down, or slow, holds up no other.
//
// Events of one mail reach an endpoint in their order. An event is posted until the
// endpoint takes it, so it may come twice, under the same id. One that the endpoint
// refuses for good becomes a dead letter, which an operator retries or drops.
package forward

import (
	"context"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Endpoint is one address that is told. internal/settings explains the tags.
type Endpoint struct {
	Name          string        `toml:"name" check:"forward name" example:"\"crm\"" doc:"The name, of small letters, digits and hyphens. It must be set: what waits is kept by it."`
	URL           string        `toml:"url" check:"hook url" example:"\"https://crm.example.com/mail-events\"" doc:"The address to which events are posted. It must be set."`
	AllowInsecure bool          `toml:"allow_insecure" doc:"Allows an http:// URL on another machine. What is posted can then be read on the way."`
	Events        []string      `toml:"events" check:"event types" doc:"The types of events that are posted, as in [\"relay.failed\", \"provider.bounced.hard\"] (docs/forward.md). None: all."`
	Headers       []string      `toml:"headers" check:"header names" doc:"Header fields of the mail that are told with its events, as in [\"X-Order-Id\"]. They are kept in the history."`
	MaxPending    int           `toml:"max_pending" default:"10000" range:"1..1000000" doc:"The most events that may wait for this endpoint, dead letters included. More are lost, and counted."`
	Timeout       time.Duration `toml:"timeout" default:"10s" range:"100ms..1m" doc:"The longest time for one call."`
}

// wants reports whether events of a type are posted.
func (e Endpoint) wants(kind string) bool {
	return len(e.Events) == 0 || slices.Contains(e.Events, kind)
}

// The types of events of our own. Those of the provider are its word behind Provider.
const (
	Sent     = "relay.sent"    // the API took it
	Queued   = "relay.queued"  // it waits in the queue, and its client was told so
	Failed   = "relay.failed"  // it is given up
	Refused  = "relay.refused" // the client was told no, for good
	Bounced  = "relay.bounced" // the sender was told that it failed
	Dropped  = "relay.dropped" // by an operator
	Provider = "provider."     // "provider.delivered"
	unjoined = "message_id:"   // instead of the id of a mail that is not ours
	maxName  = 32
)

// Types returns all types of events.
func Types() []string {
	types := []string{Sent, Queued, Failed, Refused, Bounced, Dropped}
	for _, t := range relay.EventTypes() {
		types = append(types, Provider+t)
	}
	return types
}

// Item is one event for one endpoint.
type Item struct {
	Seq      int64  // the order of arrival; the store gives it
	Endpoint string // a name
	ID       string // of the event
	Type     string
	Mail     string // items of one mail go out in order
	Address  string // the recipient, normalised
	Body     []byte // what is posted
	Created  time.Time

	Tries int
	Due   time.Time // when to try again
	Dead  bool      // it is not tried any more
	Why   string    // what the last try came to
}

// Filter selects items; they must match all fields that are set.
type Filter struct {
	Endpoint string
	ID       string // of the event
	Dead     bool   // dead letters alone
	Limit    int    // of a list; 0 is all
	After    int64  // of a list: only those with a greater Seq
}

// Count is how many items an endpoint has.
type Count struct {
	Pending, Dead int64
	Oldest        time.Time // of the pending ones
}

// Store keeps items. It is safe for concurrent use.
type Store interface {
	// AddForwards stores items durably and in this order. One whose ID its Endpoint has
	// already is left as it is. An endpoint that most names has no more items than that:
	// the latest are left out, and counted in lost.
	AddForwards(ctx context.Context, items []Item, most map[string]int) (lost map[string]int, err error)
	// DueForwards returns up to limit items of an endpoint that are due and not dead, in
	// their order, of each mail only the first that is not dead; and when the next item
	// of such is due, the zero time if there is none.
	DueForwards(ctx context.Context, endpoint string, now time.Time, limit int) (items []Item, next time.Time, err error)
	// SettleForwards removes those of the items that are Done, and sets Tries, Due, Dead
	// and Why of the others.
	SettleForwards(ctx context.Context, settled []Settled) error

	ListForwards(ctx context.Context, f Filter) ([]Item, error)
	// RetryForwards makes items due at now, with no tries; DropForwards removes them.
	RetryForwards(ctx context.Context, f Filter, now time.Time) (int, error)
	DropForwards(ctx context.Context, f Filter) (int, error)
	// CountForwards counts the items of each endpoint that has any.
	CountForwards(ctx context.Context) (map[string]Count, error)
}

// Settled is an item after a try.
type Settled struct {
	Item
	Done bool
}
