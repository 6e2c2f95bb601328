package logs

import (
	"context"
	"io"
	"log/slog"
	"sync"
)

// journalHandler writes each line with the priority of its level in front, for the
// systemd journal (sd-daemon(3)).
type journalHandler struct {
	slog.Handler // writes to w
	w            *journalWriter
}

func newJournalHandler(o Options, level slog.Leveler) slog.Handler {
	w := &journalWriter{to: o.W}
	o.W = w
	return &journalHandler{lineHandler(o, level), w}
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.priority = priority(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(attrs), h.w}
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.w}
}

// priority returns the prefix for debug, info, warning or err of syslog(3).
func priority(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "<7>"
	case level < slog.LevelWarn:
		return "<6>"
	case level < slog.LevelError:
		return "<4>"
	default:
		return "<3>"
	}
}

// journalWriter puts the priority in front of a line. slog writes a line at a time.
type journalWriter struct {
	to io.Writer

	mu       sync.Mutex // held while a line is formatted and written
	priority string
	buf      []byte
}

func (w *journalWriter) Write(line []byte) (int, error) {
	w.buf = append(append(w.buf[:0], w.priority...), line...)
	if _, err := w.to.Write(w.buf); err != nil {
		return 0, err
	}
	return len(line), nil
}
