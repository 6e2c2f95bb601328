package endpoint

import (
	"net"
	"net/url"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// URL is the configured endpoint as this machine reaches it.
func URL(w config.Webhook) string {
	host, port, _ := net.SplitHostPort(w.Address) // config has checked it
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	scheme := "http"
	if w.CertFile != "" {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: w.Path}).String()
}
