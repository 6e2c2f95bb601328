package deliver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// telling is what came of the wish to tell a sender. The set is closed.
type telling string

const (
	told    telling = "told"     // a bounce was queued
	nobody  telling = "nobody"   // there is no sender that can be told
	tooMany telling = "too_many" // bounce.per_hour is used up
)

type metrics struct{ bounces *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer, e *Engine) *metrics {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_delivery_unsettled_attempts",
		Help: "Attempts whose outcome the storage does not take. While there are any, the queue stands still so that nothing is sent twice.",
	}, func() float64 { return float64(e.unsettled.Load()) })
	m := &metrics{bounces: auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_bounces_total",
		Help: "Mails that were given up for some recipients, by whether the sender was told: told (a bounce was queued), " +
			"nobody (no sender that could be told, and no postmaster), too_many (bounce.per_hour).",
	}, []string{"sender"})}
	for _, t := range []telling{told, nobody, tooMany} {
		m.bounces.WithLabelValues(string(t))
	}
	return m
}

func (m *metrics) bounced(t telling) { m.bounces.WithLabelValues(string(t)).Inc() }
