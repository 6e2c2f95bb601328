package deliver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// register registers the engine's metrics.
func (e *Engine) register(reg prometheus.Registerer) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_delivery_unsettled_attempts",
		Help: "Attempts whose outcome the storage does not take. While there are any, the queue stands still so that nothing is sent twice.",
	}, func() float64 { return float64(e.unsettled.Load()) })
}
