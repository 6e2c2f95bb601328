// Package providertest tests that a vendor fulfils the contract of relay/provider, with
// requests and answers as the vendor documents them. The test of a new vendor calls Run
// with its own.
package providertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// vendor is the implementation under test, with its records.
type vendor struct {
	provider.Vendor
	records fs.FS
}

// client returns a client of the API at an address. It is closed when the test ends.
func (v vendor) client(t *testing.T, url string) provider.Client {
	t.Helper()
	c, err := v.Client(provider.Connection{URL: url, Path: v.Path, Key: key, Timeouts: settings.Defaults[provider.Timeouts]()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Sent is a mail and the call that it must become. Headers that are not named may
// have any value.
type Sent struct {
	Name   string
	Mail   []string // lines
	To     string
	Path   string
	Header map[string]string // KEY stands for the API key, IDEMPOTENCY for the idempotency key
	Body   json.RawMessage
}

// Answered is an answer of the API and what it must mean.
type Answered struct {
	Name       string
	Status     int
	Header     map[string]string
	Body       string
	Kind       string
	MessageID  string
	Detail     string
	RetryAfter string // a duration
}

// Told is a request of the provider and the event that it must become.
type Told struct {
	Name   string
	Secret string
	Header map[string]string
	Body   string
	Event  relay.Event // without Received
	Error  bool        // it is no event
}

// Registered is an answer to a registration.
type Registered struct {
	Name   string
	Status int
	Body   string
	Secret string // "": an error
}

const (
	key    = "a-key-for-a-test"
	callID = "0d5hk7kq2v1c0g3n8b4a/bob@example.net"
)

// Run tests a vendor. records has requests.json, answers.json, events.json and
// registrations.json: lists of Sent, Answered, Told and Registered.
func Run(t *testing.T, of provider.Vendor, records fs.FS) {
	v := vendor{of, records}
	t.Run("words", v.words)
	t.Run("requests", v.requests)
	t.Run("answers", v.answers)
	t.Run("no answer", v.noAnswer)
	t.Run("bodies", v.bodies)
	t.Run("events", v.events)
	t.Run("registrations", v.registrations)
}

func recorded[T any](t *testing.T, v vendor, name string) []T {
	t.Helper()
	data, err := fs.ReadFile(v.records, name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var list []T
	if err := d.Decode(&list); err != nil || len(list) == 0 {
		t.Fatalf("%s: %d records, %v", name, len(list), err)
	}
	return list
}

// words checks the name, of which others are made, and the defaults of settings.
func (v vendor) words(t *testing.T) {
	if v.Name == "" || strings.Trim(v.Name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		t.Errorf("the name %q is not of small letters and digits", v.Name)
	}
	if !strings.HasPrefix(v.URL, "https://") || !strings.HasPrefix(v.Path, "/") || !strings.HasPrefix(v.RegisterPath, "/") {
		t.Errorf("the defaults %q, %q, %q are no addresses of an API", v.URL, v.Path, v.RegisterPath)
	}
	if a, b := v.Settings(), v.Settings(); reflect.ValueOf(a).Kind() != reflect.Pointer || a == b && reflect.TypeOf(a).Elem().Size() > 0 {
		t.Error("two configurations share the settings of one")
	}
}

// encoded returns a mail in the vendor's format.
func (v vendor) encoded(t *testing.T, raw []byte) provider.Body {
	t.Helper()
	m, err := mail.Map(raw, "envelope@example.com", mail.Options{
		Default: relay.Address{Email: "default@example.com", Name: "The App"}, Attachments: mail.SendAttachments,
	})
	if err != nil {
		t.Fatal(err)
	}
	own := v.Settings()
	if _, err := settings.Declare(own, nil, nil); err != nil {
		t.Fatal(err)
	}
	b, err := own.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if n, cost := b.Len(""), mail.Cost(raw, mime.Limits{}); n > cost {
		t.Errorf("the document has %d bytes, all of the mail may take %d", n, cost)
	}
	return b
}

func (s Sent) raw() []byte { return []byte(strings.Join(s.Mail, "\r\n")) }

// requests checks that each mail becomes the recorded call, for its recipient alone.
func (v vendor) requests(t *testing.T) {
	for _, sent := range recorded[Sent](t, v, "requests.json") {
		t.Run(sent.Name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
			}))
			defer api.Close()
			v.client(t, api.URL).Send(t.Context(), provider.Request{IdempotencyKey: callID, To: sent.To, Body: v.encoded(t, sent.raw())})
			if got.Method != http.MethodPost || got.URL.Path != sent.Path || got.ContentLength != int64(len(body)) {
				t.Errorf("%s %s with %d bytes", got.Method, got.URL.Path, got.ContentLength)
			}
			for name, want := range sent.Header {
				want = strings.NewReplacer("KEY", key, "IDEMPOTENCY", callID).Replace(want)
				if value := got.Header.Get(name); value != want {
					t.Errorf("%s is %q, want %q", name, value, want)
				}
			}
			var is, want any
			if err := json.Unmarshal(sent.Body, &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(body, &is); err != nil || !reflect.DeepEqual(is, want) {
				t.Errorf("%v, the body is\n%s\nwant\n%s", err, body, sent.Body)
			}
		})
	}
}

// answers checks that each answer means what is recorded, and that the records have
// every kind of outcome that an answer can have.
func (v vendor) answers(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range recorded[Answered](t, v, "answers.json") {
		seen[a.Kind] = true
		t.Run(a.Name, func(t *testing.T) {
			var calls atomic.Int32
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				for name, value := range a.Header {
					w.Header().Set(name, value)
				}
				w.WriteHeader(a.Status)
				_, _ = io.WriteString(w, strings.ReplaceAll(a.Body, "KEY", key))
			}))
			defer api.Close()
			out := v.client(t, api.URL).Send(t.Context(), v.call(t))
			wait := time.Duration(0)
			if a.RetryAfter != "" {
				var err error
				if wait, err = time.ParseDuration(a.RetryAfter); err != nil {
					t.Fatal(err)
				}
			}
			if out.Kind.String() != a.Kind || out.Status != a.Status || out.MessageID != a.MessageID || out.Detail != a.Detail || out.RetryAfter != wait || out.Untried {
				t.Errorf("got %+v\nwant %+v", out, a)
			}
			if said := fmt.Sprintf("%+v", out); strings.Contains(said, key) || calls.Load() != 1 {
				t.Errorf("%d calls, %s", calls.Load(), said)
			}
		})
	}
	for _, k := range relay.Kinds() {
		if !seen[k.String()] {
			t.Errorf("no answer is recorded that is %s", k)
		}
	}
}

