package deliver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/internal/memnet"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

const (
	key        = "the-key"
	shop       = "shop@sandbox.example"
	apiTimeout = 10 * time.Second
)

// plan says how a rig differs from the usual one.
type plan struct {
	rate        float64 // default 0: none is known
	burst       int
	concurrency int // default 8
	workers     int // default 4
	maxPause    time.Duration
	failures    int // that open the breaker; default 5

	schedule   retry.Schedule // default 1 min, 1 h, 2 days
	keepSent   time.Duration  // default 100 h
	keepFailed time.Duration  // default: for ever
	grace      time.Duration  // default 1 h
	perHour    int            // default no bound
	postmaster string
	mapping    mail.Options
	queue      queue.Options
	wrap       func(queue.Queue) queue.Queue
	warming    *warm.Meter
	paused     func(time.Time, float64)
	metrics    prometheus.Registerer
}

// rig is an Engine on the real store, the real pacer, the real API client and the
// sandbox, all in a synctest bubble.
type rig struct {
	t    *testing.T
	plan plan
	dir  string
	log  *journal
	box  *sandbox.Server
	net  *memnet.Listener

	store  queue.Queue
	pace   *pace.Pacer
	client provider.AccountClient
	tries  *attempt.Sender

	suppressed *suppress.List
	engine     *Engine // nil when it does not run

	stepped atomic.Int64 // by how much the wall clock was set, in nanoseconds
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// inBubble runs f with a rig that is started already.
func inBubble(t *testing.T, p plan, f func(r *rig)) {
	t.Helper()
	inBubbleStopped(t, p, func(r *rig) {
		r.engine.Start()
		f(r)
	})
}

// inBubbleStopped runs f with a rig whose engine is not started.
func inBubbleStopped(t *testing.T, p plan, f func(r *rig)) {
	t.Helper()
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, plan: p, dir: dir, log: &journal{}, net: memnet.Listen()}
		r.box = sandbox.New(sandbox.Options{Key: key, Keep: 10_000})
		server := &http.Server{Handler: r.box.Handler()}
		served := make(chan error, 1)
		go func() { served <- server.Serve(r.net) }()
		r.build()
		defer func() {
			r.down(true)
			_ = r.box.Stop(context.Background())
			_ = server.Close()
			<-served
		}()
		f(r)
	})
}

// memoryDir returns a directory in memory if there is one. Waiting for a disk would
// take most of the time and test nothing here.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "smtp2rest-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// build opens the store and makes everything that works on it.
func (r *rig) build() {
	r.t.Helper()
	p := r.plan
	log := slog.New(slog.NewTextHandler(r.log, nil))
	s, err := store.Open(r.t.Context(), store.SQLite(r.dir), store.Options{Part: store.OnlyQueue, Queue: p.queue, Log: log})
	if err != nil {
		r.t.Fatal(err)
	}
	r.store = s.Queue
	if p.wrap != nil {
		r.store = p.wrap(s.Queue)
	}
	r.client, err = nexuspromail.New(provider.Connection{
		URL: "http://sandbox.example/api", Path: "/v1/transactional/send", Key: key,
		Timeouts: provider.Timeouts{Timeout: apiTimeout, ConnectTimeout: apiTimeout}, Concurrency: or(p.concurrency, 8), Dial: r.net.Dial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.pace = pace.New(pace.Options{
		Settings: pace.Settings{Rate: p.rate, Burst: p.burst, Concurrency: or(p.concurrency, 8), MaxPause: or(p.maxPause, time.Hour)},
		Failures: p.failures,
		Paused:   p.paused,
		Log:      log,
	})
	r.suppressed = suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings]()})
	r.tries = attempt.New(attempt.Options{API: r.client, Pace: r.pace, Suppressions: r.suppressed, Log: log, Metrics: p.metrics})
	r.engine = New(r.options(log))
}

