package app

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

//go:generate go test -run ^TestMetricsDocument$ -update .

// newRegistry has what every program tells of itself. Each package adds its
// own metrics when it is made, so that all of them are there from the start.
func newRegistry(version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "smtp2rest_build_info",
		Help:        "Always 1; the labels tell which version runs and with which Go it was built.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// aliveTime bounds what a scrape waits for the delivery loop.
const aliveTime = time.Second

// measure adds what only app knows: what is configured, so that an alert needs
// no copy of the settings, and whether the parts get on.
func (p *parts) measure() {
	auto := promauto.With(p.metrics)
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "smtp2rest_" + name, Help: help}, value)
	}
	c := func() config.Queue { return p.config().Queue }
	gauge("queue_mails_limit", "How many mails the queue may hold (queue.max_mails); 0 is no bound.", func() float64 { return float64(c().MaxMails) })
	gauge("queue_bytes_limit", "How many bytes the mails in the queue may have (queue.max_size); 0 is no bound.", func() float64 { return float64(c().MaxBytes) })
	gauge("storage_free_bytes_min", "How much of the disk is left free (queue.min_free, at least 32 MiB): with less no mail is queued.", func() float64 {
		_, kept, _ := p.store.Space()
		return float64(kept)
	})
	gauge("delivery_alive", "1 while the loop that sends queued mail gets on, or shows that it would if there were any. 0 is a fault of this program.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), aliveTime)
		defer cancel()
		if p.health.live(ctx) != nil {
			return 0
		}
		return 1
	})
	gauge("warming_full_domains", "Domains that are being warmed and have sent their share of today; their ordinary mail waits for tomorrow.", func() float64 {
		full := 0
		for _, d := range p.meter.State(time.Now()) {
			if d.Full() {
				full++
			}
		}
		return float64(full)
	})
}
