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
	Level  slog.Level `toml:"level" default:"info" doc:"The lowest level of lines that are written: \"debug\", \"info\", \"warn\" or \"error\"."`
	Format Format     `toml:"format" default:"auto" words:"auto text json" doc:"\"text\" is for people, \"json\" for programs. \"auto\" is text, but without the time in the systemd journal, which has it already."`
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
	opt    Options
	level  *slog.LevelVar
	format *atomic.Pointer[Format]
	sums   *sums
	peers  *sums // of ByClient: clients, however many, take no room from our own messages
}

// New returns a Log. Close it after everybody who writes to it has ended.
func New(o Options) *Log {
	l := &Log{opt: o, level: new(slog.LevelVar), format: new(atomic.Pointer[Format])}
	l.Change(o.Settings)
	w := &lineWriter{to: o.W, journal: o.Journal}
	lines := &formats{l.format, l.handler(w, Auto), l.handler(w, Text), l.handler(w, JSON)}
	l.sums, l.peers = newSums(lines, o), newSums(lines, o)
	l.Logger = slog.New(&summing{Handler: lines, log: l})
	return l
}

// Change changes the format and the level from now on.
func (l *Log) Change(s Settings) {
	l.level.Set(s.Level)
	l.format.Store(&s.Format)
}

// Close writes the sums that are still open. Later lines are written as they are.
func (l *Log) Close() {
	l.sums.close()
	l.peers.close()
}

// handler returns a handler that writes lines in a format.
func (l *Log) handler(w *lineWriter, format Format) slog.Handler {
	options := &slog.HandlerOptions{Level: l.level}
	if l.opt.Journal && format == Auto {
		options.ReplaceAttr = withoutTime
	}
	if format == JSON {
		return &lineHandler{slog.NewJSONHandler(w, options), w}
	}
	return &lineHandler{slog.NewTextHandler(w, options), w}
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

// formats is a handler whose format can change under loggers that exist already.
type formats struct {
	format           *atomic.Pointer[Format]
	auto, text, json slog.Handler
}

func (f *formats) Enabled(ctx context.Context, l slog.Level) bool { return f.text.Enabled(ctx, l) }

func (f *formats) Handle(ctx context.Context, r slog.Record) error {
	switch *f.format.Load() {
	case JSON:
		return f.json.Handle(ctx, r)
	case Text:
		return f.text.Handle(ctx, r)
	default:
		return f.auto.Handle(ctx, r)
	}
}

func (f *formats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &formats{f.format, f.auto.WithAttrs(attrs), f.text.WithAttrs(attrs), f.json.WithAttrs(attrs)}
}

func (f *formats) WithGroup(name string) slog.Handler {
	return &formats{f.format, f.auto.WithGroup(name), f.text.WithGroup(name), f.json.WithGroup(name)}
}
