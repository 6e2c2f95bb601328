// Package reach finds the relay that a command works on: a running daemon, by its
// socket or its address, or the data directory of a stopped daemon. It also loads the
// configuration of a daemon that is another process.
package reach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// ServiceDir is the data directory of the systemd unit that we ship.
const ServiceDir = "/var/lib/smtp2rest"

// DaemonConfig is the configuration file of that unit.
const DaemonConfig = "/etc/smtp2rest/config.toml"

// errNothingThere says that there is neither a socket nor a database.
var errNothingThere = errors.New("nothing there")

// Flags holds the flags that lead to a relay, and --json.
type Flags struct {
	socket, Dir, Config, address string
	JSON                         bool
}

// Declare adds the flags to fs.
func (f *Flags) Declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.socket, "socket", "", "ask the daemon through its socket at this `path`")
	f.DeclareDir(fs)
	fs.StringVar(&f.address, "address", "", "ask the daemon at this `host:port`, its admin.address; SMTP2REST_ADMIN_TOKEN has the token")
}

// DeclareDir adds the flags of a command that works only on a data directory to fs.
func (f *Flags) DeclareDir(fs *pflag.FlagSet) {
	fs.StringVar(&f.Dir, "data-dir", "", "the data `directory`")
	fs.StringVar(&f.Config, "config", "", "the daemon's TOML `file`, for its queue.data_dir")
	fs.BoolVar(&f.JSON, "json", false, "print JSON, for scripts; errors too")
}

// Operator is what a person can do with a relay, whether it runs or is stopped.
type Operator interface {
	admin.Admin
	admin.History
	admin.Suppressions
	admin.Forwards
}

// Offline is an Operator for the data directory of a relay that does not run.
type Offline struct {
	*admin.Local
	admin.History
	admin.Suppressions
	admin.Forwards
}

// With calls use with the running daemon or, if none answers, with its data directory.
func (f Flags) With(ctx context.Context, t *terminal.Terminal, use func(Operator) error) error {
	return f.with(ctx, t, store.Everything, use)
}

// WithRecords is With for a command that needs no queue.
func (f Flags) WithRecords(ctx context.Context, t *terminal.Terminal, use func(Operator) error) error {
	return f.with(ctx, t, store.OnlyRecords, use)
}

func (f Flags) with(ctx context.Context, t *terminal.Terminal, part store.Part, use func(Operator) error) (err error) {
	o, done, err := f.open(ctx, t, part)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return explainAmbiguous(use(o))
}

// open goes through the locations. It returns the first daemon that answers or the first
// data directory that has the part, and a function that closes it.
func (f Flags) open(ctx context.Context, t *terminal.Terminal, part store.Part) (Operator, func() error, error) {
	all, err := f.locations(t)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range all {
		client, err := l.dial(ctx)
		if err == nil {
			return client, func() error { return nil }, nil
		}
		if !errors.Is(err, admin.ErrNotRunning) {
			return nil, nil, err
		}
		if l.url == "" {
			if len(all) == 1 {
				return nil, nil, err // it says more than noneOf
			}
			continue
		}
		offline, done, err := l.openStore(ctx, t, part)
		if !errors.Is(err, errNothingThere) {
			return offline, done, err
		}
	}
	return nil, nil, noneOf(all)
}

// Dial returns the first daemon that answers. It never opens a data directory.
func (f Flags) Dial(ctx context.Context, t *terminal.Terminal) (*admin.Client, error) {
	all, err := f.locations(t)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		c, err := l.dial(ctx)
		if err == nil || !errors.Is(err, admin.ErrNotRunning) || len(all) == 1 {
			return c, err
		}
	}
	return nil, nobodyAnswers(all)
}

// DataDir returns the data directory that the flags lead to; it may be missing.
func (f Flags) DataDir(t *terminal.Terminal) (string, error) {
	all, err := f.locations(t)
	if err != nil {
		return "", err
	}
	switch first := all[0]; {
	case first.url == "":
		return "", errors.New("this configuration keeps no queue (queue.mode = \"none\")")
	case first.place.Dir == "":
		return "", fmt.Errorf("the queue is in %s, and this command works on files of a data directory; docs/postgresql.md says what to do about a database", first.place.Name)
	default:
		return first.place.Dir, nil
	}
}

