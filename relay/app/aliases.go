package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/smtp2rest/smtp2rest/relay/alias"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// aliases are intake's: the configuration's and those of a file, which is read
// again when it has changed. It is looked at for each recipient, which costs a
// microsecond and needs no goroutine.
type aliases struct {
	log *slog.Logger

	mu    sync.Mutex
	c     config.Addresses
	file  watched
	table *alias.Table
}

// newAliases reads the file, which must be right at the start.
func newAliases(c config.Addresses, log *slog.Logger) (*aliases, error) {
	a := &aliases{c: c, log: log, file: watch(c.AliasFile)}
	var err error
	if a.table, err = a.read(); err != nil {
		return nil, fmt.Errorf("alias_file %s: %w", c.AliasFile, err)
	}
	return a, nil
}

func (a *aliases) read() (*alias.Table, error) {
	if a.c.AliasFile == "" {
		return a.c.Table("")
	}
	text, err := config.ReadAliases(a.c.AliasFile, nil)
	if err != nil {
		return nil, err
	}
	return a.c.Table(text)
}

// prepare reads the aliases of another configuration.
func (a *aliases) prepare(c config.Addresses) (apply func(), err error) {
	next, err := newAliases(c, a.log)
	if err != nil {
		return nil, err
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.c, a.file, a.table = next.c, next.file, next.table
	}, nil
}

// Expand is intake's.
func (a *aliases) Expand(address string) ([]string, bool) {
	return a.current().Expand(address)
}

// current is the table of the file as it is. A file that is gone or wrong is
// said once, and the aliases stay as they were: root's mail goes on.
func (a *aliases) current() *alias.Table {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.file.changed() {
		return a.table
	}
	table, err := a.read()
	if err != nil {
		a.log.Error("the aliases cannot be read again; those from before stay in force", "file", a.c.AliasFile, "cause", err)
		return a.table
	}
	a.log.Info("aliases read", "file", a.c.AliasFile, "aliases", table.Len())
	a.table = table
	return table
}

// watched is a file that is read again when it has changed. It is looked at
// whenever it is needed, which costs a microsecond and needs no goroutine.
type watched struct {
	path string      // "" is no file
	seen fs.FileInfo // as it was last looked at; nil when it was not there
}

// watch begins before the file is read for the first time, so that no change
// is missed.
func watch(path string) watched {
	w := watched{path: path}
	_ = w.changed()
	return w
}

// changed reports whether the file is another than at the last look.
func (w *watched) changed() bool {
	if w.path == "" {
		return false
	}
	now, err := os.Stat(w.path)
	if err != nil {
		now = nil // what is wrong with it is told by reading it
	}
	if w.seen == nil || now == nil {
		changed := w.seen != now
		w.seen = now
		return changed
	}
	same := os.SameFile(w.seen, now) && w.seen.Size() == now.Size() && w.seen.ModTime().Equal(now.ModTime())
	w.seen = now
	return !same
}
