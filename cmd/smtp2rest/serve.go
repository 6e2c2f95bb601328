package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/notify"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/relay/sandbox"
)

// drainTime is how long mail that is being handed over may take to end after
// SIGTERM. It is below the 40 s of our systemd unit (TimeoutStopSec) and the
// 30 s that Kubernetes gives by habit, with something left to close the rest.
const drainTime = 25 * time.Second

func serveCommand() *command {
	return &command{
		name:    "serve",
		summary: "Run the relay.",
		about: `Takes mail over SMTP and sends it through the API until it is told to stop by
SIGTERM or SIGINT; Ctrl-C a second time stops it at once. SIGHUP has it read its
configuration again, as 'smtp2rest reload' does.

Without --config all settings come from the environment: NEXUSPROMAIL_API_KEY and
FROM_EMAIL are needed; 'smtp2rest man config' names the variable of each setting that
has one. With it, the file is completed by the environment, which comes first.
'smtp2rest check' shows what is in force.

With --sandbox no mail leaves the machine: a stand-in for the API runs inside
and shows what it was sent. It needs no settings at all.

--json prints one line when clients can connect, with the addresses, also where a
port was left to the system; the log is JSON with log.format.`,
		examples: []string{
			"smtp2rest serve --sandbox",
			"smtp2rest serve --sandbox --json",
			"NEXUSPROMAIL_API_KEY=… FROM_EMAIL=hello@mail.example.com smtp2rest serve",
			"smtp2rest serve --config /etc/smtp2rest/config.toml",
		},
		setup: func(fs *flag.FlagSet) action {
			path := fs.String("config", "", "TOML `file` with settings")
			inSandbox := fs.Bool("sandbox", false, "send to a sandbox inside instead of the API")
			var asJSON bool
			declareJSON(fs, &asJSON)
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q", args[0])
				}
				if *inSandbox {
					return serveSandboxed(ctx, t, *path, asJSON)
				}
				load := func() (*config.Config, error) {
					return loadConfig(t, config.Source{Path: *path, NeedAPI: true})
				}
				cfg, err := load()
				if err != nil {
					return err
				}
				return serve(ctx, t, cfg, load, false, func(daemon *app.App) {
					if asJSON {
						_ = printJSON(t.out, whereOf(daemon, cfg)) // mail is taken all the same
					}
				})
			}
		},
	}
}

// serve runs the relay until ctx ends. load loads its configuration again.
// ready is called once clients can connect. scratch says that its queue is
// thrown away with it.
func serve(ctx context.Context, t *terminal, cfg *config.Config, load func() (*config.Config, error), scratch bool, ready func(*app.App)) error {
	if err := crashBySignal(); err != nil {
		return fmt.Errorf("core dumps cannot be turned off: %w", err)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	boundMemory(t, cfg)
	log := app.NewLog(t.err, cfg.Log, t.env)
	defer log.Close()
	manager := notify.New(notify.Options{Env: t.env, Log: log.Logger})
	daemon := app.New(app.Options{
		Config: cfg, Version: versionText(), Log: log.Logger, Load: load, Scratch: scratch,
		SetLog: func(c config.Log) { log.Change(logs.Format(c.Format), c.Level) },
		OnReload: func() func([]net.Addr, error) {
			manager.Reloading()
			return func(at []net.Addr, err error) { manager.Ready(statusLine(at, err)) }
		},
	})
	if err := daemon.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	manager.Ready(statusLine(daemon.Addrs(), nil))
	watching := watch(manager, daemon)
	defer watching()
	ready(daemon)
	untilEnd(ctx, t, daemon, hangups)
	manager.Stopping(fmt.Sprintf("stopping; mail under way is given %s", drainTime))
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return daemon.Stop(drain)
}

// watch keeps the service manager's watchdog informed until it is called off,
// which is after the end: the end has a bound of its own.
func watch(manager *notify.Manager, daemon *app.App) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { manager.Watch(ctx, daemon.Alive) })
	return func() { cancel(); wg.Wait() }
}

