package webhook

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
)

// Handler answers the provider's requests.
type Handler struct {
	opt      Options
	settings atomic.Pointer[Settings]
	metrics  *metrics

	standing standing

	mu     sync.Mutex
	warned time.Time // when a request that was not the provider's was logged last
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

// Settings are what of the Options can change.
type Settings struct {
	// Secrets are those with which an event may be signed: one, and the one
	// before it while the provider changes. Without any, nothing is taken.
	Secrets []string
	Path    string // "/webhook" when ""
}

// Prepare makes ready to go on with other settings. It never fails.
func (h *Handler) Prepare(s Settings) (apply func(), err error) { return func() { h.use(s) }, nil }

func (h *Handler) use(s Settings) {
	s.Path = cmp.Or(s.Path, "/webhook")
	h.settings.Store(&s)
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

// readBody reads no byte of a body that says that it is too large.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, &http.MaxBytesError{Limit: MaxBody}
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
}

// take has an event kept. Everything with a good signature is answered 200,
// whether we understand it or not: to come again would not change that. Only
// what could not be kept is asked for again.
func (h *Handler) take(w http.ResponseWriter, r *http.Request, body []byte) result {
	e, err := h.opt.Provider.Read(body, time.Now())
	if err != nil {
		h.opt.Log.Warn("the provider sent what is no event", "bytes", len(body), "cause", err)
		return unreadable
	}
	fresh, err := h.opt.Taker.Take(r.Context(), e)
	if r.Context().Err() == nil { // a client that hung up says nothing of the storage
		h.standing.kept(err, time.Now())
	}
	if err != nil {
		h.opt.Log.Error("an event of the provider cannot be kept; it was told to send it again", "event", e.ID, "type", e.Type, "cause", err)
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

// warn writes a line about a request that is not the provider's, but not for
// each: anybody can send them.
func (h *Handler) warn(r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.warned) > time.Minute {
		h.warned = now
		h.opt.Log.Warn("a webhook request without the provider's signature; further ones of this minute are only counted",
			"client", r.RemoteAddr, "signature", h.opt.Provider.HasSignature(r.Header))
	}
}

// turnAway refuses who has not proved to be the provider, and hangs up: a
// connection is not kept for whoever can send a request.
func turnAway(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Connection", "close")
	refuse(w, status, why)
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error": "`+why+`"}`) // who does not read it has the status
}
