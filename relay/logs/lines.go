package logs

import (
	"context"
	"io"
	"log/slog"
	"sync"
)

// lineHandler writes one line at a time. In the systemd journal, each begins with the
// priority of its level (sd-daemon(3)).
type lineHandler struct {
	slog.Handler // writes to w
	w            *lineWriter
}

func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.level = r.Level
	return h.Handler.Handle(ctx, r)
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineHandler{h.Handler.WithAttrs(attrs), h.w}
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{h.Handler.WithGroup(name), h.w}
}

// lineWriter is what all handlers write to. slog writes a line at a time.
type lineWriter struct {
	to      io.Writer
	journal bool

	mu    sync.Mutex // held while a line is formatted and written
	level slog.Level // of that line
	buf   []byte
}

func (w *lineWriter) Write(line []byte) (int, error) {
	w.buf = w.buf[:0]
	if w.journal {
		w.buf = append(w.buf, priority(w.level)...)
	}
	w.buf = append(w.buf, line...)
	if _, err := w.to.Write(w.buf); err != nil {
		return 0, err
	}
	return len(line), nil
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