func (r *rig) options(log *slog.Logger) Options {
	p := r.plan
	if p.mapping.Default.Email == "" {
		p.mapping = mail.Options{Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}}
	}
	return Options{
		Settings: Settings{
			Mapping: provider.Mapping{Options: p.mapping, Format: settings.Defaults[nexuspromail.Format]()}, Schedule: or(p.schedule, hours(48)),
			Workers: or(p.workers, 4), KeepSent: or(p.keepSent, 100*time.Hour), KeepFailed: p.keepFailed,
			Bounce:  bounce.Options{From: relay.Address{Email: "relay@sandbox.example"}, Hostname: "relay.test", Postmaster: p.postmaster},
			Bounces: Bounces{PerHour: p.perHour, Grace: or(p.grace, time.Hour)},
		},
		Queue:    r.store,
		Attempts: r.tries,
		Pace:     r.pace,
		Warming:  p.warming,
		Log:      log,
		Metrics:  p.metrics,
		Now:      r.now,
	}
}

// step sets the wall clock forward or back.
func (r *rig) step(d time.Duration) { r.stepped.Add(int64(d)) }

// now returns the wall clock.
func (r *rig) now() time.Time { return time.Now().Round(0).Add(time.Duration(r.stepped.Load())) }

// down stops the engine and closes the store: in order, or cutting off at once what is
// under way.
func (r *rig) down(orderly bool) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if !orderly {
		cancel()
	}
	r.engine.Stop(ctx)
	cancel()
	r.client.Close()
	if err := r.store.Close(); err != nil {
		r.t.Errorf("closing the store: %v", err)
	}
}

// restart starts a new process on the same data.
func (r *rig) restart() {
	r.t.Helper()
	r.down(true)
	r.build()
	r.engine.Start()
}

// message returns a mail that is not in the queue yet.
func message(from, subject string, to ...string) *relay.Message {
	now := time.Now()
	return &relay.Message{
		ID: relay.NewID(now), From: from, Recipients: to, ReceivedAt: now, Client: relay.Client{Session: "s7"},
		Raw: fmt.Appendf(nil, "From: <%s>\r\nTo: everybody\r\nSubject: %s\r\n\r\nIt is on its way.\r\n", or(from, shop), subject),
	}
}

// keep queues a mail that was not tried, and returns its id.
func (r *rig) keep(from, subject string, to ...string) string {
	r.t.Helper()
	m := message(from, subject, to...)
	if err := r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(len(to)), Domain: "sandbox.example"}); err != nil {
		r.t.Fatalf("Keep: %v", err)
	}
	return m.ID
}

// untried is the outcome of intake's attempt if its turn did not come.
func untried(n int) []relay.Outcome {
	return slices.Repeat([]relay.Outcome{{Kind: relay.RateLimited, Untried: true}}, n)
}

// pass lets virtual time go by.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// hours returns the usual schedule with another MaxAge. The less virtual time passes,
// the sooner a test ends.
func hours(n int) retry.Schedule {
	return retry.Schedule{First: time.Minute, Max: time.Hour, MaxAge: time.Duration(n) * time.Hour}
}

// mail returns a mail from the queue.
func (r *rig) mail(id string) queue.Mail {
	r.t.Helper()
	m, err := r.store.Get(context.Background(), id)
	if err != nil {
		r.t.Fatalf("mail %s: %v", id, err)
	}
	return m
}

// states returns the states of a mail's recipients, in order.
func (r *rig) states(id string) string {
	r.t.Helper()
	var all []string
	for _, rcpt := range r.mail(id).Recipients {
		all = append(all, rcpt.State.String())
	}
	return strings.Join(all, " ")
}

// wantStates compares them.
func (r *rig) wantStates(id, want string) {
	r.t.Helper()
	if got := r.states(id); got != want {
		r.t.Errorf("mail %s is %q, want %q", id, got, want)
	}
}

// calls returns the calls to the API for an address, the oldest first; "" is all.
func (r *rig) calls(to string) []sandbox.Call {
	var all []sandbox.Call
	for _, c := range r.box.Calls() {
		if to == "" || c.To == to {
			all = append(all, c)
		}
	}
	return all
}

// must checks an error of the sandbox's controls.
func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// count returns how many lines have all of these words.
func (j *journal) count(parts ...string) int {
	n := 0
	for line := range strings.Lines(j.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}
