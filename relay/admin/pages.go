package admin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The pages that people, supervisors and monitoring read with GET.
const (
	Livez   = "/livez"   // does the process make progress? If not, restart it
	Readyz  = "/readyz"  // can mail be handed over? If not, send it elsewhere
	Metrics = "/metrics" // for Prometheus
	status  = "/status"  // Status, as JSON
)

// healthTime bounds a check. One that takes longer fails.
const healthTime = 5 * time.Second

// Health has the checks that supervisors ask for. One that is nil always passes.
type Health struct {
	Live  func(context.Context) error
	Ready func(context.Context) error
}

// handlePages adds the pages that are read with GET.
func handlePages(mux *http.ServeMux, o ServerOptions) {
	mux.Handle("GET "+Livez, healthPage(o.Health.Live, healthTime))
	mux.Handle("GET "+Readyz, healthPage(o.Health.Ready, healthTime))
	mux.HandleFunc("GET "+status, func(w http.ResponseWriter, r *http.Request) {
		s, err := o.Admin.Status(r.Context())
		if err != nil {
			reply(w, struct{}{}, err)
			return
		}
		writeJSON(w, http.StatusOK, s)
	})
	if o.Metrics != nil {
		mux.Handle("GET "+Metrics, metricsHandler(o.Metrics, o.Log))
	}
}

// healthPage answers 200 and "ok", or 503 and the reason.
func healthPage(check func(context.Context) error, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if check != nil {
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			if err := check(ctx); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = fmt.Fprintln(w, text(err.Error()))
				return
			}
		}
		_, _ = io.WriteString(w, "ok\n")
	})
}

// statsTime bounds how long a scrape waits for the storage.
const statsTime = 3 * time.Second

// metricsHandler answers with the metrics. When some of them cannot be collected, such
// as the queue's while its storage hangs, it answers with the others.
func metricsHandler(gatherer prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
}

// collector reads the queue's counts at each scrape, and at no other time.
type collector struct {
	queue queue.Operator

	recipients, mails, failed, bytes, oldest, unbounced *prometheus.Desc
}

// Collector returns the metrics of a queue.
func Collector(q queue.Operator) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("smtp2rest_queue_"+name, help, labels, nil)
	}
	return &collector{
		queue: q,
		recipients: desc("recipients", "Recipients in the queue by state. waiting and sending are open, held waits for an operator, "+
			"failed was given up and stays listed for queue.keep_failed, sent stays listed for queue.keep_sent.", "state"),
		mails:     desc("mails", "Mails that have a recipient to be sent to or held, which queue.max_mails bounds."),
		failed:    desc("failed_mails", "Mails that are kept because they failed, for queue.keep_failed. queue.max_mails does not count them, queue.max_size does."),
		bytes:     desc("bytes", "Bytes of the mails that are kept, which queue.max_size bounds."),
		oldest:    desc("oldest_age_seconds", "How long the oldest mail that still has a recipient to be sent to has been here; 0 when none waits."),
		unbounced: desc("unbounced_recipients", "Recipients that failed and whose sender is still to be told."),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.recipients, c.mails, c.failed, c.bytes, c.oldest, c.unbounced} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTime)
	defer cancel()
	stats, err := c.queue.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.recipients, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range queue.States() {
		gauge(c.recipients, float64(stats.Recipients[s]), s.String())
	}
	gauge(c.mails, float64(stats.Mails-stats.FailedMails))
	gauge(c.failed, float64(stats.FailedMails))
	gauge(c.bytes, float64(stats.Bytes))
	gauge(c.unbounced, float64(stats.Unbounced))
	age := 0.0
	if !stats.Oldest.IsZero() {
		age = max(time.Since(stats.Oldest).Seconds(), 0)
	}
	gauge(c.oldest, age)
}
