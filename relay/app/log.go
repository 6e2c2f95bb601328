package app

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
)

// NewLog returns the program log as the configuration wants it. A file may be
// the systemd journal, which the environment tells. The log is to be closed
// after the App has stopped.
func NewLog(w io.Writer, c config.Log, env func(string) (string, bool)) *logs.Log {
	f, isFile := w.(*os.File)
	return logs.New(logs.Options{
		W: w, Format: logs.Format(c.Format), Level: c.Level,
		Journal: isFile && logs.IsJournal(f, env),
		// Each of these lines is about a mail or a recipient of its own.
		Always: []string{"recipient", "message"},
	})
}

// counted is a log whose lines are counted, written or not.
func counted(log *slog.Logger, reg prometheus.Registerer) *slog.Logger {
	lines := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_log_lines_total",
		Help: "Lines for the log by level, those included that were summed up instead of written. Errors want somebody to look.",
	}, []string{"level"})
	h := &counter{Handler: log.Handler()}
	for i, name := range [...]string{"debug", "info", "warn", "error"} {
		h.lines[i] = lines.WithLabelValues(name)
	}
	return slog.New(h)
}

type counter struct {
	slog.Handler
	lines [4]prometheus.Counter
}

func (h *counter) Handle(ctx context.Context, r slog.Record) error {
	// slog's levels are four apart, from -4 for debug.
	h.lines[min(max(int(r.Level)/4+1, 0), 3)].Inc()
	return h.Handler.Handle(ctx, r)
}

func (h *counter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &counter{h.Handler.WithAttrs(attrs), h.lines}
}

func (h *counter) WithGroup(name string) slog.Handler {
	return &counter{h.Handler.WithGroup(name), h.lines}
}