// call returns a call with some mail.
func (v vendor) call(t *testing.T) provider.Request {
	body := v.encoded(t, []byte("From: shop@example.com\r\nSubject: Order\r\n\r\nIt is on its way.\r\n"))
	return provider.Request{IdempotencyKey: callID, To: "bob@example.net", Body: body}
}

// noAnswer checks that a call without an answer is Ambiguous if it may have been acted
// on and else Unavailable, and that nothing is sent twice.
func (v vendor) noAnswer(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		v.want(t, t.Context(), "http://"+l.Addr().String(), relay.Unavailable)
	})
	t.Run("hung up after the request", func(t *testing.T) {
		// On a connection that was used before, net/http would repeat some
		// requests by itself.
		answers := recorded[Answered](t, v, "answers.json")
		taken := answers[slices.IndexFunc(answers, func(a Answered) bool { return a.Kind == relay.Accepted.String() })]
		url, calls := hangingUp(t, taken)
		client := v.client(t, url)
		if out := client.Send(t.Context(), v.call(t)); out.Kind != relay.Accepted {
			t.Fatalf("%+v", out)
		}
		if out := client.Send(t.Context(), v.call(t)); out.Kind != relay.Ambiguous || calls.Load() != 2 {
			t.Errorf("%+v after %d requests", out, calls.Load())
		}
	})
	t.Run("cut off after the request", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		over := make(chan struct{})
		api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-over
		}))
		defer api.Close()
		defer close(over)
		v.want(t, ctx, api.URL, relay.Ambiguous)
	})
	t.Run("a redirect is not followed", func(t *testing.T) {
		var followed atomic.Bool
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
		defer elsewhere.Close()
		api := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusPermanentRedirect))
		defer api.Close()
		v.want(t, t.Context(), api.URL, relay.Unavailable)
		if followed.Load() {
			t.Error("the key went elsewhere")
		}
	})
}

func (v vendor) want(t *testing.T, ctx context.Context, url string, kind relay.Kind) {
	t.Helper()
	out := v.client(t, url).Send(ctx, v.call(t))
	if out.Kind != kind || out.Cause == nil || strings.Contains(fmt.Sprintf("%+v", out), key) {
		t.Errorf("%+v, want %s", out, kind)
	}
}

// hangingUp starts an API that answers its first request and hangs up on any other.
func hangingUp(t *testing.T, first Answered) (url string, calls *atomic.Int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls = new(atomic.Int32)
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewReader(conn); ; {
				r, err := http.ReadRequest(in)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if calls.Add(1) > 1 {
					break
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", first.Status, len(first.Body), first.Body)
			}
			_ = conn.Close()
		}
	}()
	return "http://" + l.Addr().String(), calls
}

