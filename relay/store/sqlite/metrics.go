package sqlite

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// metrics are of one database. What is not told of it is not registered.
type metrics struct {
	commits prometheus.Histogram
	group   prometheus.Histogram
	errors  prometheus.Counter
	broken  prometheus.Gauge
	dropped prometheus.Counter
}

func newQueueMetrics(o Options) *metrics {
	auto := promauto.With(o.Metrics)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_storage_free_bytes",
		Help: "Bytes that are free on the disk of the data directory; at smtp2rest_storage_free_bytes_min and below no mail is queued. -1 when it cannot be told.",
	}, func() float64 {
		free, err := db.FreeBytes(o.Dir)
		if err != nil {
			return -1
		}
		return float64(free)
	})
	m := stored.NewMetrics(o.Metrics, batch)
	return &metrics{commits: m.Commits, group: m.Group, errors: m.Errors, broken: auto.NewGauge(stored.Broken()), dropped: prometheus.NewCounter(prometheus.CounterOpts{})}
}

func newRecordsMetrics(o Options) *metrics {
	auto := promauto.With(o.Metrics)
	return &metrics{
		commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_records_commit_seconds",
			Help:    "How long it took to make a group of records (suppressions, events, history) durable. Mail does not wait for it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		group:   prometheus.NewHistogram(prometheus.HistogramOpts{}),
		errors:  auto.NewCounter(stored.RecordErrors()),
		broken:  prometheus.NewGauge(prometheus.GaugeOpts{}),
		dropped: auto.NewCounter(stored.Dropped()),
	}
}
