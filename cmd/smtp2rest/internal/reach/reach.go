// Package reach finds the relay that a command is about: a daemon that runs, by
// its socket or its address, or the data directory of one that is stopped. The
// families of commands in package cli use it.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// ServiceDir is where the unit that we ship keeps its queue.
const ServiceDir = "/var/lib/smtp2rest"

// errNoQueue: there is neither a socket nor a database.
var errNoQueue = errors.New("no queue there")

// Flags are the flags that lead to a relay, and --json.
type Flags struct {
	socket, Dir, Config, address string
	JSON                         bool
}

// place is one place where there may be a daemon.
type place struct {
	socket  string
	dir     string // whose database may be opened when nobody answers; "" is none
	address string // instead of the socket
	token   string
	config  *config.Config // of a daemon that is stopped; nil: not known
}

// Declare declares all of them.
func (r *Flags) Declare(fs *pflag.FlagSet) {
	fs.StringVar(&r.socket, "socket", "", "ask the daemon through its socket at this `path`")
	fs.StringVar(&r.Dir, "data-dir", "", "the data `directory`")
	fs.StringVar(&r.Config, "config", "", "the daemon's TOML `file`, for its queue.data_dir")
	fs.StringVar(&r.address, "address", "", "ask the daemon at this `host:port`, its admin.address; SMTP2REST_ADMIN_TOKEN has the token")
	terminal.DeclareJSON(fs, &r.JSON)
}

// With runs f with the relay that the flags lead to: the daemon, or the data
// directory of one that is stopped.
func (r Flags) With(ctx context.Context, t *terminal.Terminal, f func(Operator) error) (err error) {
	o, done, err := r.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return candidates(f(o))
}

