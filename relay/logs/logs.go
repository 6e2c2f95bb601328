// Package logs writes the program's log lines: for people, for programs or for the
// systemd journal. It sums up warnings and errors that repeat. All other packages only
// know log/slog; relay/app makes the one logger.
package logs

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Options configure a Log.
type Options struct {
	Settings
	W io.Writer
	// Journal says that W is the systemd journal. Each line then begins with its
	// priority (sd-daemon(3)), which the journal removes.
	Journal bool
	// Always has messages that are never summed up, because each of their lines is
	// about something else.
	Always []string
	// ByClient has messages that are summed up at any level, separately for each
	// client (the address in the attribute "client") and each code at the beginning
	// of the attribute "reply". Strangers decide how many of them there are.
	ByClient []string
	Window   time.Duration // in which lines are summed up; default one minute
}

// Settings can be changed by Change. internal/settings explains the tags.
type Settings struct {
	Level  slog.Level `toml:"level" default:"info" doc:"The least important lines that are written: \"debug\", \"info\", \"warn\" or \"error\"."`
	Format Format     `toml:"format" default:"auto" words:"auto text json" doc:"\"text\" for people, \"json\" for programs; \"auto\" is text, and in the systemd journal without the time that it has already."`
}

// Format is the format of a line.
type Format string

// Auto is Text, but leaves out the time in the journal, which has it already.
const (
	Auto Format = "auto"
	Text Format = "text"
	JSON Format = "json"
)

// Log is a logger whose level and format can be changed.
type Log struct {
	*slog.Logger
	opt   Options
	level *slog.LevelVar
	root  *atomic.Pointer[slog.Handler]
	sums  *sums
	peers *sums // of ByClient: clients, however many, take no room from our own messages
}

// New returns a Log. Close it after everybody who writes to it has ended.
func New(o Options) *Log {
	level := new(slog.LevelVar)
	level.Set(o.Level)
	l := &Log{opt: o, level: level, root: new(atomic.Pointer[slog.Handler])}
	l.write(o.Format)
	lines := &switching{root: l.root}
	l.sums, l.peers = newSums(lines, o), newSums(lines, o)
	l.Logger = slog.New(&summing{Handler: lines, log: l})
	return l
}

// Change changes the format and the level from now on.
func (l *Log) Change(s Settings) {
	l.level.Set(s.Level)
	l.write(s.Format)
}

func (l *Log) write(format Format) {
	o := l.opt
	o.Format = format
	lines := lineHandler(o, l.level)
	if o.Journal {
		lines = newJournalHandler(o, l.level)
	}
	l.root.Store(&lines)
}

// Close writes the sums that are still open. Later lines are written as they are.
func (l *Log) Close() {
	l.sums.close()
	l.peers.close()
}

// lineHandler writes lines without a priority.
func lineHandler(o Options, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if o.Journal && o.Format == Auto {
		options.ReplaceAttr = withoutTime
	}
	if o.Format == JSON {
		return slog.NewJSONHandler(o.W, options)
	}
	return slog.NewTextHandler(o.W, options)
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// IsJournal reports whether a file is the stream to the systemd journal.
// $JOURNAL_STREAM has its device and inode (systemd.exec(5)). The variable being set
// is not enough: a program whose output is redirected inherits it too.
func IsJournal(f *os.File, env func(string) (string, bool)) bool {
	stream, ok := env("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	return stream == deviceAndInode(f)
}

// switching is a handler whose root can be replaced under loggers that exist already.
// After that, their attributes and groups are applied to the new root.
type switching struct {
	root *atomic.Pointer[slog.Handler]
	with []func(slog.Handler) slog.Handler // the attributes and groups
	made atomic.Pointer[built]
}

// built is a root with the attributes and groups applied.
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
