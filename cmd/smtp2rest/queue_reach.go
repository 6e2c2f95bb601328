package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
)

// serviceDir is where the unit that we ship keeps its queue.
const serviceDir = "/var/lib/smtp2rest"

// queueFile is the database that relay/store/sqlite makes in a data directory.
// It is looked for because Open would make one.
const queueFile = "queue.db"

// errNoQueue: there is neither a socket nor a database.
var errNoQueue = errors.New("no queue there")

// reach is how to get at a daemon or at its queue.
type reach struct{ socket, dir, config, address string }

// place is one place where there may be a daemon.
type place struct {
	socket  string
	dir     string // whose database may be opened when nobody answers; "" is none
	address string // instead of the socket
	token   string
	config  *config.Config // of a daemon that is stopped; nil: not known
}

func (r *reach) declare(fs *pflag.FlagSet) {
	fs.StringVar(&r.socket, "socket", "", "ask the daemon through its socket at this `path`")
	fs.StringVar(&r.dir, "data-dir", "", "the data `directory`")
	fs.StringVar(&r.config, "config", "", "the daemon's TOML `file`, for its queue.data_dir")
	fs.StringVar(&r.address, "address", "", "ask the daemon at this `host:port`, its admin.address; SMTP2REST_ADMIN_TOKEN has the token")
}

// open asks the running daemon or, if there is none, opens its data directory.
// done must be called.
func (r reach) open(ctx context.Context, t *terminal) (a operator, done func() error, err error) {
	places, err := r.places(t)
	if err != nil {
		return nil, nil, err
	}
	if r.socket != "" || r.address != "" {
		c, err := places[0].dial(ctx)
		return c, nothing, err
	}
	for _, p := range places {
		a, done, err := p.open(ctx, t)
		if !errors.Is(err, errNoQueue) {
			return a, done, err
		}
	}
	return nil, nil, noneOf(places)
}

// dial asks the first daemon that answers, and never opens a queue.
func (r reach) dial(ctx context.Context, t *terminal) (*admin.Client, error) {
	places, err := r.places(t)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		c, err := p.dial(ctx)
		if err == nil || !errors.Is(err, admin.ErrNotRunning) || len(places) == 1 {
			return c, err
		}
	}
	return nil, noneOf(places)
}

func noneOf(places []place) error {
	var dirs, others []string
	for _, p := range places {
		switch {
		case p.dir != "":
			dirs = append(dirs, p.dir)
		default:
			others = append(others, p.String())
		}
	}
	text := "there is no queue in " + strings.Join(dirs, " or ") + ", and no daemon that has one"
	if len(dirs) == 0 {
		text = "there is no daemon on " + strings.Join(others, " or ")
	}
	return fmt.Errorf("%w: %s; name its --config, --data-dir or --socket", admin.ErrNotRunning, text)
}

// places are where to look, the likeliest first. Whoever looks into the queue
// of a service has another home, so that the settings that are in force for
// them do not lead there by themselves.
func (r reach) places(t *terminal) ([]place, error) {
	switch {
	case r.socket != "" && (r.dir != "" || r.config != "" || r.address != ""):
		return nil, usagef("--socket says it all; leave out --data-dir, --config and --address")
	case r.socket != "":
		return []place{{socket: r.socket}}, nil
	case r.dir != "" && (r.config != "" || r.address != ""):
		return nil, usagef("name either --data-dir or --config or --address")
	case r.dir != "":
		return []place{{socket: admin.SocketIn(r.dir), dir: r.dir}}, nil
	}
	cfg, err := loadForeign(t, config.Source{Path: r.config})
	if err != nil {
		return nil, err
	}
	if r.address != "" {
		return []place{{address: r.address, token: cfg.Admin.Token.Reveal()}}, nil
	}
	return r.configured(t, cfg), nil
}

