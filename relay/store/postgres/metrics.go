package postgres

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// queueMetrics have the names of the embedded engine's, because they mean the same.
type queueMetrics struct {
	commits prometheus.Histogram
	group   prometheus.Histogram
	errors  prometheus.Counter
}

func newQueueMetrics(d *DB) *queueMetrics {
	auto := promauto.With(d.opts.Metrics)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_storage_broken",
		Help: "1 from an I/O error of the storage on until it works again. No mail can be queued meanwhile.",
	}, func() float64 {
		if _, err := d.down.trouble(); err != nil {
			return 1
		}
		return 0
	})
	return &queueMetrics{
		commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_seconds",
			Help:    "How long it took to make a group of changes durable. The disk's sync is most of it.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		group: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_changes",
			Help:    "How many changes shared a commit. It grows by itself with what goes on at the same time.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, maxGroup},
		}),
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_storage_errors_total",
			Help: "Groups of changes that the storage refused. Nothing that was acknowledged is lost by it; what was refused is told to who asked.",
		}),
	}
}

// time begins to measure a transaction that so many calls share.
func (m *queueMetrics) time(calls int) (end func()) {
	begun := time.Now()
	m.group.Observe(float64(calls))
	return func() { m.commits.Observe(time.Since(begun).Seconds()) }
}

// failed counts an error that is the storage's.
func (m *queueMetrics) failed(err error) {
	if err == nil || errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrNotFound) {
		return
	}
	m.errors.Inc()
}
