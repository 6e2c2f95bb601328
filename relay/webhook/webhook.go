// Package webhook receives the provider's signed events. It checks the signature over
// the raw body before it looks at anything, stores the event, and only then answers
// 200. relay/suppress and relay/history read what is stored here.
package webhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// MaxBody is the largest body that is accepted. An event has about 400 bytes.
const MaxBody = 256 << 10

// Taker stores events. *suppress.List implements it.
type Taker interface {
	// Take returns when the event is on disk. If the event was taken before, it
	// changes nothing and returns false.
	Take(ctx context.Context, e relay.Event) (fresh bool, err error)
}

// Options configure a Handler.
type Options struct {
	Settings
	Provider provider.Events
	Taker    Taker
	Log      *slog.Logger          // nil: none
	Metrics  prometheus.Registerer // may be nil
}

// Handler answers the provider's requests.
type Handler struct {
	opt      Options
	settings atomic.Pointer[Settings]
	metrics  *metrics

	standing standing

	mu     sync.Mutex
	warned time.Time // when a forged request was last logged
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns a Handler.
func NewHandler(o Options) *Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{opt: o, metrics: newMetrics(o.Metrics)}
	h.use(o.Settings)
	return h
}

// Settings are the options that a reload can change.
type Settings struct {
	// Secrets are the secrets with which an event may be signed: the current one,
	// and the one before it while the provider changes. Without any, all events are
	// refused.
	Secrets []string
	Path    string
}

// Prepare returns a function that puts s into force. It never fails.
func (h *Handler) Prepare(s Settings) (apply func(), err error) { return func() { h.use(s) }, nil }

func (h *Handler) use(s Settings) {
	h.settings.Store(&s)
}

// Handlers are those of several accounts behind one address. Each has a path of its own;
// the first answers all other requests.
type Handlers []*Handler

// ServeHTTP implements http.Handler.
func (all Handlers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, h := range all[1:] {
		if s := h.settings.Load(); s.Path == r.URL.Path && len(s.Secrets) > 0 {
			h.ServeHTTP(w, r)
			return
		}
	}
	all[0].ServeHTTP(w, r)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.metrics.requests[h.serve(w, r)].Inc()
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) result {
	now := h.settings.Load()
	switch {
	case r.URL.Path != now.Path:
		turnAway(w, http.StatusNotFound, "Not found")
		return notOurs
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		turnAway(w, http.StatusMethodNotAllowed, "Method not allowed")
		return notOurs
	}
	body, err := readBody(w, r)
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		turnAway(w, http.StatusRequestEntityTooLarge, "Too large")
		return tooLarge
	}
	if err != nil {
		turnAway(w, http.StatusBadRequest, "Incomplete")
		return cutShort
	}
	if !h.opt.Provider.Signed(now.Secrets, r.Header, body) {
		h.warn(r)
		h.standing.forged(time.Now())
		turnAway(w, http.StatusUnauthorized, "Invalid signature")
		return badSignature
	}
	h.standing.signed()
	webserver.Trust(r.Context())
	return h.take(w, r, body)
}

// readBody reads nothing of a body whose declared length is too large.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, &http.MaxBytesError{Limit: MaxBody}
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
}

// take stores an event. Every body with a good signature is answered 200, even if it
// is no event that we understand, because sending it again would not change that. Only
// if it cannot be stored is the provider asked to send it again.
func (h *Handler) take(w http.ResponseWriter, r *http.Request, body []byte) result {
	e, err := h.opt.Provider.Read(body, time.Now())
	if err != nil {
		h.opt.Log.Warn("the provider sent something that is no event", "bytes", len(body), "cause", err)
		return unreadable
	}
	fresh, err := h.opt.Taker.Take(r.Context(), e)
	if r.Context().Err() == nil { // a client that hangs up says nothing about the storage
		h.standing.kept(err, time.Now())
	}
	if err != nil {
		h.opt.Log.Error("an event of the provider cannot be stored; the provider was asked to send it again", "event", e.ID, "type", e.Type, "cause", err)
		refuse(w, http.StatusServiceUnavailable, "Try again later")
		return notKept
	}
	if !fresh {
		return repeated
	}
	h.metrics.event(e.Type)
	h.log(e)
	return taken
}

