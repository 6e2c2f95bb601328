// Package nexuspromail implements the provider NexusProMail: how a mail is written
// for its API, where calls go, what answers mean, how events are signed and read, and
// how endpoints for them are registered. Only provider/vendors knows it. The sandbox in
// the package below plays the vendor.
package nexuspromail

import (
	"net/http"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// Vendor returns the vendor, with the server that plays it.
func Vendor(sandbox func(provider.SandboxOptions) provider.Sandbox) provider.Vendor {
	return provider.Vendor{
		Name:         "nexuspromail",
		URL:          "https://app.nexuspromail.com/api",
		Path:         "/v1/transactional/send",
		RegisterPath: "/v1/api/webhooks",
		Settings:     func() provider.Settings { return new(Format) },
		Client:       func(c provider.Connection) (provider.AccountClient, error) { return New(c) },
		Events:       Events{},
		Registrar:    func(c provider.Connection) provider.Registrar { return Registrar{c} },
		Sandbox:      sandbox,
	}
}

// New returns a Client. It makes no connection.
func New(c provider.Connection) (*httpcall.Client, error) {
	return httpcall.New(httpcall.API{Header: setHeader, Classify: classify}, c)
}

func setHeader(h http.Header, c provider.Connection, r provider.Request) {
	h.Set("Authorization", "Bearer "+c.Key)
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json")
	if c.UserAgent != "" {
		h.Set("User-Agent", c.UserAgent)
	}
	if r.IdempotencyKey != "" {
		h.Set("Idempotency-Key", r.IdempotencyKey)
	}
}