// statusLine is what systemctl status shows.
func statusLine(at []net.Addr, reload error) string {
	list := make([]string, len(at))
	for i, a := range at {
		list[i] = a.String()
	}
	line := "taking mail on " + strings.Join(list, ", ")
	if reload != nil {
		line += "; the last reload was refused, see the log: the configuration in force is the one before"
	}
	return line
}

// untilEnd reloads at each SIGHUP. To a program that runs in a terminal SIGHUP
// says that the terminal was closed; a relay that went on then would be
// somebody's surprise.
func untilEnd(ctx context.Context, t *terminal, daemon *app.App, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if t.asks {
				return
			}
			_, _ = daemon.Reload(ctx) // what is wrong is in the log
		}
	}
}

func serveSandboxed(ctx context.Context, t *terminal, path string, asJSON bool) (err error) {
	boxed := withSandboxEnv(t)
	cfg, err := loadConfig(boxed, sandboxed(path))
	if err != nil {
		return err
	}
	cleanUp, err := scratchQueue(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	box, err := startSandbox(ctx, cfg, "127.0.0.1:8025")
	if err != nil {
		return err
	}
	withEvents(cfg)
	load := func() (*config.Config, error) {
		next, err := loadConfig(boxed, sandboxed(path))
		if err == nil {
			next.Queue.DataDir, next.API.URL, next.Webhook = cfg.Queue.DataDir, box.URL(), cfg.Webhook
		}
		return next, err
	}
	err = serve(ctx, t, cfg, load, true, func(daemon *app.App) {
		tellEvents(box, daemon, cfg.Webhook)
		if !asJSON {
			announce(t, daemon, cfg.Queue.DataDir, box)
			return
		}
		w := whereOf(daemon, cfg)
		w.Sandbox, w.API = origin(box), box.URL()
		_ = printJSON(t.out, w)
	})
	stop, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(err, box.Stop(stop))
}

// scratchQueue gives a relay whose mail goes nowhere a queue that is removed
// with it, so that it never meets the mail of a real one.
func scratchQueue(cfg *config.Config) (cleanUp func() error, err error) {
	dir, err := os.MkdirTemp("", "smtp2rest-sandbox-")
	if err != nil {
		return nil, err
	}
	cfg.Queue.DataDir = dir
	return func() error { return os.RemoveAll(dir) }, nil
}

// startSandbox starts a sandbox on the address, or on a free port when that
// is taken, and points cfg at it.
func startSandbox(ctx context.Context, cfg *config.Config, address string) (*sandbox.Server, error) {
	o := sandbox.Options{Address: address, Key: cfg.API.Key.Reveal(), Path: cfg.API.Path}
	box := sandbox.New(o)
	if err := box.Start(context.WithoutCancel(ctx)); err != nil {
		o.Address = "127.0.0.1:0"
		box = sandbox.New(o)
		if err := box.Start(context.WithoutCancel(ctx)); err != nil {
			return nil, err
		}
	}
	cfg.API.URL = box.URL()
	return box, nil
}

// loadConfig reads the configuration from a file, if one is named, and the
// terminal's environment.
func loadConfig(t *terminal, src config.Source) (*config.Config, error) {
	src.Env = t.env
	return config.Load(src)
}

// sandboxed is a source in which nothing needs to be set.
func sandboxed(path string) config.Source {
	return config.Source{Path: path, NeedAPI: true, FallbackSender: "relay@sandbox.example"}
}

// withSandboxEnv is t with an environment in which everything that a relay
// needs is set, and nothing that could reach the real API.
func withSandboxEnv(t *terminal) *terminal {
	real, boxed := t.env, *t
	boxed.env = func(name string) (string, bool) {
		switch name {
		case "NEXUSPROMAIL_API_KEY":
			return "sandbox-key", true
		case "NEXUSPROMAIL_API_KEY_FILE", "CREDENTIALS_DIRECTORY":
			return "", false
		case "NEXUSPROMAIL_API_URL":
			return "http://127.0.0.1:8025/api", true
		}
		return real(name)
	}
	return &boxed
}
