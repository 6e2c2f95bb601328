package postgres

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// queueMetrics have the names of the embedded engine's, because they mean the same.
type queueMetrics struct{ stored.Metrics }

func newQueueMetrics(d *DB) queueMetrics {
	promauto.With(d.opts.Metrics).NewGaugeFunc(prometheus.GaugeOpts(stored.Broken()), func() float64 {
		if _, err := d.down.trouble(); err != nil {
			return 1
		}
		return 0
	})
	return queueMetrics{stored.NewMetrics(d.opts.Metrics, maxGroup)}
}

// time begins to measure a transaction that so many calls share.
func (m queueMetrics) time(calls int) (end func()) {
	begun := time.Now()
	m.Group.Observe(float64(calls))
	return func() { m.Commits.Observe(time.Since(begun).Seconds()) }
}

// failed counts an error that is the storage's.
func (m queueMetrics) failed(err error) {
	if err == nil || errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrNotFound) {
		return
	}
	m.Errors.Inc()
}
