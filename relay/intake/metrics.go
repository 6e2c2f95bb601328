package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// result is what a client was told about its mail, as a metric label.
type result string

const (
	accepted result = "accepted" // the API took it for all recipients; some may be reported as refused
	queued   result = "queued"   // stored and sent later
	repeated result = "repeated" // the same mail again after a lost reply, answered as before
	refused  result = "refused"  // 5xx
	deferred result = "deferred" // 4xx: the client has to try again
)

func results() []result { return []result{accepted, queued, repeated, refused, deferred} }

// resultOf returns the result that a reply stands for. kept says that some of
// the mail is in the queue.
func resultOf(r *reply.Reply, kept, again bool) result {
	switch {
	case again:
		return repeated
	case r.Code()/100 == 5:
		return refused
	case !r.Positive():
		return deferred
	case kept:
		return queued
	default:
		return accepted
	}
}

type metrics struct {
	messages *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    prometheus.Counter
	leftOut  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		messages: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_messages_total",
			Help: "Mails that clients handed over, by what they were told: accepted (the API took it), queued (stored and sent later), " +
				"repeated (the same mail again after a lost reply; not sent twice), refused (5xx), deferred (4xx; not taken).",
		}, []string{"outcome"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smtp2rest_message_reply_seconds",
			Help: "How long clients waited for the reply to their mail, from its last byte on. " +
				"delivery.wait and api.timeout bound it.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60},
		}, []string{"outcome"}),
		bytes: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_message_bytes_total",
			Help: "Bytes of the mails that clients handed over, whatever the reply.",
		}),
		leftOut: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_left_out_total",
			Help: "Pieces of accepted mail that the API was not given, by kind. 'smtp2rest trace' lists those of one mail.",
		}, []string{"kind"}),
	}
	for _, kind := range mail.OmissionKinds() {
		if kind.LeftOut() {
			m.leftOut.WithLabelValues(kind.String())
		}
	}
	for _, f := range results() {
		m.messages.WithLabelValues(string(f))
		m.seconds.WithLabelValues(string(f))
	}
	return m
}

func (m *metrics) answered(f result, size int, took time.Duration) {
	m.messages.WithLabelValues(string(f)).Inc()
	m.seconds.WithLabelValues(string(f)).Observe(took.Seconds())
	m.bytes.Add(float64(size))
}

// ended counts the recipients that this message settled. Those that an earlier
// copy had settled are not counted again.
func (in *Intake) ended(r relay.Remainder, before earlier) {
	for i, out := range r.Outcomes {
		if _, _, known := before.outcome(r.Message.Recipients[i]); !known && out.Kind.Settled() {
			in.of(r.Message.Account).Attempts.Ended(attempt.Direct, attempt.Attempt{MessageID: r.Message.ID, From: r.Message.From,
				To: r.Message.Recipients[i], Number: 1}, out, r.Message.ReceivedAt)
		}
	}
}
