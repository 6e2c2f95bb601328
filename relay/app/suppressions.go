package app

import (
	"context"
	"fmt"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// buildRecords opens what is known besides mail. Without a queue there is no
// data directory, and all of it is forgotten with the process.
func (p *parts) buildRecords(context.Context) error {
	c := p.opt.Config.Queue
	if c.Mode == config.NoQueue {
		return nil
	}
	store, err := records.Open(records.Options{Dir: c.DataDir, MinFree: c.MinFree, Log: p.opt.Log, Metrics: p.metrics})
	if err != nil {
		return p.dataDirError(err)
	}
	p.records = store
	p.onStop(func(context.Context) error { return store.Close() })
	return nil
}

// buildSuppressions reads who is suppressed, before anything can ask.
func (p *parts) buildSuppressions(ctx context.Context) error {
	o := suppress.Options{
		Expire:       p.opt.Config.Suppression.Expire,
		Unsubscribed: p.opt.Config.Webhook.SuppressUnsubscribed,
		Log:          p.opt.Log,
		Metrics:      p.metrics,
	}
	if p.records != nil {
		o.Store = p.records
	}
	p.suppressions = suppress.New(o)
	if err := p.suppressions.Start(ctx); err != nil {
		return fmt.Errorf("suppressions: %w", err)
	}
	p.onStop(func(context.Context) error { p.suppressions.Stop(); return nil })
	return nil
}
