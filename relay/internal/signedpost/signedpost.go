// Package signedpost posts JSON to an address of the operator, signed so that the
// receiver can tell that it is ours. relay/notify and relay/forward use it; they decide
// when to post, and when to post again.
package signedpost

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// SignatureHeader is the header with the signature of the body.
const SignatureHeader = "X-SMTP2REST-Signature"

// Sign returns the signature of a body: its HMAC-SHA256 in lower-case hex, as the
// provider signs its events, so that one handler can check both.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Options are what a Client is made from.
type Options struct {
	UserAgent string
	// Dial, if it is set, replaces the network, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client posts. It is safe for concurrent use.
type Client struct {
	agent string
	http  *http.Client
}

const (
	connectTimeout = 5 * time.Second
	idleTimeout    = 90 * time.Second
	// atOnce is how many connections to a host are kept, for as many calls at once.
	atOnce = 4
	// maxAnswer bounds what is read of an answer, and maxWords what is shown of it.
	maxAnswer = 16 << 10
	maxWords  = 200
)

// New returns a Client. It makes no connection. It speaks HTTP/1.1: with a dialler of its
// own a Transport offers HTTP/2 only by ForceAttemptHTTP2, and for a few calls at once
// that each end by themselves, one connection that all of them share is no gain.
func New(o Options) *Client {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	return &Client{agent: o.UserAgent, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dial,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: connectTimeout,
			IdleConnTimeout:     idleTimeout,
			MaxIdleConnsPerHost: atOnce,
		},
		// What is posted is for this address alone. Another one has to be configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Target is where to post to.
type Target struct {
	URL     string
	Secret  string
	Timeout time.Duration // of one whole call
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Status     int
	Words      string        // the beginning of the answer, in one line
	RetryAfter time.Duration // what the answer asks for; 0: nothing
}

func (e *StatusError) Error() string {
	switch {
	case e.Status >= 300 && e.Status < 400:
		return fmt.Sprintf("HTTP %d: it redirects, which is not followed; write the address itself", e.Status)
	case e.Words == "":
		return fmt.Sprintf("HTTP %d", e.Status)
	}
	return fmt.Sprintf("HTTP %d: %s", e.Status, e.Words)
}

// Post makes one call. Any answer of 2xx is a success. No error has the address or the
// secret in it: the path of an address may be a secret as well.
func (c *Client) Post(ctx context.Context, to Target, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, to.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set(SignatureHeader, Sign(to.Secret, body))
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or given up
	words, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	return &StatusError{Status: resp.StatusCode, Words: line([]byte(strings.ReplaceAll(string(words), to.Secret, "[the secret]"))), RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
}

// retryAfter reads the header of that name (RFC 9110 section 10.2.3) as seconds.
func retryAfter(s string) time.Duration {
	d, err := time.ParseDuration(s + "s")
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// line is the beginning of an answer, without line breaks and what does not print.
func line(words []byte) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(words), "")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > maxWords {
		n := maxWords
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return s
}
