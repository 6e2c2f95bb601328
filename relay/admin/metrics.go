package admin

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// statsTime bounds how long a scrape waits for the storage.
const statsTime = 3 * time.Second

// metricsHandler answers with all that gatherer has. One family that cannot be
// gathered, such as the queue's while its storage hangs, does not take the
// others away.
func metricsHandler(gatherer prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
}

// collector reads the queue's counts when somebody scrapes, and never else.
type collector struct {
	queue queue.Operator

	recipients, mails, failed, bytes, oldest, unbounced *prometheus.Desc
}

// Collector is what a queue holds, as metrics.
func Collector(q queue.Operator) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("smtp2rest_queue_"+name, help, labels, nil)
	}
	return &collector{
		queue: q,
		recipients: desc("recipients", "Recipients in the queue by state. waiting and sending are open, held waits for an operator, "+
			"failed was given up and stays listed until it is dropped, sent stays listed for queue.keep_sent.", "state"),
		mails:     desc("mails", "Mails that have a recipient to be sent to or held, which queue.max_mails bounds."),
		failed:    desc("failed_mails", "Mails that are kept because they failed, which queue.max_mails bounds as well, apart from the others."),
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