// open asks the running daemon or, if there is none, opens its data directory.
// done must be called.
func (r Flags) open(ctx context.Context, t *terminal.Terminal) (a Operator, done func() error, err error) {
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

// Dial asks the first daemon that answers, and never opens a queue.
func (r Flags) Dial(ctx context.Context, t *terminal.Terminal) (*admin.Client, error) {
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

// DataDir is the data directory that the flags lead to; it need not be there.
func (r Flags) DataDir(t *terminal.Terminal) (string, error) {
	places, err := r.places(t)
	switch {
	case err != nil:
		return "", err
	case places[0].dir == "":
		return "", errors.New("these settings say that no queue is kept")
	}
	return places[0].dir, nil
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
func (r Flags) places(t *terminal.Terminal) ([]place, error) {
	switch {
	case r.socket != "" && (r.Dir != "" || r.Config != "" || r.address != ""):
		return nil, terminal.Usagef("--socket says it all; leave out --data-dir, --config and --address")
	case r.socket != "":
		return []place{{socket: r.socket}}, nil
	case r.Dir != "" && (r.Config != "" || r.address != ""):
		return nil, terminal.Usagef("name either --data-dir or --config or --address")
	case r.Dir != "":
		return []place{{socket: admin.SocketIn(r.Dir), dir: r.Dir}}, nil
	}
	cfg, err := LoadForeign(t, config.Source{Path: r.Config})
	if err != nil {
		return nil, err
	}
	if r.address != "" {
		return []place{{address: r.address, token: cfg.Admin.Token.Reveal()}}, nil
	}
	return r.configured(t, cfg), nil
}

// configured are the places that a configuration leads to.
func (r Flags) configured(t *terminal.Terminal, cfg *config.Config) []place {
	first := place{socket: app.AdminSocket(cfg)}
	if cfg.Queue.Mode == config.OnDisk {
		first.dir, first.config = cfg.Queue.DataDir, cfg
	}
	places := []place{first}
	if cfg.Admin.Address != "" {
		places = append(places, place{address: reachable(cfg.Admin.Address), token: cfg.Admin.Token.Reveal()})
	}
	if _, said := t.Env("SMTP2REST_DATA_DIR"); !said && r.Config == "" && cfg.Admin.Socket == "" && first.dir != ServiceDir {
		places = append(places, place{socket: admin.SocketIn(ServiceDir), dir: ServiceDir})
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
func (p place) open(ctx context.Context, t *terminal.Terminal) (Operator, func() error, error) {
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
	s, err := p.openStore(ctx, t, store.Everything)
	if err != nil {
		return nil, nil, err
	}
	o := admin.Options{Queue: s.Queue, Version: t.Version}
	if p.config != nil {
		o.LeftOut = app.LeftOut(func() *config.Config { return p.config })
	}
	if s.Records == nil { // the queue is there all the same
		return Stopped{admin.New(o), noPast{p.explain(s.RecordsErr)}}, s.Close, nil
	}
	notes := &history.Direct{Store: s.Records, Log: warnings(t)}
	o.History = notes
	local := admin.New(o)
	both := Stopped{local, admin.NewHistory(admin.HistoryOptions{Store: s.Records, Admin: local})}
	return both, func() error {
		notes.Flush()
		return s.Close()
	}, nil
}

// openStore opens the store of a daemon that is stopped, with the rights of the
// directory's owner. It fails with errNoQueue when there is none.
func (p place) openStore(ctx context.Context, t *terminal.Terminal, part store.Part) (*store.Store, error) {
	url := store.SQLite(p.dir)
	switch err := store.Exists(url, part); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoQueue
	case err != nil:
		return nil, denied(p.dir, err)
	}
	if err := owner.Become(p.dir); err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, url, store.Options{Existing: true, Part: part, Log: warnings(t)})
	if err != nil {
		return nil, p.explain(err)
	}
	return s, nil
}

func warnings(t *terminal.Terminal) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// explain says why the files of a daemon that is stopped cannot be used. They
// are its own: made by whoever looks into them, with the rights of root as a
// rule, they could not be used by it any more.
func (p place) explain(err error) error {
	switch {
	case errors.Is(err, queue.ErrLocked):
		return fmt.Errorf("a smtp2rest uses %s and does not answer on %s: name its --socket, or stop it", p.dir, p.socket)
	case errors.Is(err, queue.ErrOlder):
		return fmt.Errorf("%w on %s, and its files are for it to convert: start it, then ask again (%w)", admin.ErrNotRunning, p.socket, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w on %s, and a file is missing that it makes when it starts: start it, then ask again (%w)", admin.ErrNotRunning, p.socket, err)
	}
	return denied(p.dir, err)
}

// Operator is what a person can do with a relay that runs, or is stopped.
type Operator interface {
	admin.Admin
	admin.History
}

// Stopped is a relay that does not run.
type Stopped struct {
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

// LoadConfig reads the configuration from a file, if one is named, and the
// terminal's environment.
func LoadConfig(t *terminal.Terminal, src config.Source) (*config.Config, error) {
	src.Env = t.Env
	return config.Load(src)
}

// ServiceConfig is the path of the service's configuration, or "" where it is
// not the one that is meant: there is none that this user can read, or the
// environment has the key or the sender, as for a relay without a file.
func ServiceConfig(t *terminal.Terminal) string {
	for _, name := range []string{"NEXUSPROMAIL_API_KEY", "NEXUSPROMAIL_API_KEY_FILE", "FROM_EMAIL"} {
		if value, _ := t.Env(name); value != "" {
			return ""
		}
	}
	f, err := os.Open(t.Service)
	if err != nil {
		return ""
	}
	_ = f.Close() // it was only opened to read
	return t.Service
}

// LoadForeign reads the configuration of a relay that is a process of its own,
// as a rule a service.
func LoadForeign(t *terminal.Terminal, src config.Source) (*config.Config, error) {
	if src.Path == "" {
		src.Path = ServiceConfig(t)
	}
	src.Service = src.Path != ""
	return LoadConfig(t, src)
}

// DaemonConfig is the daemon's configuration where the unit that we ship has it.
const DaemonConfig = "/etc/smtp2rest/config.toml"

// WithSuppressions asks the running daemon or, if there is none, opens what
// its data directory has.
func (r Flags) WithSuppressions(ctx context.Context, t *terminal.Terminal, f func(admin.Suppressions) error) error {
	places, err := r.places(t)
	if err != nil {
		return err
	}
	for _, p := range places {
		c, err := p.dial(ctx)
		switch {
		case err == nil:
			return f(c)
		case !errors.Is(err, admin.ErrNotRunning) || p.dir == "" && len(places) == 1:
			return err
		case p.dir == "":
			continue
		}
		if err := p.withRecords(ctx, t, f); !errors.Is(err, errNoQueue) {
			return err
		}
	}
	return noneOf(places)
}

// withRecords opens the records of a daemon that is stopped.
func (p place) withRecords(ctx context.Context, t *terminal.Terminal, f func(admin.Suppressions) error) (err error) {
	s, err := p.openStore(ctx, t, store.OnlyRecords)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(admin.NewSuppressions(s.Records))
}

// candidates writes the mails that a shortened id could mean one below the
// other, to be copied.
func candidates(err error) error {
	var ambiguous *admin.AmbiguousError
	if !errors.As(err, &ambiguous) {
		return err
	}
	text := fmt.Sprintf("several mails begin with %s:\n%s", terminal.Printable(ambiguous.Prefix), terminal.Indent(strings.Join(ambiguous.IDs, "\n")))
	if ambiguous.More {
		text += "\n  and more"
	}
	return errors.New(text)
}

// InForce are the settings, the socket's path as the daemon works it out.
func InForce(cfg *config.Config) []config.Setting {
	list := cfg.Describe()
	for i, s := range list {
		if s.Path == "admin.socket" && s.Origin == "default" {
			list[i].Value = strconv.Quote(app.AdminSocket(cfg))
		}
	}
	return list
}

// Setting is one of those in force.
func Setting(cfg *config.Config, path string) config.Setting {
	for _, s := range InForce(cfg) {
		if s.Path == path {
			return s
		}
	}
	return config.Setting{}
}
