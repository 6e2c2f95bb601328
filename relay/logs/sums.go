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
	// shown is how many lines of a message are written in a window before the rest is
	// only counted: enough to see whether they have one cause.
	shown = 5
	// messages is how many different messages are tracked. The program has fewer.
	// Further messages are written as they are.
	messages = 256
)

// sums counts lines that repeat. Lines are alike if their level and message are the
// same, and for ByClient also their client and reply. The first lines, which are
// written, show in what else they differ.
type sums struct {
	lines  slog.Handler // writes the sums
	window time.Duration

	mu     sync.Mutex
	closed bool
	open   map[like]*sum
}

// like is what similar lines have in common.
type like struct {
	level         slog.Level
	message       string
	client, reply string // for ByClient
}

// sum is the window of one message.
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

// write reports whether a line is to be written. If not, it counts the line.
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
			key.client, key.reply = "", "" // sum up all further clients together
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
	if one.more == 0 { // from now on there is a sum to write when the window ends
		one.closer = time.AfterFunc(time.Until(one.begun.Add(s.window)), func() { s.end(key, one) })
	}
	one.more++
	return false
}

// forget drops windows that are over and have no sum to write.
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

// tell writes a sum. It holds the mutex, so that close returns after the last one.
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
		_ = s.lines.Handle(context.Background(), r) // there is no other place to report a failing log
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

// summing is a handler that counts lines in one place, whatever attributes its loggers
// have.
type summing struct {
	slog.Handler
	log    *Log
	client string // the address of the client that the lines are about
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
