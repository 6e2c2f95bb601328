// Package attempt makes one attempt to send one mail to one recipient. It waits
// for its turn (relay/pace), calls the API (relay/provider), logs the outcome, and
// adds a recipient that the provider suppresses to relay/suppress. relay/intake
// uses it while the client waits, the queue's workers use it later.
package attempt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Options configure a Sender.
type Options struct {
	API          provider.Client
	Pace         *pace.Pacer
	Suppressions *suppress.List
	History      history.Noter // nil: history.Nothing
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: none

	// LeaveProbes, if set, reports whether queue workers probe an API that is
	// down. Then Try fails at once and leaves the probe to them.
	LeaveProbes func() bool
}

// Sender makes attempts. It is safe for concurrent use.
type Sender struct {
	opt     Options
	metrics *metrics
}

// New returns a Sender.
func New(o Options) *Sender {
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.LeaveProbes == nil {
		o.LeaveProbes = func() bool { return false }
	}
	return &Sender{opt: o, metrics: newMetrics(o.Metrics)}
}

// Attempt describes one attempt.
type Attempt struct {
	MessageID string // the queue id
	From      string // envelope sender
	To        string
	Number    int // 1 for the first
	Body      provider.Body
	// Redirected reports whether a mail is to be redirected by now. A reload may have
	// said so while the mail waited for its turn; nil: it may not.
	Redirected func() bool
	// Lost ends the call when it is closed, because another relay may make it next; see
	// queue.Claim. It may be nil.
	Lost <-chan struct{}

	// For the log; may be empty.
	Session  string // of the SMTP client
	BounceOf string // id of the mail that this one is a bounce of
	CopyOf   string // id of the mail that this one is the archive's copy of
	Trace    string // the mail's W3C traceparent
}

// Try makes one attempt. turn bounds how long it waits for its turn. A 429 does
// not count as an attempt: while turn lasts, Try waits until the gate opens, at
// least a second, and calls again.
func (s *Sender) Try(turn context.Context, a Attempt) relay.Outcome {
	for {
		pass, err := s.enter(turn)
		if err != nil {
			out := s.notMade(err)
			s.record(a, out)
			return out
		}
		if out := s.Make(pass, a); out.Kind != relay.RateLimited {
			return out
		}
	}
}

func (s *Sender) enter(turn context.Context) (*pace.Pass, error) {
	if down := s.opt.Pace.Down(); down != nil && s.opt.LeaveProbes() {
		return nil, down
	}
	return s.opt.Pace.Enter(turn)
}

// errRedirected is why no call is made for a mail that has to be mapped again.
var errRedirected = errors.New("all mail is redirected since this one was mapped")

// Make makes one attempt with a pass and ends the pass. It makes no call if, while the
// mail waited for the pass, the recipient was suppressed, or redirect_all was set.
//
// Once a call has begun, only api.timeout ends it. If a shutdown cut it off, the
// API might have sent the mail, and the next attempt would send it again.
func (s *Sender) Make(pass *pace.Pass, a Attempt) relay.Outcome {
	redirected := a.Body.Redirected() // then the recipient's own suppression means nothing
	if !redirected && a.Redirected != nil && a.Redirected() {
		pass.Return()
		out := relay.Outcome{Kind: relay.Unavailable, Untried: true, Cause: errRedirected}
		s.record(a, out)
		return out
	}
	if !redirected {
		if out, ok := s.Suppressed(a); ok {
			pass.Return()
			return out
		}
	}
	pass.For(a.MessageID, a.From)
	ctx, end := a.while()
	defer end()
	out := s.opt.API.Send(ctx, provider.Request{
		IdempotencyKey: IdempotencyKey(a.MessageID, a.To),
		To:             a.To,
		Body:           a.Body,
	})
	pass.Leave(out)
	s.record(a, out)
	if out.Kind == relay.Suppressed && !redirected {
		s.opt.Suppressions.Learn(a.To, suppress.Provider, out.Detail, time.Now())
	}
	return out
}

// while returns a context that ends when the attempt is Lost. The caller must call end.
func (a Attempt) while() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	if a.Lost == nil {
		return ctx, cancel
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-a.Lost:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		wait.Wait()
	}
}

