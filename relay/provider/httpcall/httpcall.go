// Package httpcall makes one HTTP call to a provider: one request in, one
// relay.Outcome out. It knows whether a request may have been acted on. The vendor's
// package says what an answer means. relay/attempt and others decide when to call and
// what to do with the outcome.
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
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// API is what a vendor's calls have in common.
type API struct {
	// Header sets the headers of a call.
	Header func(h http.Header, c provider.Connection, r provider.Request)
	// Classify turns an answer into an outcome.
	Classify func(status int, header http.Header, body []byte, now time.Time) relay.Outcome
}

// Client makes calls. It is safe for concurrent use.
type Client struct {
	api     API
	target  atomic.Pointer[target] // of calls that begin now
	metrics *metrics
}

// target is where and how calls are made. It does not change.
type target struct {
	provider.Connection
	endpoint  string
	http      *http.Client
	transport *http.Transport
}

var _ provider.AccountClient = (*Client)(nil)

// New returns a Client. It makes no connection.
func New(api API, to provider.Connection) (*Client, error) {
	t, err := newTarget(to)
	if err != nil {
		return nil, err
	}
	c := &Client{api: api, metrics: newMetrics(to.Metrics)}
	c.target.Store(t)
	return c, nil
}

// Prepare implements provider.AccountClient.
func (c *Client) Prepare(to provider.Connection) (apply func(), err error) {
	t, err := newTarget(to)
	if err != nil {
		return nil, err
	}
	return func() {
		before := c.target.Swap(t)
		before.transport.CloseIdleConnections()
	}, nil
}

func newTarget(c provider.Connection) (*target, error) {
	endpoint, err := url.Parse(c.Address())
	if err != nil {
		return nil, fmt.Errorf("the API's address: %w", err)
	}
	roots, err := trusted(c.ExtraCAs)
	if err != nil {
		return nil, err
	}
	transport := newTransport(c, roots)
	return &target{
		Connection: c,
		endpoint:   endpoint.String(),
		transport:  transport,
		http: &http.Client{
			Transport: transport,
			// A redirected POST would lose its body or carry the key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// newTransport keeps one idle connection for each call that can be under way. With
// Go's default of 2 for each host, half of the calls would need a new connection. It
// uses HTTP/1.1, which over TLS does about twice as many calls a second as HTTP/2.
func newTransport(c provider.Connection, roots *x509.CertPool) *http.Transport {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial,
		Protocols:             http1,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   c.ConnectTimeout,
		ResponseHeaderTimeout: c.Timeout,
		MaxIdleConns:          c.Concurrency,
		MaxIdleConnsPerHost:   c.Concurrency,
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
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var written atomic.Bool // the transport sets it in another goroutine
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { written.Store(info.Err == nil) },
	})
	out := c.call(ctx, t, r, &written)
	out.Detail, out.MessageID = t.withoutSecret(out.Detail), t.withoutSecret(out.MessageID)
	out.Took = time.Since(start)
	c.metrics.called(out)
	return out
}

// withoutSecret removes the API key from an answer that repeats the request's header,
// so that it gets into no log and no reply.
func (t *target) withoutSecret(words string) string {
	if len(t.Key) < 8 {
		return words // no provider's key is so short, and it may be a common word
	}
	return strings.ReplaceAll(words, t.Key, "[the API key]")
}

func (c *Client) call(ctx context.Context, t *target, r provider.Request, written *atomic.Bool) relay.Outcome {
	req, err := c.newRequest(ctx, t, r)
	if err != nil {
		return relay.Outcome{Kind: relay.Unavailable, Cause: err}
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return noAnswer(err, written.Load())
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or given up
	body, err := readBody(resp.Body)
	if err != nil {
		out := noAnswer(fmt.Errorf("reading the answer: %w", err), true)
		out.Status = resp.StatusCode
		return out
	}
	return c.api.Classify(resp.StatusCode, resp.Header, body, time.Now())
}

func (c *Client) newRequest(ctx context.Context, t *target, r provider.Request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint, r.Body.Open(r.To))
	if err != nil {
		return nil, err
	}
	req.ContentLength = r.Body.Len(r.To)
	// GetBody lets net/http try a fresh connection if a kept-alive one was closed
	// before a byte was written. That is not an attempt.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(r.Body.Open(r.To)), nil }
	c.api.Header(req.Header, t.Connection, r)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		// Lower case on purpose. If net/http finds the header under its canonical
		// name, it may repeat a request whose connection broke after it was written,
		// without our knowledge (transport.go, isReplayable). We do not know whether
		// the API honours the key, and every attempt must be recorded. Field names
		// have no case (RFC 9110, section 5.1).
		if values := req.Header.Values(name); len(values) > 0 {
			req.Header.Del(name)
			req.Header[strings.ToLower(name)] = values
		}
	}
	return req, nil
}

// noAnswer returns the outcome of a call without an answer. If the request was never
// fully written, the API cannot have acted on it.
func noAnswer(err error, written bool) relay.Outcome {
	if written {
		return relay.Outcome{Kind: relay.Ambiguous, Cause: err}
	}
	return relay.Outcome{Kind: relay.Unavailable, Cause: err}
}

// An answer is one line of JSON. A body above maxBody is no answer of this API. Up to
// maxDrain of it are read, so that the connection can be used again.
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
		// If draining fails, that costs a connection and not the outcome.
		_, _ = io.CopyN(io.Discard, r, maxDrain)
	}
	return body, nil
}

// Once makes a request other than a mail, on a connection of its own, and returns the
// answer's first maxBody bytes.
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
		if e, ok := errors.AsType[*url.Error](err); ok { // without POST and the address, which the caller adds
			err = e.Err
		}
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or given up
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, text, err
}

// noStatus is the status label of a call without an answer.
const noStatus = "none"

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		calls: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_api_calls_total",
			Help: "Calls to the API, by outcome and by the class of the HTTP status (none: no answer). " +
				"Every attempt that was really made is one call.",
		}, []string{"outcome", "status"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smtp2rest_api_call_seconds",
			Help: "How long whole calls to the API took, by outcome. " +
				"Calls that end near api.timeout timed out.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"outcome"}),
	}
	for _, kind := range relay.Kinds() {
		for _, status := range statuses(kind) {
			m.calls.WithLabelValues(kind.String(), status)
		}
		m.seconds.WithLabelValues(kind.String())
	}
	return m
}

// statuses returns the classes that a call with this outcome can have, by Classify and
// noAnswer.
func statuses(kind relay.Kind) []string {
	switch kind {
	case relay.Accepted:
		return []string{"2xx"}
	case relay.Ambiguous:
		return []string{noStatus, "2xx", "3xx", "4xx", "5xx"}
	case relay.Unavailable:
		return []string{noStatus, "1xx", "3xx", "4xx", "5xx"}
	default:
		return []string{"4xx"}
	}
}

// statusClass returns a status as a label. A status outside the classes of HTTP counts
// as 5xx: the server is broken.
func statusClass(status int) string {
	switch {
	case status == 0:
		return noStatus
	case status >= 100 && status < 500:
		return string(rune('0'+status/100)) + "xx"
	default:
		return "5xx"
	}
}

func (m *metrics) called(out relay.Outcome) {
	m.calls.WithLabelValues(out.Kind.String(), statusClass(out.Status)).Inc()
	m.seconds.WithLabelValues(out.Kind.String()).Observe(out.Took.Seconds())
}
