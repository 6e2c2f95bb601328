package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/sandbox"
)

func serveSandboxed(ctx context.Context, t *terminal, path string, asJSON bool) (err error) {
	boxed := withSandboxEnv(t)
	cfg, err := loadConfig(boxed, sandboxed(path))
	if err != nil {
		return err
	}
	if s := setting(cfg, "queue.data_dir"); s.Origin != "default" {
		fmt.Fprintf(t.err, "note: %s is not used: with --sandbox the queue is in a directory of its own and thrown away at the end\n", s.Origin)
	}
	cleanUp, err := scratchQueue(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	box, taken, err := startSandbox(ctx, cfg, "127.0.0.1:8525")
	if err != nil {
		return err
	}
	if taken != nil {
		fmt.Fprintf(t.err, "note: %v by another program, so the sandbox is at %s\n", taken, box.Addr())
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
			announce(t, daemon, cfg.Queue.DataDir, cfg.Webhook.Secret.Reveal(), box)
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

// startSandbox starts a sandbox on the address and points cfg at it. When the
// address is taken it says so, and starts one on a free port.
func startSandbox(ctx context.Context, cfg *config.Config, address string) (box *sandbox.Server, taken, err error) {
	o := sandbox.Options{Address: address, Key: cfg.API.Key.Reveal(), Path: cfg.API.Path}
	box = sandbox.New(o)
	err = box.Start(context.WithoutCancel(ctx))
	if errors.Is(err, syscall.EADDRINUSE) {
		taken = fmt.Errorf("%s is taken", address)
		o.Address = "127.0.0.1:0"
		box = sandbox.New(o)
		err = box.Start(context.WithoutCancel(ctx))
	}
	if err != nil {
		return nil, nil, err
	}
	cfg.API.URL = box.URL()
	return box, taken, nil
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
			return "http://127.0.0.1:8525/api", true
		}
		return real(name)
	}
	return &boxed
}
