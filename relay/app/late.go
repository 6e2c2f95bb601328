package app

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// written is the record of the history, with a Flush that writes the facts which still wait
// in memory.
type written struct {
	store.Records
	recorder *history.Recorder
}

// Flush implements deliver.Records.
func (w written) Flush(ctx context.Context) error { return w.recorder.Flush(ctx) }

// taker takes the provider's events, and tells senders of mail that bounced late.
type taker struct {
	account string
	*suppress.List
	engine    *deliver.Engine    // nil without a queue
	forwarder *forward.Forwarder // nil where no events are kept
}

// Take implements webhook.Taker. An event that came before is looked at as well: a crash
// or a full disk may have kept its sender, or an application, from being told.
func (t taker) Take(ctx context.Context, e relay.Event) (fresh bool, err error) {
	e.Account = t.account
	fresh, err = t.List.Take(ctx, e)
	if err == nil && t.engine != nil {
		err = t.engine.Late(ctx, e)
	}
	if err == nil && t.forwarder != nil {
		err = t.forwarder.Outbox().Take(ctx, e)
	}
	return fresh, err
}
