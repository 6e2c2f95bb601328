package intake

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/payload"
)

type metrics struct {
	leftOut *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{leftOut: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_left_out_total",
		Help: "Pieces of mail that was taken which the API was not given, by kind: 'smtp2rest trace' names those of one mail.",
	}, []string{"kind"})}
	for _, kind := range payload.NoteKinds() {
		if kind.LeftOut() {
			m.leftOut.WithLabelValues(kind.String())
		}
	}
	return m
}
