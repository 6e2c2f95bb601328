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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// The address of the API, and paths below it.
const (
	DefaultURL          = "https://app.nexuspromail.com/api"
	DefaultPath         = "/v1/transactional/send"
	DefaultRegisterPath = "/v1/api/webhooks"
)

// Options configure a Client.
type Options struct {
	URL            string // base, such as DefaultURL
	Path           string // below the base, such as DefaultPath
	Key            string
	UserAgent      string
	Timeout        time.Duration // of a whole call; default 10 s
	ConnectTimeout time.Duration // of dialling, and of TLS; default 5 s
	Concurrency    int           // idle connections to keep; default 32
	ExtraCAs       []byte        // PEM certificates to trust beside the system's

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
		Timeout: o.Timeout, ConnectTimeout: o.ConnectTimeout, Concurrency: o.Concurrency,
		ExtraCAs: o.ExtraCAs, Metrics: o.Metrics, Dial: o.Dial,
	}
}