// configured are the places that a configuration leads to.
func (r reach) configured(t *terminal, cfg *config.Config) []place {
	first := place{socket: app.AdminSocket(cfg)}
	if cfg.Queue.Mode == config.OnDisk {
		first.dir, first.config = cfg.Queue.DataDir, cfg
	}
	places := []place{first}
	if cfg.Admin.Address != "" {
		places = append(places, place{address: reachable(cfg.Admin.Address), token: cfg.Admin.Token.Reveal()})
	}
	if _, said := t.env("SMTP2REST_DATA_DIR"); !said && r.config == "" && cfg.Admin.Socket == "" && first.dir != serviceDir {
		places = append(places, place{socket: admin.SocketIn(serviceDir), dir: serviceDir})
	}
	return places
}

// reachable is the address by which this machine reaches a listener on all of
// its addresses.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

func nothing() error { return nil }

func (p place) String() string {
	if p.address != "" {
		return p.address
	}
	return p.socket
}

func (p place) dial(ctx context.Context) (*admin.Client, error) {
	if p.address != "" {
		return admin.DialTCP(ctx, p.address, p.token)
	}
	return admin.Dial(ctx, p.socket)
}

// open fails with errNoQueue when there is neither a daemon nor a queue.
func (p place) open(ctx context.Context, t *terminal) (operator, func() error, error) {
	c, err := p.dial(ctx)
	if err == nil {
		return c, nothing, nil
	}
	if !errors.Is(err, admin.ErrNotRunning) {
		return nil, nil, err
	}
	if p.dir == "" {
		return nil, nil, errNoQueue
	}
	switch _, err := os.Stat(filepath.Join(p.dir, queueFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, errNoQueue
	case err != nil:
		return nil, nil, denied(p.dir, err)
	}
	if err := owner.Become(p.dir); err != nil {
		return nil, nil, err
	}
	log := warnings(t)
	store, err := sqlite.Open(sqlite.Options{Dir: p.dir, Existing: true, Log: log})
	if err != nil {
		return nil, nil, p.explain(err)
	}
	o := admin.Options{Queue: store, Version: versionText()}
	if p.config != nil {
		o.LeftOut = app.LeftOut(func() *config.Config { return p.config })
	}
	past, err := records.Open(records.Options{Dir: p.dir, Existing: true, Log: log})
	if err != nil { // the queue is there all the same
		return stopped{admin.New(o), noPast{p.explain(err)}}, store.Close, nil
	}
	notes := &history.Direct{Store: past, Log: log}
	o.History = notes
	local := admin.New(o)
	both := stopped{local, admin.NewHistory(admin.HistoryOptions{Store: past, Admin: local})}
	return both, func() error {
		notes.Flush()
		return errors.Join(past.Close(), store.Close())
	}, nil
}

func warnings(t *terminal) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// explain says why the files of a daemon that is stopped cannot be used. They
// are its own: made by whoever looks into them, with the rights of root as a
// rule, they could not be used by it any more.
func (p place) explain(err error) error {
	switch {
	case errors.Is(err, sqlite.ErrLocked), errors.Is(err, records.ErrLocked):
		return fmt.Errorf("a smtp2rest uses %s and does not answer on %s: name its --socket, or stop it", p.dir, p.socket)
	case errors.Is(err, sqlite.ErrOlder), errors.Is(err, records.ErrOlder):
		return fmt.Errorf("%w on %s, and its files are for it to convert: start it, then ask again (%w)", admin.ErrNotRunning, p.socket, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w on %s, and a file is missing that it makes when it starts: start it, then ask again (%w)", admin.ErrNotRunning, p.socket, err)
	}
	return denied(p.dir, err)
}

// operator is what a person can do with a relay that runs, or is stopped.
type operator interface {
	admin.Admin
	admin.History
}

// stopped is a relay that does not run.
type stopped struct {
	*admin.Local
	admin.History
}

// denied says what helps against a lack of permission.
func denied(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("this user may not use %s; try again with sudo, or as the daemon's user: %w", dir, err)
	}
	return err
}

// noPast is the history of a relay whose records cannot be used.
type noPast struct{ why error }

func (n noPast) Find(context.Context, history.Query) (admin.Found, error) {
	return admin.Found{}, n.why
}

func (n noPast) Trace(context.Context, string) (admin.Traced, error) { return admin.Traced{}, n.why }

func (n noPast) Forget(context.Context, admin.ForgetRequest) (admin.Forgotten, error) {
	return admin.Forgotten{}, n.why
}
