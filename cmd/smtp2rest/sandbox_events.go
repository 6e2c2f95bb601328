package main

import (
	"crypto/rand"

	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/sandbox"
)

// withEvents gives a relay before a sandbox an endpoint for the sandbox's
// events, unless its configuration has one.
func withEvents(cfg *config.Config) {
	if cfg.Webhook.Address == "" {
		cfg.Webhook.Address, cfg.Webhook.CertFile = "127.0.0.1:0", ""
	}
	if !cfg.Webhook.Secret.IsSet() {
		cfg.Webhook.Secret = config.NewSecret("whsec_" + rand.Text())
	}
}

// tellEvents has the sandbox send its events to the relay, as the provider
// does after 'webhook register'.
func tellEvents(box *sandbox.Server, daemon *app.App, w config.Webhook) {
	w.Address = daemon.WebhookAddr().String()
	box.SetWebhook(sandbox.Webhook{URL: endpointURL(w), Secret: w.Secret.Reveal()})
}
