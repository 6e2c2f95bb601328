package records

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	commits prometheus.Histogram
	errors  prometheus.Counter
	dropped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	return &metrics{
		commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_records_commit_seconds",
			Help:    "How long it took to make a group of records (suppressions, events, history) durable. Mail does not wait for it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_records_errors_total",
			Help: "Groups of records that could not be written. Mail is not touched by it; the log says why.",
		}),
		dropped: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_records_dropped_total",
			Help: "Records that nobody waits for, such as history, that were given up: the storage failed, or was too slow for them.",
		}),
	}
}

func (m *metrics) committed(took time.Duration) { m.commits.Observe(took.Seconds()) }