// bodies checks that a document is as long as it says, is the same every time, and
// names nobody but its recipient.
func (v vendor) bodies(t *testing.T) {
	const others = "seen@example.org"
	body := v.encoded(t, []byte("From: shop@example.com\r\nTo: "+others+"\r\nCc: "+others+"\r\nBcc: "+others+"\r\nDelivered-To: "+others+
		"\r\nSubject: Order\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\u2028 \"<&>\" \\\r\n--b\r\nContent-Type: image/png; name=a.png\r\n\r\n\x89PNG\r\n--b--\r\n"))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			to := fmt.Sprintf("recipient%d@example.net", i)
			for range 2 {
				doc, err := io.ReadAll(body.Open(to))
				if err != nil || int64(len(doc)) != body.Len(to) || !bytes.Contains(doc, []byte(to)) || bytes.Contains(doc, []byte(others)) {
					t.Errorf("%v, %d bytes of %d: %s", err, len(doc), body.Len(to), doc)
				}
			}
		})
	}
	all.Wait()
}

// events checks signatures, and that each event means what is recorded.
func (v vendor) events(t *testing.T) {
	received := time.Date(2026, 5, 13, 10, 25, 0, 0, time.UTC)
	seen := map[string]bool{}
	list := recorded[Told](t, v, "events.json")
	for _, told := range list {
		header := http.Header{}
		for name, value := range told.Header {
			header.Set(name, value)
		}
		body := []byte(told.Body)
		for _, tt := range []struct {
			why     string
			secrets []string
			header  http.Header
			body    []byte
			want    bool
		}{
			{"as recorded", []string{told.Secret}, header, body, true},
			{"beside another secret", []string{"another", told.Secret}, header, body, true},
			{"by another secret", []string{told.Secret + "x"}, header, body, false},
			{"without a secret", nil, header, body, false},
			{"of another body", []string{told.Secret}, header, append(slices.Clone(body), ' '), false},
			{"without a signature", []string{told.Secret}, http.Header{}, body, false},
		} {
			if got := v.Events.Signed(tt.secrets, tt.header, tt.body); got != tt.want {
				t.Errorf("%s, %s: signed is %t", told.Name, tt.why, got)
			}
		}
		if !v.Events.HasSignature(header) || v.Events.HasSignature(http.Header{}) {
			t.Errorf("%s: whether there is a signature is not known", told.Name)
		}
		want := told.Event
		want.Received = received
		e, err := v.Events.Read(body, received)
		if (err != nil) != told.Error || err == nil && e != want {
			t.Errorf("%s: %v\n got %+v\nwant %+v", told.Name, err, e, want)
		}
		if again, _ := v.Events.Read(body, received); again != e || err == nil && e.ID == "" {
			t.Errorf("%s: it is %q, and then %q", told.Name, e.ID, again.ID)
		}
		seen[e.Type] = true
	}
	for _, kind := range relay.EventTypes() {
		if !seen[kind] {
			t.Errorf("no event is recorded that is %s", kind)
		}
	}
	if header, body := v.Events.Sample("", received); v.Events.Signed([]string{""}, header, body) {
		t.Error("whoever has no secret can sign")
	}
	header, body := v.Events.Sample("secret", received)
	if e, err := v.Events.Read(body, received); err != nil || slices.Contains(relay.EventTypes(), e.Type) || !v.Events.Signed([]string{"secret"}, header, body) {
		t.Errorf("the sample: %+v, %v", e, err)
	}
}

// registrations checks that each answer becomes a secret or an error.
func (v vendor) registrations(t *testing.T) {
	for _, r := range recorded[Registered](t, v, "registrations.json") {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if !bytes.Contains(body, []byte("https://relay.example.com/webhook")) || !bytes.Contains(body, []byte(relay.EventComplaint)) {
				t.Errorf("%s: asked %s", r.Name, body)
			}
			w.WriteHeader(r.Status)
			_, _ = io.WriteString(w, r.Body)
		}))
		secret, err := v.Registrar(provider.Connection{URL: api.URL, Path: v.RegisterPath, Key: key}).Register(t.Context(), provider.Registration{URL: "https://relay.example.com/webhook", Events: []string{relay.EventComplaint}})
		if secret != r.Secret || (err == nil) != (r.Secret != "") || err != nil && (strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), key)) {
			t.Errorf("%s: %q, %v", r.Name, secret, err)
		}
		api.Close()
	}
}
