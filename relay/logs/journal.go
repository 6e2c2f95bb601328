package logs

import (
	"context"
	"io"
	"log/slog"
	"sync"
)

// priorities writes each line with the prefix of its level.
type priorities struct{ of [4]slog.Handler }

func newPriorities(o Options, level slog.Leveler) slog.Handler {
	p := &priorities{}
	w := &together{w: o.W}
	for i, prefix := range [...]string{"<7>", "<6>", "<4>", "<3>"} { // debug, info, warning, err of syslog(3)
		o.W = &prefixed{to: w, prefix: []byte(prefix)}
		p.of[i] = lineHandler(o, level)
	}
	return p
}

func (p *priorities) pick(level slog.Level) slog.Handler {
	switch {
	case level < slog.LevelInfo:
		return p.of[0]
	case level < slog.LevelWarn:
		return p.of[1]
	case level < slog.LevelError:
		return p.of[2]
	default:
		return p.of[3]
	}
}

func (p *priorities) Enabled(ctx context.Context, level slog.Level) bool {
	return p.pick(level).Enabled(ctx, level)
}

func (p *priorities) Handle(ctx context.Context, r slog.Record) error {
	return p.pick(r.Level).Handle(ctx, r)
}

func (p *priorities) WithAttrs(attrs []slog.Attr) slog.Handler {
	return p.each(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (p *priorities) WithGroup(name string) slog.Handler {
	return p.each(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (p *priorities) each(f func(slog.Handler) slog.Handler) slog.Handler {
	var q priorities
	for i, h := range p.of {
		q.of[i] = f(h)
	}
	return &q
}

// together lets several handlers share a writer, a line at a time.
type together struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *together) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(p)
}

// prefixed puts something before each line; slog writes a line at a time.
type prefixed struct {
	to     io.Writer
	prefix []byte
}

func (w *prefixed) Write(line []byte) (int, error) {
	all := make([]byte, 0, len(w.prefix)+len(line))
	if _, err := w.to.Write(append(append(all, w.prefix...), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