// location is where a daemon may answer, or have its data.
type location struct {
	socket  string
	url     string // of the store to open when nobody answers; "" is none
	place   store.Place
	address string // when it is set, it is asked instead of the socket
	token   string
	config  *config.Config // of the daemon that uses the store; nil when it is not known
}

// inDir is the location of a daemon with a data directory.
func inDir(dir string) location {
	return location{socket: admin.SocketIn(dir), url: store.SQLite(dir), place: store.Place{Name: dir, Dir: dir}}
}

// noneOf returns the error if no location has a daemon or a queue.
func noneOf(all []location) error {
	var dirs, others []string
	for _, l := range all {
		switch {
		case l.url != "":
			dirs = append(dirs, l.place.Name)
		case l.address != "":
			others = append(others, l.address)
		default:
			others = append(others, l.socket)
		}
	}
	where := ", and there is no queue in " + strings.Join(dirs, " or ")
	if len(dirs) == 0 {
		where = " on " + strings.Join(others, " or ")
	}
	return fmt.Errorf("%w%s; use --config, --data-dir or --socket to say where", admin.ErrNotRunning, where)
}

// nobodyAnswers returns the error if no location has a daemon. A queue may be there.
func nobodyAnswers(all []location) error {
	var where []string
	for _, l := range all {
		where = append(where, cmp.Or(l.address, l.socket))
	}
	return fmt.Errorf("%w on %s; start it or, if it was started with another admin.socket, name that with --socket",
		admin.ErrNotRunning, strings.Join(where, " or "))
}

// locations returns where to look, the likeliest first. The last one is the service's
// directory, because the user's own environment does not name it.
func (f Flags) locations(t *terminal.Terminal) ([]location, error) {
	switch {
	case f.socket != "" && (f.Dir != "" || f.Config != "" || f.address != ""):
		return nil, terminal.Usagef("--socket cannot be combined with --data-dir, --config or --address")
	case f.socket != "":
		return []location{{socket: f.socket}}, nil
	case f.Dir != "" && (f.Config != "" || f.address != ""):
		return nil, terminal.Usagef("use only one of --data-dir, --config and --address")
	case f.Dir != "":
		return []location{inDir(f.Dir)}, nil
	}
	cfg, err := LoadDaemonConfig(t, config.Source{Path: f.Config})
	if err != nil {
		return nil, err
	}
	token := cfg.Admin.Token.Reveal()
	if f.address != "" {
		return []location{{address: f.address, token: token}}, nil
	}
	first := location{socket: app.AdminSocket(cfg)}
	if cfg.Queue.Mode == config.OnDisk {
		first.url, first.config = app.StoreURL(cfg), cfg
		if first.place, err = store.PlaceOf(first.url); err != nil {
			return nil, err
		}
	}
	all := []location{first}
	if cfg.Admin.Address != "" {
		all = append(all, location{address: reachable(cfg.Admin.Address), token: token})
	}
	_, inEnv := t.Env("SMTP2REST_DATA_DIR")
	chosen := inEnv || f.Config != "" || cfg.Admin.Socket != "" // the user said which relay
	if !chosen && first.place.Dir != ServiceDir {
		all = append(all, inDir(ServiceDir))
	}
	return all, nil
}

// reachable returns the address by which this machine reaches a listener. For one
// that listens on all addresses, such as 0.0.0.0:9090, it is the loopback address.
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

func (l location) dial(ctx context.Context) (*admin.Client, error) {
	if l.address != "" {
		return admin.DialTCP(ctx, l.address, l.token)
	}
	return admin.Dial(ctx, l.socket)
}

