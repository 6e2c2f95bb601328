package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of a test.
const patience = 10 * time.Second

const key = "sk_planted_key"

// plan says how a rig differs from the usual one.
type plan struct {
	api         http.HandlerFunc // in place of the sandbox
	before      string           // the sandbox answers nobody until the call for this recipient has come
	timeout     time.Duration    // of an API call; default patience
	wait        time.Duration    // default 10 s
	concurrency int              // default 8
	queue       Queue            // default NoQueue
	mapping     func(*mail.Options)
}

// rig is an Intake with the real API client and the sandbox.
type rig struct {
	*Intake
	t            *testing.T
	box          *sandbox.Server
	suppressions *suppress.List
	log          *record
	rules        policy.Chain
}

func newRig(t *testing.T, p plan) *rig {
	t.Helper()
	r := &rig{t: t, suppressions: suppress.New(suppress.Options{Settings: suppress.Settings{Expire: 100 * 365 * 24 * time.Hour, Forget: 30 * 24 * time.Hour, Unsubscribed: true}}), log: &record{}}
	url := r.startSandbox()
	if p.before != "" {
		url = r.notBefore(p.before)
	}
	if p.api != nil {
		server := httptest.NewServer(p.api)
		t.Cleanup(server.Close)
		url = server.URL
	}
	client, err := nexuspromail.New(provider.Connection{
		URL: url, Path: "/v1/transactional/send", Key: key,
		Timeouts: provider.Timeouts{Timeout: or(p.timeout, patience), ConnectTimeout: or(p.timeout, patience)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o := Options{
		Settings: Settings{
			Mapping: provider.Mapping{Options: mail.Options{Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}}, Format: settings.Defaults[nexuspromail.Format]()},
			Bounce:  bounce.Options{From: relay.Address{Email: "relay@sandbox.example"}, Hostname: "relay.test"},
			Wait:    or(p.wait, 10*time.Second),
		},
		Attempts: attempt.New(attempt.Options{
			API: client, Suppressions: r.suppressions, Log: log,
			Pace: pace.New(pace.Options{Settings: pace.Settings{Concurrency: or(p.concurrency, 8), MaxPause: time.Hour}, Log: log}),
		}),
		Suppressions: r.suppressions,
		Queue:        NoQueue{},
		Log:          log,
	}
	if p.queue != nil {
		o.Queue = p.queue
	}
	if p.mapping != nil {
		p.mapping(&o.Mapping.Options)
	}
	r.Intake = New(o)
	return r
}

// notBefore orders calls that would race: all are in flight before the first is
// answered, so that no answer prevents the call for this recipient.
func (r *rig) notBefore(to string) (url string) {
	came := make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		if strings.Contains(string(raw), to) {
			once.Do(func() { close(came) })
		}
		select {
		case <-came:
		case <-req.Context().Done():
		}
		req.Body = io.NopCloser(bytes.NewReader(raw))
		r.box.Handler().ServeHTTP(w, req)
	}))
	r.t.Cleanup(server.Close)
	return server.URL + "/api" // where the sandbox has it
}

func (r *rig) startSandbox() string {
	r.t.Helper()
	r.box = sandbox.New(sandbox.Options{Key: key})
	if err := r.box.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.stopSandbox)
	return r.box.URL()
}

func (r *rig) stopSandbox() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.box.Stop(ctx); err != nil {
		r.t.Errorf("stopping the sandbox: %v", err)
	}
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

const aMail = "From: Shop <shop@sandbox.example>\r\nTo: everybody\r\nSubject: Order 4711\r\n\r\nIt is on its way.\r\n"

func envelope(from string, to ...string) *smtpd.Envelope {
	return &smtpd.Envelope{From: from, Recipients: to, Client: smtpd.Client{
		Session: "s1", Addr: netip.MustParseAddrPort("127.0.0.1:4711"), Helo: "client.test", User: "app", Listener: "127.0.0.1:2525",
	}}
}

// send hands a mail over as smtpd does: each recipient, then the message for those
// that were accepted. It returns the last reply.
func (r *rig) send(ctx context.Context, raw, from string, to ...string) *reply.Reply {
	r.t.Helper()
	env := envelope(from)
	env.Rules = r.rules
	var refused *reply.Reply
	for _, rcpt := range to {
		if err := r.Recipient(ctx, env, rcpt); err != nil {
			refused = reply.From(err)
			continue
		}
		env.Recipients = append(env.Recipients, rcpt)
	}
	if len(env.Recipients) == 0 {
		return refused
	}
	return r.Message(ctx, env, []byte(raw))
}

// sendMail is send with the usual mail and sender.
func (r *rig) sendMail(to ...string) *reply.Reply {
	r.t.Helper()
	return r.send(r.t.Context(), aMail, "shop@sandbox.example", to...)
}

// body is the JSON of a call, as far as the tests use it.
type body struct {
	To, From, ReplyTo   relay.Address
	Subject, HTML, Text string
}

func (r *rig) callTo(to string) body {
	r.t.Helper()
	for _, c := range r.box.Calls() {
		if c.To == to {
			var b body
			if err := json.Unmarshal(c.Body, &b); err != nil {
				r.t.Fatal(err)
			}
			return b
		}
	}
	r.t.Fatalf("the API got nothing for %s", to)
	return body{}
}

// record is a log that can be read while it is written.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// lines returns the log lines with this message.
func (r *rig) lines(msg string) []map[string]any {
	r.t.Helper()
	var all []map[string]any
	for line := range strings.Lines(r.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			r.t.Fatalf("%q is no JSON: %v", line, err)
		}
		if m["msg"] == msg {
			all = append(all, m)
		}
	}
	return all
}

// fakeQueue stores what it gets, or fails.
type fakeQueue struct {
	err error

	mu   sync.Mutex
	rest []relay.Remainder
}

func (q *fakeQueue) Keep(_ context.Context, parts ...relay.Remainder) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	q.rest = append(q.rest, parts...)
	return nil
}

func (q *fakeQueue) kept() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.rest)
}

// marks makes an event report that an address unsubscribed.
func (r *rig) marks(address string, at time.Time) {
	r.t.Helper()
	if _, err := r.suppressions.Take(r.t.Context(), relay.Event{ID: "evt_" + address, Type: "unsubscribed", Email: address, Occurred: at, Received: at}); err != nil {
		r.t.Fatal(err)
	}
}
