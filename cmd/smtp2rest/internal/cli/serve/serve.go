// Package serve is 'smtp2rest serve', and the commands that show the relay at
// work: demo, sandbox and send.
package serve

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
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
)

// DrainTime is how long mail that is being handed over may take to end after
// SIGTERM, unless api.timeout makes it more. It is below the 40 s of our systemd
// unit (TimeoutStopSec) and the 30 s that Kubernetes gives by habit, with
// something left to close the rest.
const DrainTime = 25 * time.Second

// closingTime is what the end may take beyond that, so that systemd waits for it.
const closingTime = 10 * time.Second

func Command(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the relay.",
		Long: `Takes mail over SMTP and sends it through the API until it is told to stop by
SIGTERM or SIGINT; Ctrl-C a second time stops it at once. SIGHUP has it read its
configuration again, as 'smtp2rest reload' does.

Without --config all settings come from the environment: NEXUSPROMAIL_API_KEY and
FROM_EMAIL are needed; 'smtp2rest man config' names the variable of each setting that
has one. With it, the file is completed by the environment, which comes first.
'smtp2rest check' shows what is in force.

With --sandbox no mail leaves the machine: a stand-in for the API runs inside
and shows what it was sent. It needs no settings at all. Its queue is in a directory
of its own, whatever the settings say, and thrown away at the end; other commands find
it by the line with SMTP2REST_DATA_DIR that is printed.

--json prints one line when clients can connect, with the addresses, also where a
port was left to the system; the log is JSON with log.format.`,
		Example: terminal.Examples(
			"smtp2rest serve --sandbox",
			"smtp2rest serve --sandbox --json",
			"NEXUSPROMAIL_API_KEY=… FROM_EMAIL=hello@mail.example.com smtp2rest serve",
			"smtp2rest serve --config /etc/smtp2rest/config.toml",
		),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	inSandbox := fs.Bool("sandbox", false, "send to a sandbox inside instead of the API")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		if *inSandbox {
			return serveSandboxed(ctx, t, *path, asJSON)
		}
		load := func() (*config.Config, error) {
			return reach.LoadConfig(t, config.Source{Path: *path, NeedAPI: true})
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return serve(ctx, t, cfg, load, false, func(daemon *app.App) {
			if asJSON {
				_ = terminal.PrintJSON(t.Out, whereOf(daemon, cfg)) // mail is taken all the same
			}
		})
	}
	return c
}

// serve runs the relay until ctx ends. load loads its configuration again.
// ready is called once clients can connect. scratch says that its queue is
// thrown away with it.
func serve(ctx context.Context, t *terminal.Terminal, cfg *config.Config, load func() (*config.Config, error), scratch bool, ready func(*app.App)) error {
	if err := crashBySignal(); err != nil {
		return fmt.Errorf("core dumps cannot be turned off: %w", err)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	boundMemory(t, cfg)
	log := app.NewLog(t.Err, cfg.Log, t.Env)
	defer log.Close()
	if runtime.GOOS != "linux" {
		log.Warn("smtp2rest is tested on Linux, and only built for this system", "system", runtime.GOOS, "see", "docs/service.md")
	}
	manager := notify.New(log.Logger)
	daemon := app.New(app.Options{
		Config: cfg, Version: t.Version, Log: log.Logger, Load: load, Scratch: scratch,
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
	manager.Stopping(fmt.Sprintf("stopping; mail under way is given %s", patience), patience+closingTime)
	drain, cancel := context.WithTimeout(context.Background(), patience)
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
