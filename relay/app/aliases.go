package app

import (
	"context"
	"fmt"
	"log/slog"
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

func (p *parts) buildAliases(context.Context) error {
	c := p.config().Addresses
	a, err := newAliases(c, p.opt.Log)
	if err != nil {
		return fmt.Errorf("alias_file %s: %w", c.AliasFile, err)
	}
	p.aliases = a
	return nil
}

// newAliases reads the file, which must be right at the start.
func newAliases(c config.Addresses, log *slog.Logger) (*aliases, error) {
	a := &aliases{c: c, log: log, file: watch(c.AliasFile)}
	var err error
	a.table, err = a.read()
	return a, err
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
		return nil, fmt.Errorf("alias_file %s: %w", c.AliasFile, err)
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
