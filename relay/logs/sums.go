package logs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// shown is how many lines of one message are written in a window before
	// the rest is only counted: enough to see whether they have one cause.
	shown = 5
	// messages is how many are kept apart. The program has fewer, and what
	// comes beyond that is written as it is.
	messages = 256
)

// sums counts lines that repeat. Two lines are alike when level and message are,
// and client and reply where those count: what else differs in them is in the
// first few, which are written.
type sums struct {
	lines  slog.Handler // where the sums go
	window time.Duration

	mu     sync.Mutex
	closed bool
	open   map[like]*sum
}

// like is what lines have in common that are summed up.
type like struct {
	level         slog.Level
	message       string
	client, reply string // of ByClient
}

// sum is one message's window.
type sum struct {
	begun  time.Time
	lines  int // written
	more   int // not written
	closer *time.Timer
}

func newSums(lines slog.Handler, o Options) *sums {
	if o.Window <= 0 {
		o.Window = time.Minute
	}
	return &sums{lines: lines, window: o.Window, open: make(map[like]*sum)}
}

// write reports whether a line is to be written, and counts it if not.
func (s *sums) write(key like) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	one := s.open[key]
	if one == nil && len(s.open) >= messages {
		if s.forget(); len(s.open) >= messages {
			if key.client == "" {
				return true
			}
			key.client, key.reply = "", "" // all other clients together
			one = s.open[key]
		}
	}
	switch {
	case one == nil, one.more == 0 && time.Since(one.begun) >= s.window:
		s.open[key] = &sum{begun: time.Now(), lines: 1}
		return true
	case one.lines < shown:
		one.lines++
		return true
	}
	if one.more == 0 { // only what is owed a sum needs a clock
		one.closer = time.AfterFunc(time.Until(one.begun.Add(s.window)), func() { s.end(key, one) })
	}
	one.more++
	return false
}

// forget drops the windows that are over and owe nothing.
func (s *sums) forget() {
	for key, one := range s.open {
		if one.more == 0 && time.Since(one.begun) >= s.window {
			delete(s.open, key)
		}
	}
}

// end writes the sum of a window that is over.
func (s *sums) end(key like, one *sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == one {
		delete(s.open, key)
		s.tell(key, one)
	}
}

// tell holds the mutex, so that close returns after the last sum is written.
func (s *sums) tell(key like, one *sum) {
	took := time.Since(one.begun).Round(time.Second)
	r := slog.NewRecord(time.Now(), key.level, fmt.Sprintf("… and %d more like it in %d s", one.more, int(took.Seconds())), 0)
	r.AddAttrs(slog.String("like", key.message))
	if key.client != "" {
		r.AddAttrs(slog.String("client", key.client))
	}
	if key.reply != "" {
		r.AddAttrs(slog.String("reply", key.reply))
	}
	r.AddAttrs(slog.Int("more", one.more))
	if s.lines.Enabled(context.Background(), key.level) {
		_ = s.lines.Handle(context.Background(), r) // a log that cannot be written has nowhere to say so
	}
}

func (s *sums) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for key, one := range s.open {
		if one.more > 0 {
			one.closer.Stop()
			s.tell(key, one)
		}
	}
	clear(s.open)
}

// summing is a handler whose lines are counted in one place, whatever
// attributes they carry.
type summing struct {
	slog.Handler
	log    *Log
	client string // whom the lines are about, without the port
}

func (h *summing) Handle(ctx context.Context, r slog.Record) error {
	if h.write(r) {
		return h.Handler.Handle(ctx, r)
	}
	return nil
}

func (h *summing) write(r slog.Record) bool {
	key := like{level: r.Level, message: r.Message}
	switch {
	case slices.Contains(h.log.opt.ByClient, r.Message):
		key.client = h.client
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "reply" {
				key.reply, _, _ = strings.Cut(a.Value.String(), " ")
			}
			return true
		})
		return h.log.peers.write(key)
	case r.Level < slog.LevelWarn, slices.Contains(h.log.opt.Always, r.Message):
		return true
	}
	return h.log.sums.write(key)
}

func (h *summing) WithAttrs(attrs []slog.Attr) slog.Handler {
	client := h.client
	for _, a := range attrs {
		if a.Key == "client" {
			client = a.Value.String()
			if host, _, err := net.SplitHostPort(client); err == nil {
				client = host
			}
		}
	}
	return &summing{h.Handler.WithAttrs(attrs), h.log, client}
}

func (h *summing) WithGroup(name string) slog.Handler {
	return &summing{h.Handler.WithGroup(name), h.log, h.client}
}
