// Package nexuspromail implements the provider NexusProMail: how a mail is written
// for its API, where calls go, what answers mean, how events are signed and read, and
// how endpoints for them are registered. Only relay/app chooses it; nothing else
// knows it. The sandbox in the package below plays the vendor.
package nexuspromail

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// Endpoint says where mail is sent to. internal/settings explains the tags, here and
// below.
type Endpoint struct {
	URL  string `toml:"url" default:"https://app.nexuspromail.com/api" check:"url" env:"NEXUSPROMAIL_API_URL" doc:"The base URL of the API."`
	Path string `toml:"path" default:"/v1/transactional/send" check:"path" doc:"The path of the call that sends a mail, below url."`
}

// Registration says where endpoints for events are registered.
type Registration struct {
	RegisterPath string `toml:"register_path" default:"/v1/api/webhooks" check:"path" doc:"The path of the call that registers the endpoint, below api.url."`
}

// Options configure a Client.
type Options struct {
	Endpoint
	Key       string
	UserAgent string
	httpcall.Timeouts
	Concurrency int    // idle connections to keep
	ExtraCAs    []byte // PEM certificates to trust beside the system's

	Metrics prometheus.Registerer // nil: none

	// Dial, if set, replaces the network, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client sends mail. It is safe for concurrent use.
type Client struct{ *httpcall.Client }

var _ provider.Client = (*Client)(nil)

// New returns a Client. It makes no connection.
func New(o Options) (*Client, error) {
	c, err := httpcall.New(o.calls())
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// Prepare returns a function that puts other options into force, except Metrics.
// Calls under way end as they began.
func (c *Client) Prepare(o Options) (apply func(), err error) { return c.Client.Prepare(o.calls()) }

func (o Options) calls() httpcall.Options {
	return httpcall.Options{
		URL:      strings.TrimRight(o.URL, "/") + "/" + strings.TrimLeft(o.Path, "/"),
		Classify: classify,
		Secret:   o.Key,
		Header: func(h http.Header, r provider.Request) {
			h.Set("Authorization", "Bearer "+o.Key)
			h.Set("Content-Type", "application/json")
			h.Set("Accept", "application/json")
			if o.UserAgent != "" {
				h.Set("User-Agent", o.UserAgent)
			}
			if r.IdempotencyKey != "" {
				h.Set("Idempotency-Key", r.IdempotencyKey)
			}
		},
		Timeouts: o.Timeouts, Concurrency: o.Concurrency,
		ExtraCAs: o.ExtraCAs, Metrics: o.Metrics, Dial: o.Dial,
	}
}
