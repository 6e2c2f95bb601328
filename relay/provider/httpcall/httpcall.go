// Package httpcall makes one call to a provider over HTTP: one request in, one
// relay.Outcome out. It knows when a request may have been acted on and when it
// was not; what an answer means is the vendor's. When to call, and what becomes
// of the outcome, is for relay/attempt and above.
package httpcall

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
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// Options are what a Client is made from.
type Options struct {
	URL string // that calls are posted to

	// Header sets what a call says besides its body.
	Header func(h http.Header, r provider.Request)
	// Classify turns an answer into an outcome.
	Classify func(status int, header http.Header, body []byte, now time.Time) relay.Outcome
	// Secret is never in an outcome, whatever the answer repeats.
	Secret string

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
	opt       Options
	endpoint  string
	http      *http.Client
	transport *http.Transport
}

var _ provider.Client = (*Client)(nil)

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
	endpoint, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the API's address: %w", err)
	}
	roots, err := trusted(o.ExtraCAs)
	if err != nil {
		return nil, err
	}
	transport := newTransport(o, roots)
	return &target{
		opt:       o,
		endpoint:  endpoint.String(),
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

// Send implements provider.Client.
func (c *Client) Send(ctx context.Context, r provider.Request) relay.Outcome {
	start, t := time.Now(), c.target.Load()
	ctx, cancel := context.WithTimeout(ctx, t.opt.Timeout)
	defer cancel()
	var written atomic.Bool // the transport tells from a goroutine of its own
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { written.Store(info.Err == nil) },
	})
	out := t.call(ctx, r, &written)
	out.Detail, out.MessageID = t.withoutSecret(out.Detail), t.withoutSecret(out.MessageID)
	out.Took = time.Since(start)
	c.metrics.called(out)
	return out
}

// withoutSecret keeps an answer that repeats the request's header from carrying
// the key into a log or a reply.
func (t *target) withoutSecret(words string) string {
	if len(t.opt.Secret) < 8 {
		return words // a word like any other; no provider's key is so short
	}
	return strings.ReplaceAll(words, t.opt.Secret, "[the API key]")
}

func (t *target) call(ctx context.Context, r provider.Request, written *atomic.Bool) relay.Outcome {
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
	return t.opt.Classify(resp.StatusCode, resp.Header, body, time.Now())
}

func (t *target) newRequest(ctx context.Context, r provider.Request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint, r.Body.Open(r.To))
	if err != nil {
		return nil, err
	}
	req.ContentLength = r.Body.Len(r.To)
	// GetBody lets net/http try again on a fresh connection when a kept-alive
	// one turned out closed before a byte was written, which is no attempt.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(r.Body.Open(r.To)), nil }
	t.opt.Header(req.Header, r)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		// Lower case on purpose. Under its canonical name net/http takes the
		// header as leave to send a request again, unseen by us, after it was
		// written and the connection broke (transport.go, isReplayable). Whether
		// an API honours the key is for it to say, and an attempt that we did not
		// record must not happen. Field names have no case (RFC 9110, 5.1).
		if values := req.Header.Values(name); len(values) > 0 {
			req.Header.Del(name)
			req.Header[strings.ToLower(name)] = values
		}
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

// Once makes a request that is not mail on a connection of its own, and reads
// what comes back, of which nothing real is long.
func Once(req *http.Request, extraCAs []byte) (*http.Response, []byte, error) {
	roots, err := trusted(extraCAs)
	if err != nil {
		return nil, nil, err
	}
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it says POST and the address once more
			err = e.Err
		}
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up: nothing to learn
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, text, err
}
