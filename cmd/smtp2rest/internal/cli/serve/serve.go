// Package serve has the command 'smtp2rest serve', and those that show the relay at
// work: demo, sandbox and send.
package serve

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/notify"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// DrainTime is how long mail that is being handed over may take after SIGTERM,
// unless api.timeout is longer. Closing the rest takes a few seconds more, and all of
// it fits into the 40 s of our systemd unit (TimeoutStopSec) and the 30 s that are
// the default of Kubernetes.
const DrainTime = 25 * time.Second

// closingTime is how much longer systemd is asked to wait.
const closingTime = 10 * time.Second

// Command returns 'smtp2rest serve'.
func Command(t *terminal.Terminal) *cobra.Command {
	key := vendors.All()[0].Variable("api_key")
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the relay.",
		Long: `Takes mail over SMTP and sends it through the API until SIGTERM or SIGINT stops it. A
second Ctrl-C stops it at once. At SIGHUP it reads its configuration again, as with
'smtp2rest reload'.

Without --config, all settings come from the environment. ` + key + ` and
FROM_EMAIL are needed; 'smtp2rest man config' names the variables of the others. With
--config, the environment overrides the file. 'smtp2rest check' shows the settings that
are in force.

With --sandbox no mail leaves the machine: a stand-in for the API runs inside and shows
the calls it gets. No settings are needed. The queue is in a temporary directory that is
removed at the end. The line with SMTP2REST_DATA_DIR that is printed leads other
commands to it.

--json prints one line when clients can connect, with the addresses and the ports that
the system chose. The setting log.format makes the log JSON.`,
		Example: terminal.Examples(
			"smtp2rest serve --sandbox",
			"smtp2rest serve --sandbox --json",
			key+"=… FROM_EMAIL=hello@mail.example.com smtp2rest serve",
			"smtp2rest serve --config /etc/smtp2rest/config.toml",
		),
		Args: terminal.NoArgs(""),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	inSandbox := fs.Bool("sandbox", false, "send to a sandbox inside instead of the API")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if *inSandbox {
			return serveSandboxed(ctx, t, *path, *asJSON)
		}
		load := func() (*config.Config, error) {
			return reach.LoadConfig(t, config.Source{Path: *path, NeedAPI: true})
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return serve(ctx, t, cfg, load, scratch{}, func(daemon *app.App) {
			if *asJSON {
				_ = terminal.PrintJSON(t.Out, whereOf(daemon, cfg)) // the relay works without this line
			}
		})
	}
	return c
}

// scratch says whether the relay is one to try things with.
type scratch struct {
	is   bool   // the queue is removed at the end
	page string // who everybody is on the page, without a login; "" is nobody
}

// serve runs the relay until ctx ends. load loads its configuration again. ready is
// called when clients can connect.
func serve(ctx context.Context, t *terminal.Terminal, cfg *config.Config, load func() (*config.Config, error), box scratch, ready func(*app.App)) error {
	if err := prepareCrash(); err != nil {
		return fmt.Errorf("core dumps cannot be turned off: %w", err)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	boundMemory(t, cfg)
	log := app.NewLog(t.Err, cfg.Log, t.Env)
	defer log.Close()
	if runtime.GOOS != "linux" {
		log.Warn("smtp2rest is tested on Linux only; for this system it is merely built", "system", runtime.GOOS, "see", "docs/service.md")
	}
	manager := notify.New(log.Logger)
	daemon := app.New(app.Options{
		Config: cfg, Version: t.Version, Log: log.Logger, Load: load, Scratch: box.is, OpenPage: box.page,
		SetLog: log.Change,
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
	patience := daemon.DrainTime()
	manager.Stopping(fmt.Sprintf("stopping; mail that is being handed over has %s", patience), patience+closingTime)
	drain, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return daemon.Stop(drain)
}

// watch keeps the service manager's watchdog informed. end stops it, which is after
// the relay has stopped: that has its own time limit.
func watch(manager *notify.Manager, daemon *app.App) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { manager.Watch(ctx, daemon.Alive) })
	return func() { cancel(); wg.Wait() }
}

// statusLine is the text that 'systemctl status' shows.
func statusLine(at []net.Addr, reload error) string {
	list := make([]string, len(at))
	for i, a := range at {
		list[i] = a.String()
	}
	line := "taking mail on " + strings.Join(list, ", ")
	if reload != nil {
		line += "; the last reload was refused, and the settings from before are in force: see the log"
	}
	return line
}

// untilEnd waits until ctx ends, and reloads at each SIGHUP. In a terminal SIGHUP means
// that the terminal was closed, so the relay ends.
func untilEnd(ctx context.Context, t *terminal.Terminal, daemon *app.App, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if t.Asks {
				return
			}
			_, _ = daemon.Reload(ctx) // what is wrong is in the log
		}
	}
}

// prepareCrash makes a crash end the process by SIGABRT, without a core dump, which would
// contain secrets. By default Go exits with 2, which is our code for a wrong command line: a
// service manager that does not restart after that would not restart a relay that panicked
// either.
func prepareCrash() error {
	debug.SetTraceback("crash")
	return disableCoreDumps()
}

// otherMemory is the memory that the process needs besides the mail in flight: for
// the storage, calls to the API and the garbage collector. TestMemoryUnderFlood
// prints it.
const otherMemory = 20 << 20

// garbage is how much the heap may grow before it is collected, in percent of what is in
// use: almost all of it is garbage after a mail. More is faster, and takes more memory.
const garbage = 150

// boundMemory makes the garbage collector keep to the memory that the settings
// allow; otherwise the heap may grow to more than twice what is in use. GOMEMLIMIT and
// GOGC override it.
func boundMemory(t *terminal.Terminal, cfg *config.Config) {
	if _, set := t.Env("GOGC"); !set {
		debug.SetGCPercent(garbage)
	}
	if _, set := t.Env("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(cfg.Limits.Memory + otherMemory)
	}
}
