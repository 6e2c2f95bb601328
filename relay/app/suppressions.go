package app

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// eventsKept is how long an event is known again where less history is kept:
// the provider may send it more than once.
const eventsKept = 3 * 24 * time.Hour

func suppressSettings(c *config.Config) suppress.Settings {
	s := c.Suppression
	s.Forget, s.Unsubscribed = max(c.History.Keep, eventsKept), c.Webhook.SuppressUnsubscribed
	return s
}

// buildSuppressions reads who is suppressed, before anything can ask.
func (p *parts) buildSuppressions(ctx context.Context) error {
	p.suppressed = p.records
	if p.records == nil {
		p.suppressed = suppress.NewMemory(0)
	}
	p.suppressions = suppress.New(suppress.Options{
		Settings: suppressSettings(p.config()),
		Store:    p.suppressed,
		Log:      p.opt.Log,
		Metrics:  p.metrics,
	})
	if err := p.suppressions.Start(ctx); err != nil {
		return fmt.Errorf("suppressions: %w", err)
	}
	p.onStop(func(context.Context) error { p.suppressions.Stop(); return nil })
	return nil
}

// webhookSettings are what the endpoint for events takes.
func webhookSettings(c *config.Config) any {
	w := c.Webhook
	return []any{w.Address, w.CertFile, w.KeyFile, eventSettings(c)}
}

func eventSettings(c *config.Config) webhook.Settings {
	return webhook.Settings{Secrets: c.Webhook.Secrets(), Path: c.Webhook.Path}
}

// buildEvents makes what takes the provider's events, before operators can ask
// how it stands.
func (p *parts) buildEvents(context.Context) error {
	p.events = webhook.NewHandler(webhook.Options{
		Settings: eventSettings(p.config()),
		Provider: Events(),
		Taker:    p.suppressions,
		Log:      p.opt.Log,
		Metrics:  p.metrics,
	})
	p.tell(func(_ context.Context, now time.Time) []admin.Note { return eventNotes(p.events.Standing(), now) })
	return nil
}

// buildWebhook opens the endpoint for the provider's events, if there is to be
// one. It comes last: mail is there before the news of it.
func (p *parts) buildWebhook(ctx context.Context) error {
	p.webhook = newEndpoint("webhook.address")
	ready, err := p.prepareWebhook(ctx, p.config())
	if err != nil {
		return err
	}
	p.onStop(p.webhook.stop)
	ready.apply()
	return nil
}

func (p *parts) prepareWebhook(ctx context.Context, c *config.Config) (change, error) {
	w := c.Webhook
	var settings any = w.Address
	if w.CertFile != "" {
		settings = nil // what is in the files may be new
	}
	ready, err := p.webhook.prepare(ctx, w.Address, settings, func(ln net.Listener) webServer {
		return webhook.NewServer(webhook.ServerOptions{Listener: ln, CertFile: w.CertFile, KeyFile: w.KeyFile, Log: p.opt.Log, Handler: p.events})
	})
	if err != nil {
		return change{}, err
	}
	events, err := p.events.Prepare(eventSettings(c))
	if err != nil {
		return change{}, err
	}
	serve := ready.apply
	ready.apply = func() {
		before := p.webhook.addr()
		events()
		serve()
		if at := p.webhook.addr(); at != nil && at != before {
			p.opt.Log.Info("listening for events", "address", at.String(), "path", w.Path, "tls", w.CertFile != "")
		}
	}
	return ready, nil
}

const (
	// forgedFor is how long nothing but forgeries may come before somebody
	// should compare secrets, and forgedMany how many they must be: anybody can
	// send some.
	forgedFor  = 10 * time.Minute
	forgedMany = 5
	// forgedOld is when they are no news any more.
	forgedOld = 6 * time.Hour
)

// eventNotes tell of an endpoint that learns nothing.
func eventNotes(s webhook.Standing, now time.Time) []admin.Note {
	var notes []admin.Note
	if s.Unkept != nil {
		notes = append(notes, admin.Note{Level: admin.LevelTrouble, What: "the provider's events cannot be kept, and it was told to send them again", Why: s.Unkept.Error(), Since: s.UnkeptSince.Round(0).UTC(),
			Do: "see to the disk of queue.data_dir; mail is not affected, but addresses that bounce are not learnt"})
	}
	if s.Forged >= forgedMany && now.Sub(s.ForgedSince) >= forgedFor && now.Sub(s.ForgedLast) < forgedOld {
		notes = append(notes, admin.Note{Level: admin.LevelWarning, What: "the provider's events may be refused",
			Why: fmt.Sprintf("%d requests to the webhook in a row had no good signature", s.Forged), Since: s.ForgedSince.Round(0).UTC(),
			Do: "see that webhook.secret_file has the provider's secret; 'smtp2rest webhook register' gets a new one, and 'smtp2rest reload' takes it"})
	}
	return notes
}
