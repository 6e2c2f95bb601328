package webhook

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
)

// result is what became of a request.
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
		Help: "Requests to the webhook endpoint, by what became of them. " +
			"bad_signature: not the provider's, or the secret is wrong; not_kept: the storage failed, and the provider was told to come again; " +
			"cut_short: the client did not send all of it; not_ours: another path or method.",
	}, []string{"result"})
	events := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_webhook_events_total",
		Help: "Events that the provider sent, each counted once however often it came, by type. Types that this version does not know are other.",
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
