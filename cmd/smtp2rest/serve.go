package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/sandbox"
)

// drainTime is how long mail that is being handed over may take to end after
// SIGTERM. It is below systemd's 90 s and above Kubernetes's habit of 30 s
// less what their own signalling takes.
const drainTime = 25 * time.Second

func serveCommand() *command {
	return &command{
		name:    "serve",
		summary: "Run the relay.",
		about: `Takes mail over SMTP and sends it through the API until it is told to stop by
SIGTERM or SIGINT; Ctrl-C a second time stops it at once.

Without --config all settings come from the environment: NEXUSPROMAIL_API_KEY,
NEXUSPROMAIL_API_URL, FROM_EMAIL, FROM_NAME. With it, the file is completed by
the environment, which comes first. 'smtp2rest check' shows what is in force.

With --sandbox no mail leaves the machine: a stand-in for the API runs inside
and shows what it was sent. It needs no settings at all.`,
		examples: []string{
			"smtp2rest serve --sandbox",
			"NEXUSPROMAIL_API_KEY=… FROM_EMAIL=hello@mail.example.com smtp2rest serve",
			"smtp2rest serve --config /etc/smtp2rest/config.toml",
		},
		setup: func(fs *flag.FlagSet) action {
			path := fs.String("config", "", "TOML `file` with settings")
			inSandbox := fs.Bool("sandbox", false, "send to a sandbox inside instead of the API")
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q", args[0])
				}
				if *inSandbox {
					return serveSandboxed(ctx, t, *path)
				}
				cfg, err := loadConfig(t, config.Source{Path: *path, NeedAPI: true})
				if err != nil {
					return err
				}
				return serve(ctx, t, cfg, nil)
			}
		},
	}
}

// serve runs the relay until ctx ends. ready is called once clients can
// connect.
func serve(ctx context.Context, t *terminal, cfg *config.Config, ready func(*app.App)) error {
	boundMemory(t, cfg)
	log := app.NewLog(t.err, cfg.Log, t.env)
	defer log.Close()
	daemon := app.New(app.Options{Config: cfg, Version: versionText(), Log: log.Logger})
	if err := daemon.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if ready != nil {
		ready(daemon)
	}
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return daemon.Stop(drain)
}

func serveSandboxed(ctx context.Context, t *terminal, path string) (err error) {
	cfg, err := loadConfig(withSandboxEnv(t), sandboxed(path))
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
	err = serve(ctx, t, cfg, func(daemon *app.App) {
		tellEvents(box, daemon, cfg.Webhook)
		announce(t, daemon, cfg.Queue.DataDir, box)
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

func announce(t *terminal, daemon *app.App, dataDir string, box *sandbox.Server) {
	smtp := daemon.Addrs()[0].String()
	fmt.Fprintf(t.out, `
  SMTP     %s
  sandbox  %s   (no mail leaves this machine)
  events   %s   (what the sandbox tells of mail it took)

Try, in another terminal:

  smtp2rest send --server %s --to bob@example.net
  smtp2rest send --server %s --to suppressed@example.net
  smtp2rest send --server %s --to hardbounce@example.net
  smtp2rest suppressions --data-dir %s
  smtp2rest queue --data-dir %s
  curl %s/sandbox/calls

'smtp2rest sandbox --help' lists the recipients that force an outcome. Stop with Ctrl-C.

`, smtp, box.URL(), box.Webhook().URL, smtp, smtp, smtp, dataDir, dataDir, origin(box))
}

// origin is the sandbox's address without the path of the API.
func origin(box *sandbox.Server) string { return "http://" + box.Addr() }

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
