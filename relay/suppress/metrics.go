package suppress

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	refused [reasonCount]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, x *index) *metrics {
	auto := promauto.With(reg)
	refused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_suppression_refusals_total",
		Help: "Recipients that were refused because they are known to be suppressed, by the reason.",
	}, []string{"reason"})
	m := &metrics{}
	for i := range m.refused { // 0 is for what this version does not know
		m.refused[i] = refused.WithLabelValues(Reason(i).String())
	}
	for _, r := range Reasons() {
		for _, s := range Sources() {
			auto.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "smtp2rest_suppression_entries",
				Help:        "Addresses on the list, by reason and by who told us. Unsubscribed ones are only marked, unless webhook.suppress_unsubscribed is on.",
				ConstLabels: prometheus.Labels{"reason": r.String(), "source": s.String()},
			}, func() float64 { return float64(x.count(r, s)) })
		}
	}
	return m
}
