package config

import (
	"net"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// Suppression is how long what the provider says of an address is believed.
type Suppression struct {
	Expire time.Duration
}

// Webhook is where the provider's events come in, and what proves that they
// are the provider's.
type Webhook struct {
	Address  string // host:port; "" is no endpoint
	Path     string // begins with a slash
	CertFile string // PEM; "" without TLS
	KeyFile  string

	Secret             Secret
	SecretFile         string // as written; what is in it is in Secret
	PreviousSecret     Secret
	PreviousSecretFile string // as written

	SuppressUnsubscribed bool
	RegisterPath         string // of the call that registers, below api.url
}

// Secrets are those with which events may be signed; none without an endpoint.
func (w Webhook) Secrets() []string {
	var all []string
	for _, s := range []Secret{w.Secret, w.PreviousSecret} {
		if s.IsSet() {
			all = append(all, s.Reveal())
		}
	}
	return all
}

func suppressionSettings(s *Suppression) []setting {
	return []setting{
		{path: "suppression.expire", value: timeValue{&s.Expire, time.Minute, 3650 * day}, def: "30d",
			doc: "How long what was learnt is believed. Afterwards the API is asked again: the\nprovider's list is the one that counts. What an operator adds stays."},
	}
}

func webhookSettings(w *Webhook) []setting {
	return []setting{
		{path: "webhook.address", value: textValue{&w.Address, checkWebhookAddress}, def: "",
			doc: "Address and port for the provider's events, as in \"127.0.0.1:8026\"; \"\" is none. The\nprovider must reach it: through a proxy in front of it, or by https with cert_file."},
		{path: "webhook.path", value: textValue{&w.Path, checkPath}, def: "/webhook",
			doc: "The path at which it takes events."},
		{path: "webhook.cert_file", value: textValue{&w.CertFile, nil}, def: "",
			doc: "The certificate and those between it and its root, in PEM, to speak https. It is read\nagain when it changes. A relative path starts at the directory of this file."},
		{path: "webhook.key_file", value: textValue{&w.KeyFile, nil}, def: "",
			doc: "The certificate's key, in PEM."},
		{path: "webhook.secret", value: secretValue{&w.Secret, webhookSecret()}, env: webhookSecret().env,
			doc: "What the provider signs events with. It is a secret and not set in the file."},
		{path: "webhook.secret_file", value: textValue{&w.SecretFile, checkSecretPath}, def: "",
			doc: "File that holds this secret: a path that begins with /, or with ./ for the directory\nof this file. 'smtp2rest webhook register' writes it."},
		{path: "webhook.previous_secret", value: secretValue{&w.PreviousSecret, previousWebhookSecret()}, env: previousWebhookSecret().env,
			doc: "The secret before it, which is taken as well while the provider changes from one to\nthe other. It is a secret and not set in the file."},
		{path: "webhook.previous_secret_file", value: textValue{&w.PreviousSecretFile, checkSecretPath}, def: "",
			doc: "File that holds the secret before it, if there was one; 'webhook register' writes it."},
		{path: "webhook.suppress_unsubscribed", value: flagValue{&w.SuppressUnsubscribed}, def: false,
			doc: "Refuses mail to who unsubscribed. Without it they are only marked: a receipt or a\npassword reset may still be due to them."},
		{path: "webhook.register_path", value: textValue{&w.RegisterPath, checkPath}, def: nexuspromail.DefaultRegisterPath,
			doc: "The path of the call that registers the endpoint, below api.url."},
	}
}

func previousWebhookSecret() secretSource {
	return secretSource{"webhook.previous_secret", "WEBHOOK_SECRET_PREVIOUS", "webhook.previous_secret_file", []string{"webhook_secret_previous"}}
}

// checkWebhookAddress takes host:port, or nothing.
func checkWebhookAddress(s string) error {
	if s == "" {
		return nil
	}
	return checkAddress(s)
}

func (l *loader) deriveWebhook() {
	w := &l.cfg.Webhook
	w.CertFile, w.KeyFile = l.fromFile(w.CertFile), l.fromFile(w.KeyFile)
}

func (l *loader) validateWebhook() {
	w := &l.cfg.Webhook
	if w.Address == "" || l.bad["webhook.address"] {
		return
	}
	if !w.Secret.IsSet() && !l.secretRefused(webhookSecret()) && !l.src.NoWebhookSecret {
		l.problem("webhook.address", "is set, and webhook.secret is not: anybody could send events; %s. 'smtp2rest webhook register' gets one from the provider", l.ways(webhookSecret()))
	}
	l.validateWebhookTLS(w)
	if l.cfg.Queue.Mode == NoQueue {
		l.warn("webhook.address: queue.mode is \"none\", so that what events teach is forgotten when the relay is restarted")
	}
}

func (l *loader) validateWebhookTLS(w *Webhook) {
	switch {
	case w.CertFile == "" && w.KeyFile == "":
		if host, _, err := net.SplitHostPort(w.Address); err == nil && !loopbackHost(host) {
			l.warn("webhook.address: %s can be reached by others, and without cert_file what events say of your recipients can be read on the way", w.Address)
		}
	case w.CertFile == "":
		l.problem("webhook.cert_file", "is not set, and webhook.key_file is; set both or neither")
	case w.KeyFile == "":
		l.problem("webhook.key_file", "is not set, and webhook.cert_file is; set both or neither")
	default:
		l.validatePair("webhook", w.CertFile, w.KeyFile)
	}
}
