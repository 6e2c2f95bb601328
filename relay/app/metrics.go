package app

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
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

// gauge adds what only app knows of the whole daemon.
func (d *daemon) gauge(name, help string, value func() float64) {
	gauge(d.metrics, name, help, value)
}

// gauge adds what only app knows to the metrics of an account, or of all.
func gauge(metrics prometheus.Registerer, name, help string, value func() float64) {
	promauto.With(metrics).NewGaugeFunc(prometheus.GaugeOpts{Name: "smtp2rest_" + name, Help: help}, value)
}

// aliveTime bounds what a scrape waits for the delivery loop.
const aliveTime = time.Second

// alive is 1 while the relay makes progress.
func (d *daemon) alive() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), aliveTime)
	defer cancel()
	if d.health.live(ctx) != nil {
		return 0
	}
	return 1
}
