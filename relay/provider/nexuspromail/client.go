// Package nexuspromail is the client of the provider's REST API: one request in, one
// relay.Outcome out. It is the only place that knows HTTP status codes. When
// to call, and what becomes of the outcome, is for relay/attempt and above.
package nexuspromail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/smtp2rest/smtp2rest/relay"
)

// Options are what a Client is made from.
type Options struct {
	URL            string // base, such as https://app.nexuspromail.com/api
	Path           string // below the base, such as /v1/transactional/send
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

// Client is safe for concurrent use.
type Client struct {
	target  atomic.Pointer[target] // for calls that begin now
	metrics *metrics
}

// target is where calls go, and how. It does not change.
type target struct {
	endpoint  string
	bearer    string
	userAgent string
	timeout   time.Duration
	http      *http.Client
	transport *http.Transport
}

// Request is one call: one recipient's JSON.
type Request struct {
	IdempotencyKey string           // the same for every attempt at this recipient
	Open           func() io.Reader // the body, from its start
	Size           int64            // of the body, in bytes
}

// New returns a Client. It makes no connection.
func New(o Options) (*Client, error) {
	t, err := newTarget(o)
	if err != nil {
		return nil, err
	}
	c := &Client{metrics: newMetrics(o.Metrics)}
	c.target.Store(t)
	return c, nil
}

// Prepare makes ready to go on with other options, of which Metrics counts for
// nothing; apply does it. Calls that are under way end as they began.
func (c *Client) Prepare(o Options) (apply func(), err error) {
	t, err := newTarget(o)
	if err != nil {
		return nil, err
	}
	return func() {
		before := c.target.Swap(t)
		before.transport.CloseIdleConnections()
	}, nil
}

func newTarget(o Options) (*target, error) {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 32
	}
	endpoint, err := url.Parse(strings.TrimRight(o.URL, "/") + "/" + strings.TrimLeft(o.Path, "/"))
	if err != nil {
		return nil, fmt.Errorf("the API's address: %w", err)
	}
	roots, err := trusted(o.ExtraCAs)
	if err != nil {
		return nil, err
	}
	transport := newTransport(o, roots)
	return &target{
		endpoint:  endpoint.String(),
		bearer:    "Bearer " + o.Key,
		userAgent: o.UserAgent,
		timeout:   o.Timeout,
		transport: transport,
		http: &http.Client{
			Transport: transport,
			// A redirected POST would lose its body or carry the key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// newTransport keeps as many idle connections as there can be calls at once;
// with Go's default of 2 per host half the calls pay for a new connection.
// HTTP/1.1 because over TLS it does about twice HTTP/2's calls per second.
func newTransport(o Options, roots *x509.CertPool) *http.Transport {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial,
		Protocols:             http1,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   o.ConnectTimeout,
		ResponseHeaderTimeout: o.Timeout,
		MaxIdleConns:          o.Concurrency,
		MaxIdleConnsPerHost:   o.Concurrency,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // answers are a line long
		WriteBufferSize:       32 << 10,
	}
}

func trusted(pem []byte) (*x509.CertPool, error) {
	if len(pem) == 0 {
		return nil, nil // the system's
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the extra CA file holds no PEM certificate")
	}
	return roots, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.target.Load().transport.CloseIdleConnections() }

// Send makes one call. It never retries: what happened is in the outcome, and
// an error always is an outcome too. ctx cancels the call; the client's own
// time-out bounds it.
func (c *Client) Send(ctx context.Context, r Request) relay.Outcome {
	start, t := time.Now(), c.target.Load()
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var written atomic.Bool // the transport tells from a goroutine of its own
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { written.Store(info.Err == nil) },
	})
	out := t.call(ctx, r, &written)
	out.Detail, out.MessageID = t.withoutKey(out.Detail), t.withoutKey(out.MessageID)
	out.Took = time.Since(start)
	c.metrics.called(out)
	return out
}

// withoutKey keeps an answer that repeats the request's header from carrying
// the key into a log or a reply.
func (t *target) withoutKey(words string) string {
	key := strings.TrimPrefix(t.bearer, "Bearer ")
	if len(key) < 8 {
		return words // a word like any other; no provider's key is so short
	}
	return strings.ReplaceAll(words, key, "[the API key]")
}

func (t *target) call(ctx context.Context, r Request, written *atomic.Bool) relay.Outcome {
	req, err := t.newRequest(ctx, r)
	if err != nil {
		return relay.Outcome{Kind: relay.Unavailable, Cause: err}
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return noAnswer(err, written.Load())
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up: nothing to learn
	body, err := readBody(resp.Body)
	if err != nil {
		out := noAnswer(fmt.Errorf("reading the answer: %w", err), true)
		out.Status = resp.StatusCode
		return out
	}
	return classify(resp.StatusCode, resp.Header, body, time.Now())
}

func (t *target) newRequest(ctx context.Context, r Request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint, r.Open())
	if err != nil {
		return nil, err
	}
	req.ContentLength = r.Size
	// GetBody lets net/http try again on a fresh connection when a kept-alive
	// one turned out closed before a byte was written, which is no attempt.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(r.Open()), nil }
	req.Header.Set("Authorization", t.bearer)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if t.userAgent != "" {
		req.Header.Set("User-Agent", t.userAgent)
	}
	if r.IdempotencyKey != "" {
		// Lower case on purpose. Under its canonical name net/http takes the
		// header as leave to send a request again, unseen by us, after it was
		// written and the connection broke (transport.go, isReplayable). Whether
		// this API honours the key is not documented, and an attempt that we did
		// not record must not happen. Field names have no case (RFC 9110, 5.1).
		req.Header["idempotency-key"] = []string{r.IdempotencyKey}
	}
	return req, nil
}

// noAnswer tells a request that was never fully written, which the API cannot
// have acted on, from one that was and may have been.
func noAnswer(err error, written bool) relay.Outcome {
	if written {
		return relay.Outcome{Kind: relay.Ambiguous, Cause: err}
	}
	return relay.Outcome{Kind: relay.Unavailable, Cause: err}
}

// Answers are a line of JSON. What is longer than maxBody is no answer of this
// API; up to maxDrain of it are read so that the connection can be used again.
const (
	maxBody  = 64 << 10
	maxDrain = 256 << 10
)

func readBody(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxBody))
	if err != nil {
		return nil, err
	}
	if len(body) == maxBody {
		// Failing to drain costs a connection, never the outcome.
		_, _ = io.CopyN(io.Discard, r, maxDrain)
	}
	return body, nil
}
