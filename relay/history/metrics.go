package history

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	facts, lost, failed, pruned prometheus.Counter
	bytes                       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	return &metrics{
		facts: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_facts_total",
			Help: "Facts about mail that were noted for the history.",
		}),
		lost: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_lost_total",
			Help: "Facts that the history does not have because they came faster than they could be written. No mail is lost with them.",
		}),
		failed: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_write_errors_total",
			Help: "Times the history could not be written; it is tried again while memory allows.",
		}),
		pruned: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_pruned_mails_total",
			Help: "Mails removed from the history because of their age or because of its size.",
		}),
		bytes: with.NewGauge(prometheus.GaugeOpts{
			Name: "smtp2rest_history_bytes",
			Help: "How much room the history takes on the disk, as of the last look, once a minute.",
		}),
	}
}
