package logs

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// switching is a handler whose root can change under loggers that were made
// before. What they were made with is put on the root anew when it changed.
type switching struct {
	root *atomic.Pointer[slog.Handler]
	with []func(slog.Handler) slog.Handler
	made atomic.Pointer[built]
}

// built is a root with what there is to put on it.
type built struct {
	root    *slog.Handler
	handler slog.Handler
}

func (s *switching) current() slog.Handler {
	root := s.root.Load()
	if b := s.made.Load(); b != nil && b.root == root {
		return b.handler
	}
	h := *root
	for _, f := range s.with {
		h = f(h)
	}
	s.made.Store(&built{root, h})
	return h
}

func (s *switching) Enabled(ctx context.Context, l slog.Level) bool {
	return (*s.root.Load()).Enabled(ctx, l)
}

func (s *switching) Handle(ctx context.Context, r slog.Record) error {
	return s.current().Handle(ctx, r)
}

func (s *switching) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.and(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (s *switching) WithGroup(name string) slog.Handler {
	return s.and(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *switching) and(f func(slog.Handler) slog.Handler) slog.Handler {
	return &switching{root: s.root, with: append(s.with[:len(s.with):len(s.with)], f)}
}
