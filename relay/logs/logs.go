// Package logs turns what the relay says into lines: for people, for programs
// or for the systemd journal, and sums up trouble that repeats. Everybody else
// knows only log/slog; relay/app makes the one logger there is.
package logs

import (
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Options are what a Log is made from.
type Options struct {
	W      io.Writer
	Format Format
	Level  slog.Level
	// Journal is set when W is the systemd journal: each line then begins with
	// its priority, as sd-daemon(3) has it, which the journal takes off again.
	Journal bool
	// Always names messages that are never summed up: each of their lines is
	// about something of its own.
	Always []string
	// ByClient names messages that are summed up at any level, for each client
	// (by its address in the attribute "client") and each code that its attribute
	// "reply" begins with: a stranger decides how many there are.
	ByClient []string
	Window   time.Duration // in which trouble is summed up; default a minute
}

// Format is how a line looks.
type Format string

// Auto is Text, without the time where the journal has it already.
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
	peers *sums // of ByClient: however many clients there are, they take no room from trouble of our own
}

// New returns a Log. Close it at the end, after everybody who writes to it.
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

// Change changes how lines are written and which, from now on.
func (l *Log) Change(format Format, level slog.Level) {
	l.level.Set(level)
	l.write(format)
}

func (l *Log) write(format Format) {
	o := l.opt
	o.Format = format
	lines := lineHandler(o, l.level)
	if o.Journal {
		lines = newPriorities(o, l.level)
	}
	l.root.Store(&lines)
}

// Close writes the sums that are still open. Lines that come later are written
// as they are.
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

// IsJournal reports whether a file is the systemd journal's stream, which
// $JOURNAL_STREAM names by device and inode (systemd.exec(5)). The variable
// alone says nothing: who redirects the output inherits it too.
func IsJournal(f *os.File, env func(string) (string, bool)) bool {
	stream, ok := env("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	return stream == deviceAndInode(f)
}
