package attempt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/pace"
)

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
			Help: "Recipients that came to their end, and how: sent, or failed in one of the other ways. " +
				"direct is while the client waited, queue is later.",
		}, []string{"end", "way"}),
		settled: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smtp2rest_recipient_settled_seconds",
			Help: "How long it took from a mail's acceptance until the API had taken it for a recipient, or the recipient was given up.",
			// From an API that answers at once to mail that is given up after days.
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
		}, []string{"result"}),
		postponed: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_attempts_postponed_total",
			Help: "First attempts whose turn did not come while the client waited, and why: no call was made.",
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
	for _, why := range []pace.Why{pace.Rate, pace.Paused, pace.Down, pace.KeyBad, pace.Forbidden} {
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
