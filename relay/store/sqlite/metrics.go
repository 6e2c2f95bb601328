package sqlite

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

type metrics struct {
	commits prometheus.Histogram
	group   prometheus.Histogram
	errors  prometheus.Counter
	broken  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, dir string) *metrics {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_storage_free_bytes",
		Help: "Bytes that are free on the disk of the data directory; at smtp2rest_storage_free_bytes_min and below no mail is queued. -1 when it cannot be told.",
	}, func() float64 {
		free, err := db.FreeBytes(dir)
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
	}
}

// committed notes a group that is durable.
func (m *metrics) committed(changes int, took time.Duration) {
	m.commits.Observe(took.Seconds())
	m.group.Observe(float64(changes))
}

// failed notes a group that the storage did not take.
func (m *metrics) failed(broken bool) {
	m.errors.Inc()
	if broken {
		m.broken.Set(1)
	}
}
