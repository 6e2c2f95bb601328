package app

import (
	"context"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// eventsKept is how long an event is known again where less history is kept:
// the provider may send it more than once.
const eventsKept = 3 * 24 * time.Hour

// buildSuppressions reads who is suppressed, before anything can ask.
func (p *parts) buildSuppressions(ctx context.Context) error {
	p.suppressed = p.records
	if p.records == nil {
		p.suppressed = suppress.NewMemory(0)
	}
	o := suppress.Options{
		Store:        p.suppressed,
		Expire:       p.opt.Config.Suppression.Expire,
		Forget:       max(p.opt.Config.History.Keep, eventsKept),
		Unsubscribed: p.opt.Config.Webhook.SuppressUnsubscribed,
		Log:          p.opt.Log,
		Metrics:      p.metrics,
	}
	p.suppressions = suppress.New(o)
	if err := p.suppressions.Start(ctx); err != nil {
		return fmt.Errorf("suppressions: %w", err)
	}
	p.onStop(func(context.Context) error { p.suppressions.Stop(); return nil })
	return nil
}

// buildWebhook opens the endpoint for the provider's events, if there is to be
// one. It comes last: mail is there before the news of it.
func (p *parts) buildWebhook(ctx context.Context) error {
	c := p.opt.Config.Webhook
	if c.Address == "" {
		return nil
	}
	server := webhook.NewServer(webhook.ServerOptions{
		Address: c.Address, CertFile: c.CertFile, KeyFile: c.KeyFile, Log: p.opt.Log,
		Handler: webhook.NewHandler(webhook.Options{
			Secrets: c.Secrets(), Path: c.Path, Taker: p.suppressions, Log: p.opt.Log, Metrics: p.metrics,
		}),
	})
	if err := server.Start(ctx); err != nil {
		return err
	}
	p.webhook = server
	p.onStop(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, webhookDrain)
		defer cancel()
		return server.Stop(ctx)
	})
	p.opt.Log.Info("listening for events", "address", server.Addr().String(), "path", c.Path, "tls", c.CertFile != "")
	return nil
}

// webhookDrain is how long the end waits for events under way: they are small.
const webhookDrain = 3 * time.Second
