package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
)

// serviceDir is where the unit that we ship keeps its queue.
const serviceDir = "/var/lib/smtp2rest"

// queueFile is the database that relay/store/sqlite makes in a data directory.
// It is looked for because Open would make one.
const queueFile = "queue.db"

// errNoQueue: there is neither a socket nor a database.
var errNoQueue = errors.New("no queue there")

// reach is how to get at the queue.
type reach struct{ socket, dir, config string }

func (r *reach) declare(fs *flag.FlagSet) {
	fs.StringVar(&r.socket, "socket", "", "the daemon's socket, a `path`")
	fs.StringVar(&r.dir, "data-dir", "", "the data `directory`")
	fs.StringVar(&r.config, "config", "", "the daemon's TOML `file`, for its queue.data_dir")
}

// open asks the running daemon or, if there is none, opens its data directory.
// done must be called.
func (r reach) open(ctx context.Context, t *terminal) (a admin.Admin, done func() error, err error) {
	nothing := func() error { return nil }
	if r.socket != "" {
		if r.dir != "" || r.config != "" {
			return nil, nil, usagef("--socket says it all; leave out --data-dir and --config")
		}
		c, err := admin.Dial(ctx, r.socket)
		return c, nothing, err
	}
	dirs, err := r.dirs(t)
	if err != nil {
		return nil, nil, err
	}
	for _, dir := range dirs {
		a, done, err := openDir(ctx, t, dir)
		if !errors.Is(err, errNoQueue) {
			return a, done, err
		}
	}
	return nil, nil, fmt.Errorf("there is no queue in %s, and no daemon that has one; name its --config, --data-dir or --socket",
		strings.Join(dirs, " or "))
}

// dirs are the directories to look at, the likeliest first. Whoever looks into
// the queue of a service has another home, so that the settings that are in
// force for them do not lead there by themselves.
func (r reach) dirs(t *terminal) ([]string, error) {
	if r.dir != "" {
		if r.config != "" {
			return nil, usagef("name either --data-dir or --config")
		}
		return []string{r.dir}, nil
	}
	cfg, err := loadConfig(t, config.Source{Path: r.config})
	if err != nil {
		return nil, err
	}
	dirs := []string{cfg.Queue.DataDir}
	if _, said := t.env("SMTP2REST_DATA_DIR"); !said && r.config == "" && dirs[0] != serviceDir {
		dirs = append(dirs, serviceDir)
	}
	return dirs, nil
}

func openDir(ctx context.Context, t *terminal, dir string) (admin.Admin, func() error, error) {
	socket := admin.SocketIn(dir)
	c, err := admin.Dial(ctx, socket)
	if err == nil {
		return c, func() error { return nil }, nil
	}
	if !errors.Is(err, admin.ErrNotRunning) {
		return nil, nil, err
	}
	switch _, err := os.Stat(filepath.Join(dir, queueFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, errNoQueue
	case err != nil:
		return nil, nil, denied(dir, err)
	}
	store, err := sqlite.Open(sqlite.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if errors.Is(err, sqlite.ErrLocked) {
		return nil, nil, fmt.Errorf("a smtp2rest uses %s and does not answer on %s: name its --socket, or stop it", dir, socket)
	}
	if err != nil {
		return nil, nil, denied(dir, err)
	}
	return admin.New(admin.Options{Queue: store, Version: versionText()}), store.Close, nil
}

// denied says what helps against a lack of permission.
func denied(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("this user may not use %s; try again with sudo, or as the daemon's user: %w", dir, err)
	}
	return err
}
