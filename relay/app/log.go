package app

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/logs"
)

// NewLog returns the program log as the configuration wants it. A file may be
// the systemd journal, which the environment tells. The log is to be closed
// after the App has stopped.
func NewLog(w io.Writer, s logs.Settings, env func(string) (string, bool)) *logs.Log {
	f, isFile := w.(*os.File)
	return logs.New(logs.Options{
		W: w, Settings: s,
		Journal: isFile && logs.IsJournal(f, env),
		Always:  always(), ByClient: byClient(),
	})
}

// always are the messages of which every line is written, because it is the
// only place where something is told: what became of a recipient or a mail,
// that a sender could not be told of it, and what is odd in the configuration.
func always() []string {
	return []string{
		"recipient", "message", "configuration",
		"a stored mail is damaged and cannot be sent; its sender will be told",
		"given up; nobody can be told",
		"given up; the sender was told of too many failures in the last hour to be told of this one",
		"some recipients failed, and there is no sender to tell",
		"the bounce cannot be mapped",
		"the bounce cannot be sent; the client was told to come again",
	}
}

// byClient are the messages that strangers can bring about as often as they like.
func byClient() []string {
	return []string{"refused", "login failed", "PROXY header refused", "TLS handshake failed", "the client takes no replies"}
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
