package budget

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Waiting is how many mails wait for memory at the moment.
func (b *Budget) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

func (b *Budget) register(reg prometheus.Registerer) {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_memory_budget_bytes",
		Help: "Memory that mail in flight may take together (limits.memory).",
	}, func() float64 { return float64(b.size) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_memory_used_bytes",
		Help: "Memory of the budget that connections and mail in flight have reserved. Near the budget, clients are told 452 and come again.",
	}, func() float64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		return float64(b.used)
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_memory_waiting",
		Help: "Mails that wait for memory at the moment. More than a few mean that the budget is too small for the mail that comes.",
	}, func() float64 { return float64(b.Waiting()) })
	b.gaveWay = auto.NewCounter(prometheus.CounterOpts{
		Name: "smtp2rest_memory_gave_way_total",
		Help: "Mails that gave up their memory while they came, because others waited for it and their clients were slow. These clients are told 452 and come again.",
	})
}