// Suppressed reports whether the recipient is on the suppression list. If so, it
// logs and returns that outcome; no call is needed.
func (s *Sender) Suppressed(a Attempt) (relay.Outcome, bool) {
	if _, known := s.opt.Suppressions.Lookup(a.To, time.Now()); !known {
		return relay.Outcome{}, false
	}
	out := relay.Outcome{Kind: relay.Suppressed, Untried: true}
	s.record(a, out)
	return out, true
}

// notMade returns the outcome of an attempt whose turn did not come.
func (s *Sender) notMade(err error) relay.Outcome {
	out := relay.Outcome{Kind: relay.RateLimited, Untried: true, Cause: err, RetryAfter: time.Second}
	var busy *pace.Busy
	if !errors.As(err, &busy) {
		return out
	}
	out.RetryAfter = busy.Wait
	s.metrics.postponed.WithLabelValues(whyLabel(busy.Why)).Inc()
	switch busy.Why {
	case pace.Down:
		out.Kind = relay.Unavailable
	case pace.KeyBad, pace.Forbidden:
		out.Kind = relay.Unauthorized
	}
	return out
}

// record writes the outcome to the log and the history.
func (s *Sender) record(a Attempt, out relay.Outcome) {
	s.log(a, out)
	s.opt.History.Note(history.Tried{ID: a.MessageID, From: a.From, To: a.To, Number: a.Number, Outcome: out, At: time.Now()})
}

// log writes the log line of an attempt. It has the envelope and never the
// content.
func (s *Sender) log(a Attempt, out relay.Outcome) {
	level := slog.LevelInfo
	switch {
	case out.Untried: // what prevented the attempt has a log line of its own
	case out.Kind == relay.Unauthorized:
		level = slog.LevelError
	case !out.Kind.Settled():
		level = slog.LevelWarn
	}
	attrs := append(a.ids(),
		slog.String("outcome", out.Kind.String()),
		slog.Int("status", out.Status),
		slog.String("message_id", out.MessageID),
		slog.Int("attempt", a.Number),
		slog.Duration("duration", out.Took),
	)
	if out.Untried {
		attrs = append(attrs, slog.Bool("untried", true))
	}
	if out.Detail != "" {
		attrs = append(attrs, slog.String("api_says", out.Detail))
	}
	if out.Kind == relay.RateLimited {
		attrs = append(attrs, slog.Duration("retry_after", out.RetryAfter))
	}
	if out.Cause != nil {
		attrs = append(attrs, slog.String("cause", out.Cause.Error()))
	}
	s.opt.Log.LogAttrs(context.Background(), level, "recipient", attrs...)
}

