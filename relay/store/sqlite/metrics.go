package sqlite

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
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
	return &metrics{
		commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_seconds",
			Help:    "How long it took to make a group of changes durable. The disk's sync is most of it.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		group: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_changes",
			Help:    "How many changes shared a commit. It grows by itself with what goes on at the same time.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, batch},
		}),
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_storage_errors_total",
			Help: "Groups of changes that the storage refused. Nothing that was acknowledged is lost by it; what was refused is told to who asked.",
		}),
		broken: auto.NewGauge(prometheus.GaugeOpts{
			Name: "smtp2rest_storage_broken",
			Help: "1 from an I/O error of the storage on until it works again. No mail can be queued meanwhile.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{}),
	}
}

func newRecordsMetrics(o Options) *metrics {
	auto := promauto.With(o.Metrics)
	return &metrics{
		commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_records_commit_seconds",
			Help:    "How long it took to make a group of records (suppressions, events, history) durable. Mail does not wait for it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{}),
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_records_errors_total",
			Help: "Groups of records that could not be written. Mail is not touched by it; the log says why.",
		}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{}),
		dropped: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_records_dropped_total",
			Help: "Records that nobody waits for, such as history, that were given up: the storage failed, or was too slow for them.",
		}),
	}
}
