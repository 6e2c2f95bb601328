package httpcall

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
)

// noStatus is the status label of a call that was not answered.
const noStatus = "none"

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		calls: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_api_calls_total",
			Help: "Calls to the API, by what they came to and by the class of the HTTP status (none: no answer). " +
				"Every attempt that was really made is one call.",
		}, []string{"outcome", "status"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smtp2rest_api_call_seconds",
			Help: "How long calls to the API took, whole, by what they came to. " +
				"Calls that end near api.timeout were given up on.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"outcome"}),
	}
	for _, kind := range relay.Kinds() {
		for _, status := range statuses(kind) {
			m.calls.WithLabelValues(kind.String(), status)
		}
		m.seconds.WithLabelValues(kind.String())
	}
	return m
}

// statuses are the classes that a call of that outcome can have, as Classify
// and noAnswer give them.
func statuses(kind relay.Kind) []string {
	switch kind {
	case relay.Accepted:
		return []string{"2xx"}
	case relay.Ambiguous:
		return []string{noStatus, "2xx", "3xx", "4xx", "5xx"}
	case relay.Unavailable:
		return []string{noStatus, "1xx", "3xx", "4xx", "5xx"}
	default:
		return []string{"4xx"}
	}
}

// statusClass is a status as a label. What HTTP has no class for is counted as
// 5xx: the server is broken.
func statusClass(status int) string {
	switch {
	case status == 0:
		return noStatus
	case status >= 100 && status < 500:
		return string(rune('0'+status/100)) + "xx"
	default:
		return "5xx"
	}
}

func (m *metrics) called(out relay.Outcome) {
	m.calls.WithLabelValues(out.Kind.String(), statusClass(out.Status)).Inc()
	m.seconds.WithLabelValues(out.Kind.String()).Observe(out.Took.Seconds())
}