// ids returns the attributes that lines about this attempt have in common.
func (a Attempt) ids() []slog.Attr {
	attrs := []slog.Attr{slog.String("id", a.MessageID), slog.String("from", a.From), slog.String("to", a.To)}
	for _, more := range []slog.Attr{slog.String("session", a.Session), slog.String("bounce_of", a.BounceOf), slog.String("copy_of", a.CopyOf), slog.String("trace", a.Trace)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	return attrs
}

// Way says who settled a recipient.
type Way string

const (
	Direct Way = "direct" // intake, while the client waited
	Queued Way = "queue"  // the queue's workers
)

// End is the final state of a recipient, as a metric label.
type End string

// All but Sent are failures.
const (
	Sent       End = "sent"
	Suppressed End = "suppressed"
	Refused    End = "refused"
	TooLarge   End = "too_large"
	Expired    End = "expired"    // given up after delivery.max_age
	Unreadable End = "unreadable" // the stored mail could not be mapped
)

func ends() []End { return []End{Sent, Suppressed, Refused, TooLarge, Expired, Unreadable} }

// EndOf returns the end of a recipient whose last outcome is out: it settled the
// recipient, or the recipient was given up after it.
func EndOf(out relay.Outcome) End {
	switch {
	case out.Kind == relay.Accepted:
		return Sent
	case out.Kind == relay.Suppressed:
		return Suppressed
	case out.Kind == relay.TooLarge:
		return TooLarge
	case out.Kind == relay.Refused && out.Status != 0:
		return Refused
	case out.Kind == relay.Refused:
		return Unreadable
	default:
		return Expired
	}
}

// Ended counts a recipient that came to its end. The attempt has logged and
// recorded that already, unless the recipient was given up for its age or because
// its mail could not be read.
func (s *Sender) Ended(way Way, a Attempt, out relay.Outcome, received time.Time) {
	end, now := EndOf(out), time.Now()
	s.metrics.ended(way, end, now.Sub(received))
	if end != Expired && end != Unreadable {
		return
	}
	attrs := append(a.ids(), slog.String("outcome", "given_up"), slog.String("why", string(end)),
		slog.Int("attempts", a.Number), slog.Duration("age", now.Sub(received)))
	s.opt.Log.LogAttrs(context.Background(), slog.LevelWarn, "recipient", attrs...)
	why := out.Detail
	if refusal, ok := errors.AsType[*mail.Refusal](out.Cause); ok {
		why = refusal.Logged()
	}
	if end == Expired {
		why = fmt.Sprintf("tried %d times in %s", a.Number, now.Sub(received).Round(time.Second))
	}
	s.opt.History.Note(history.GaveUp{ID: a.MessageID, From: a.From, To: a.To, Why: why, At: now})
}

// IdempotencyKey returns the key that tells the API which calls are attempts at
// the same mail and recipient. It is derived from these two alone, so it survives
// restarts. A mail that goes on from an earlier one has the keys of that, however
// its client writes the address. The address is hashed because headers end up in
// the logs of proxies.
func IdempotencyKey(id, to string) string {
	sum := sha256.Sum256([]byte(suppress.Normalise(to)))
	return relay.FirstID(id) + "-" + hex.EncodeToString(sum[:8])
}

type metrics struct {
	recipients *prometheus.CounterVec
	settled    *prometheus.HistogramVec
	postponed  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		recipients: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_recipients_total",
			Help: "Recipients that came to their end, by how: sent, or failed in one of the other ways. " +
				"direct: while the client waited; queue: later.",
		}, []string{"end", "way"}),
		settled: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smtp2rest_recipient_settled_seconds",
			Help: "Time from a mail's acceptance until the API took it for a recipient, or the recipient was given up.",
			// From an API that answers at once to mail that is given up after days.
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
		}, []string{"result"}),
		postponed: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_attempts_postponed_total",
			Help: "First attempts whose turn did not come while the client waited, by reason. No call was made.",
		}, []string{"why"}),
	}
	for _, way := range []Way{Direct, Queued} {
		for _, end := range ends() {
			m.recipients.WithLabelValues(string(end), string(way))
		}
	}
	for _, result := range []string{"sent", "failed"} {
		m.settled.WithLabelValues(result)
	}
	for _, why := range []pace.Why{pace.Rate, pace.Paused, pace.Down, pace.KeyBad, pace.Forbidden, pace.Apart} {
		m.postponed.WithLabelValues(whyLabel(why))
	}
	return m
}

func whyLabel(w pace.Why) string {
	switch w {
	case pace.Paused:
		return "api_asked_to_wait"
	case pace.Down:
		return "api_down"
	case pace.KeyBad:
		return "key_refused"
	case pace.Forbidden:
		return "forbidden"
	case pace.Apart:
		return "database_gone"
	default:
		return "rate_used_up"
	}
}

func (m *metrics) ended(way Way, end End, took time.Duration) {
	m.recipients.WithLabelValues(string(end), string(way)).Inc()
	result := "failed"
	if end == Sent {
		result = "sent"
	}
	m.settled.WithLabelValues(result).Observe(max(took.Seconds(), 0))
}

// traceparent matches the value of the header of that name in W3C Trace Context,
// section 3.2. It allows hex digits only, so nothing else gets into the log.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Trace returns the traceparent in a mail's header, or "" if there is no valid
// one. Programs that trace their requests can find their mail by it.
func Trace(raw []byte) string {
	value := mail.Field(raw, "traceparent")
	if traceparent.Match(value) && !invalid(string(value)) {
		return string(value)
	}
	return ""
}

// invalid reports whether the specification forbids a well-formed value: version
// ff, or an id of zeros.
func invalid(value string) bool {
	version, trace, parent := value[:2], value[3:35], value[36:52]
	return version == "ff" || strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == ""
}