// openStore opens the data of a stopped daemon. It first switches to the owner of a data
// directory, because the daemon could not use files that root created. It fails with
// errNothingThere if there is no data. A database may be in use by other daemons.
func (l location) openStore(ctx context.Context, t *terminal.Terminal, part store.Part) (Operator, func() error, error) {
	log := slog.New(slog.NewTextHandler(t.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	switch err := store.Exists(l.url, part); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, errNothingThere
	case err != nil:
		return nil, nil, denied(l.place.Name, err)
	}
	if l.place.Dir != "" {
		if err := owner.Become(l.place.Dir); err != nil {
			return nil, nil, err
		}
	}
	s, err := store.Open(ctx, l.url, store.Options{Existing: true, Part: part, Log: log})
	if err != nil {
		return nil, nil, l.explain(err)
	}
	o := admin.Options{Queue: s.Queue, Version: t.Version}
	if l.config != nil {
		o.LeftOut = app.LeftOut(func() *config.Config { return l.config })
	}
	historyOptions := admin.HistoryOptions{Missing: l.explain(s.RecordsErr)} // the queue can be used without the history
	done := s.Close
	if s.Records != nil {
		facts := &history.Direct{Store: s.Records, Log: log}
		o.History, historyOptions.Store = facts, s.Records
		done = func() error {
			facts.Flush()
			return s.Close()
		}
	}
	// Without records only other commands come here: store.OnlyRecords has failed above.
	suppressions := admin.NewSuppressions(suppress.NewSplit(s.Records))
	local := admin.New(o)
	historyOptions.Admin = local
	return Offline{local, admin.NewHistory(historyOptions), suppressions, admin.NewForwards(s.Forwards, nil)}, done, nil
}

// explain says why the files of a stopped daemon cannot be used, and what to do.
func (l location) explain(err error) error {
	switch {
	case errors.Is(err, queue.ErrLocked):
		return fmt.Errorf("another smtp2rest is using %s but does not answer on %s; give its --socket or stop it", l.place.Name, l.socket)
	case errors.Is(err, queue.ErrOlder):
		return fmt.Errorf("%w on %s, and only the daemon converts its store: start it, then ask again (%w)", admin.ErrNotRunning, l.socket, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w on %s, and something is missing that the daemon makes: start it, then ask again (%w)", admin.ErrNotRunning, l.socket, err)
	}
	return denied(l.place.Name, err)
}

// denied adds what to do when a permission is missing.
func denied(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("this user may not use %s; try again with sudo, or as the daemon's user: %w", dir, err)
	}
	return err
}

// explainAmbiguous lists the mails that a shortened id can mean in the error, one on each
// line, so that one of them can be copied.
func explainAmbiguous(err error) error {
	ambiguous, ok := errors.AsType[*admin.AmbiguousError](err)
	if !ok {
		return err
	}
	text := fmt.Sprintf("several mails begin with %s:\n%s", terminal.Printable(ambiguous.Prefix), terminal.Indent(strings.Join(ambiguous.IDs, "\n")))
	if ambiguous.More {
		text += "\n  and more"
	}
	return errors.New(text)
}

// LoadConfig reads the configuration from a file, if one is named, and from the
// terminal's environment.
func LoadConfig(t *terminal.Terminal, src config.Source) (*config.Config, error) {
	src.Env, src.Environ = t.Env, os.Environ
	return config.Load(src)
}

// LoadDaemonConfig reads the configuration of a relay that is another process. Without a
// path, it reads the service's configuration.
func LoadDaemonConfig(t *terminal.Terminal, src config.Source) (*config.Config, error) {
	if src.Path == "" {
		src.Path = ServiceConfig(t)
	}
	src.Service = src.Path != ""
	return LoadConfig(t, src)
}

// ServiceConfig returns the path of the service's configuration. It returns "" if this
// user cannot read that file, or if the environment has the key or the sender, because
// such a relay runs without a file.
func ServiceConfig(t *terminal.Terminal) string {
	names := []string{"FROM_EMAIL"}
	for _, v := range vendors.All() {
		names = append(names, v.Variable("api_key"), v.Variable("api_key_file"))
	}
	for _, name := range names {
		if value, _ := t.Env(name); value != "" {
			return ""
		}
	}
	f, err := os.Open(t.Service)
	if err != nil {
		return ""
	}
	_ = f.Close() // it was only opened to see whether it can be read
	return t.Service
}

// EffectiveSettings returns the settings, with the path of the socket that the daemon uses.
func EffectiveSettings(cfg *config.Config) []config.Setting {
	list := cfg.Describe()
	for i, s := range list {
		if s.Path == "admin.socket" && s.Origin == "default" {
			list[i].Value = strconv.Quote(app.AdminSocket(cfg))
		}
	}
	return list
}

// Origin says where a setting comes from.
func Origin(cfg *config.Config, path string) string {
	list := cfg.Describe()
	if i := slices.IndexFunc(list, func(s config.Setting) bool { return s.Path == path }); i >= 0 {
		return list[i].Origin
	}
	return ""
}
