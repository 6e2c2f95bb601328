package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// Client is an Admin that asks a daemon. It keeps no connections, so it need not be
// closed.
type Client struct {
	network, address string // of the daemon
	token            string
	account          string // whose suppressions are meant
	http             *http.Client
}

var (
	_ Admin   = (*Client)(nil)
	_ History = (*Client)(nil)
)

// clientHost is the name of the daemon in the requests of a Client.
const clientHost = "smtp2rest"

// Dial returns a Client for the daemon that answers on a socket. It fails with
// ErrNotRunning when none answers, and with fs.ErrPermission.
func Dial(ctx context.Context, path string) (*Client, error) {
	return dial(ctx, &Client{network: "unix", address: path})
}

// DialTCP is Dial for the daemon's admin.address and its token, which may be empty.
func DialTCP(ctx context.Context, address, token string) (*Client, error) {
	return dial(ctx, &Client{network: "tcp", address: address, token: token})
}

func dial(ctx context.Context, c *Client) (*Client, error) {
	c.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c, conn.Close()
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, dialError(c.address, err)
	}
	return conn, nil
}

// post makes one call. The body of the response must be closed.
func (c *Client) post(ctx context.Context, name string, in any) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+clientHost+prefix+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(ctx, req)
}

func (c *Client) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	return resp, nil
}

// lost explains a broken connection to a person.
func (c *Client) lost(ctx context.Context, err error) error {
	var post *url.Error // its text has a URL that nobody typed
	if errors.As(err, &post) {
		err = post.Err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the daemon on %s ended while it answered: %w", c.address, err)
	}
	return err
}

// call makes a call that handle answers.
func call[Out any](ctx context.Context, c *Client, name string, in any) (Out, error) {
	var out answer[Out]
	resp, err := c.post(ctx, name, in)
	if err != nil {
		return out.Result, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := c.decode(ctx, resp, &out); err != nil {
		return out.Result, err
	}
	return out.Result, out.Error.err()
}

func (c *Client) decode(ctx context.Context, resp *http.Response, into any) error {
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
		return fmt.Errorf("the daemon on %s is of another version: it answered %s", c.address, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return c.lost(ctx, err)
	}
	return nil
}

// Ask reads a page, such as Livez, and returns its text. When the daemon is not well,
// the text is also in the error.
func (c *Client) Ask(ctx context.Context, page string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+clientHost+page, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.do(ctx, req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return "", c.lost(ctx, err)
	}
	said := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return said, errors.New(said)
	}
	return said, nil
}

// Status implements Admin.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "status", struct{}{})
}

// List implements Admin.
func (c *Client) List(ctx context.Context, f Filter) (Page, error) {
	return call[Page](ctx, c, "list", f)
}

// Get implements Admin.
func (c *Client) Get(ctx context.Context, id string) (Mail, error) {
	return call[Mail](ctx, c, "get", named{id})
}

// Hold implements Admin.
func (c *Client) Hold(ctx context.Context, f Filter) (int, error) { return c.change(ctx, "hold", f) }

// Release implements Admin.
func (c *Client) Release(ctx context.Context, f Filter) (int, error) {
	return c.change(ctx, "release", f)
}

// Retry implements Admin.
func (c *Client) Retry(ctx context.Context, f Filter) (int, error) { return c.change(ctx, "retry", f) }

// Drop implements Admin.
func (c *Client) Drop(ctx context.Context, f Filter) (int, error) { return c.change(ctx, "drop", f) }

// Reassign implements Admin.
func (c *Client) Reassign(ctx context.Context, f Filter, account string) (int, error) {
	return c.change(ctx, "reassign", reassigning{f, account})
}

// Flush implements Admin.
func (c *Client) Flush(ctx context.Context) (int, error) {
	return c.change(ctx, "flush", struct{}{})
}

func (c *Client) change(ctx context.Context, name string, in any) (int, error) {
	out, err := call[changed](ctx, c, name, in)
	return out.Recipients, err
}

// Find implements History.
func (c *Client) Find(ctx context.Context, q history.Query) (Found, error) {
	return call[Found](ctx, c, "history/find", q)
}

// Trace implements History.
func (c *Client) Trace(ctx context.Context, q history.Query) (Traced, error) {
	return call[Traced](ctx, c, "history/trace", q)
}

// Forget implements History.
func (c *Client) Forget(ctx context.Context, r ForgetRequest) (Forgotten, error) {
	return call[Forgotten](ctx, c, "history/forget", r)
}

// Raw implements Admin.
func (c *Client) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	resp, err := c.post(ctx, "raw", named{id})
	if err != nil {
		return nil, err
	}
	if resp.Header.Get("Content-Type") == rawType {
		return &rawReader{body: resp.Body, resp: resp}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var out answer[struct{}]
	if err := c.decode(ctx, resp, &out); err != nil {
		return nil, err
	}
	return nil, out.Error.err()
}

// rawReader ends with io.EOF only when the daemon said that the mail is complete.
type rawReader struct {
	body io.ReadCloser
	resp *http.Response
}

func (r *rawReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	switch end := r.resp.Trailer.Get(endTrailer); end {
	case endWhole:
		return n, io.EOF
	case "":
		return n, io.ErrUnexpectedEOF
	default:
		return n, (&wireError{Code: end, Text: endText(end)}).err()
	}
}

func (r *rawReader) Close() error { return r.body.Close() }

// endText returns the text of an error that came as a code.
func endText(end string) string {
	for _, c := range codes() {
		if c.name == end {
			return c.err.Error()
		}
	}
	return "the daemon could not read all of the mail"
}

// Reload implements Admin.
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	return call[Reload](ctx, c, "reload", struct{}{})
}
