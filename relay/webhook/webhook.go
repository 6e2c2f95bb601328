// Package webhook takes the provider's signed events: it checks the signature
// over the raw body before it looks at anything, has the event kept, and only
// then answers 200. What an event teaches is relay/suppress's business, and
// what became of a mail relay/history's; both read what is kept here.
package webhook

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// MaxBody is the largest body that is taken. An event has some 400 bytes.
const MaxBody = 256 << 10

// Taker keeps events. *suppress.List does.
type Taker interface {
	// Take returns when the event is durable. It is not fresh if it was taken
	// before, and then changes nothing.
	Take(ctx context.Context, e relay.Event) (fresh bool, err error)
}

// Options are what a Handler is made from.
type Options struct {
	Settings
	Provider provider.Events
	Taker    Taker
	Log      *slog.Logger          // nil: none
	Metrics  prometheus.Registerer // may be nil
}
