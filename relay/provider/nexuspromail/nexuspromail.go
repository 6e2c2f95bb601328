// Package nexuspromail is the provider NexusProMail: how a mail is written for its
// API, where calls go, what its answers mean, how it signs and words its events,
// and how endpoints for those are registered. Nothing else in the house knows it,
// but for relay/app, which chooses it. The sandbox below plays the vendor.
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

// Where the API is, and its calls below that.
const (
	DefaultURL          = "https://app.nexuspromail.com/api"
	DefaultPath         = "/v1/transactional/send"
	DefaultRegisterPath = "/v1/api/webhooks"
)

// Options are what a Client is made from.
type Options struct {
	URL            string // base; such as DefaultURL
	Path           string // below the base; such as DefaultPath
	Key            string
	UserAgent      string
	Timeout        time.Duration // for one whole call; default 10 s
	ConnectTimeout time.Duration // for dialling and for TLS, each; default 5 s
	Concurrency    int           // idle connections kept; default 32
	ExtraCAs       []byte        // PEM certificates trusted beside the system's

	Metrics prometheus.Registerer // nil: none

	// Dial, if set, replaces the network: tests in virtual time use a pipe.
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

// Prepare makes ready to go on with other options, of which Metrics counts for
// nothing; apply does it. Calls that are under way end as they began.
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