func (h *Handler) log(e relay.Event) {
	attrs := []any{"event", e.ID, "type", e.Type, "to", e.Email, "message_id", e.MessageID}
	if e.BounceCode != "" || e.BounceReason != "" {
		attrs = append(attrs, "code", e.BounceCode, "reason", e.BounceReason)
	}
	h.opt.Log.Info("event", attrs...)
}

// warn logs a request that is not the provider's, at most one a minute: anybody can
// send them.
func (h *Handler) warn(r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.warned) > time.Minute {
		h.warned = now
		h.opt.Log.Warn("a webhook request without the provider's signature; more of them in this minute are only counted",
			"client", r.RemoteAddr, "signature", h.opt.Provider.HasSignature(r.Header))
	}
}

// turnAway refuses a request that is not the provider's and closes the connection, so
// that strangers hold none.
func turnAway(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Connection", "close")
	refuse(w, status, why)
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error": "`+why+`"}`) // a client that does not read it has the status
}

// result is what happened to a request, as a metric label.
type result string

const (
	taken        result = "taken"
	repeated     result = "repeated"
	unreadable   result = "unreadable"
	badSignature result = "bad_signature"
	tooLarge     result = "too_large"
	cutShort     result = "cut_short"
	notOurs      result = "not_ours"
	notKept      result = "not_kept"
)

func results() []result {
	return []result{taken, repeated, unreadable, badSignature, tooLarge, cutShort, notOurs, notKept}
}

const otherType = "other"

type metrics struct {
	requests map[result]prometheus.Counter
	events   map[string]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_webhook_requests_total",
		Help: "Requests to the webhook endpoint, by what happened to them. " +
			"bad_signature: not the provider's, or the secret is wrong; not_kept: the storage failed, and the provider was asked to send it again; " +
			"cut_short: the client did not send all of it; not_ours: another path or method.",
	}, []string{"result"})
	events := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_webhook_events_total",
		Help: "Events that the provider sent, by type. An event that comes again is not counted again. Types that this version does not know are other.",
	}, []string{"type"})
	m := &metrics{requests: map[result]prometheus.Counter{}, events: map[string]prometheus.Counter{}}
	for _, r := range results() {
		m.requests[r] = requests.WithLabelValues(string(r))
	}
	for _, t := range append(relay.EventTypes(), otherType) {
		m.events[t] = events.WithLabelValues(t)
	}
	return m
}

func (m *metrics) event(kind string) {
	c, ok := m.events[kind]
	if !ok {
		c = m.events[otherType]
	}
	c.Inc()
}

// Standing is the state of the endpoint, for people.
type Standing struct {
	// Forged counts the requests without a good signature since the last one with
	// one. ForgedSince is the time of the first of them, ForgedLast of the latest.
	Forged                  int
	ForgedSince, ForgedLast time.Time
	// Unkept is why the latest event could not be stored; nil if it was.
	// UnkeptSince is when that began.
	Unkept      error
	UnkeptSince time.Time
}

// standing guards a Standing.
type standing struct {
	mu  sync.Mutex
	now Standing
}

// Standing returns the current state of the endpoint.
func (h *Handler) Standing() Standing {
	h.standing.mu.Lock()
	defer h.standing.mu.Unlock()
	return h.standing.now
}

func (s *standing) forged(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Forged == 0 {
		s.now.ForgedSince = at
	}
	s.now.Forged++
	s.now.ForgedLast = at
}

func (s *standing) signed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Forged, s.now.ForgedSince, s.now.ForgedLast = 0, time.Time{}, time.Time{}
}

func (s *standing) kept(err error, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.now.UnkeptSince = time.Time{}
	case s.now.Unkept == nil:
		s.now.UnkeptSince = at
	}
	s.now.Unkept = err
}
