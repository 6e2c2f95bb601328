package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// DemoCommand returns 'smtp2rest demo'.
func DemoCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch real mail go through: SMTP in, REST out, to a sandbox inside.",
		Long: `Starts a sandbox and a relay on free ports of this machine, hands real mails to the
relay by SMTP, and prints the dialogue and what the API received. No mail leaves the
machine. It exits 0 when everything went as it should; otherwise it prints the
difference and exits 1.`,
		Example: terminal.Examples("smtp2rest demo"),
		Args:    terminal.NoArgs(""),
	}
	c.Long += terminal.NoJSON("the demo is shown to people; a script has its exit code")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return runDemo(cmd.Context(), t)
	}
	return c
}

// stage has the relay and the sandbox of the demo.
type stage struct {
	t    *terminal.Terminal
	p    terminal.Palette
	box  provider.Sandbox
	smtp string // the relay's address
}

func runDemo(ctx context.Context, t *terminal.Terminal) (err error) {
	s := &stage{t: t, p: t.Palette()}
	end, err := s.build(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()

	fmt.Fprintf(t.Out, "A relay listens at %s; behind it a sandbox of the API at %s.\n", s.smtp, s.box.URL())
	wrong := 0
	all := scenes()
	for i, sc := range all {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		fmt.Fprintf(t.Out, "\n%s\n", s.p.Bold(fmt.Sprintf("%d. %s", i+1, sc.title)))
		if err := s.play(ctx, sc); err != nil {
			wrong++
			fmt.Fprintf(t.Out, "  %s %s\n", s.p.Red("WRONG:"), err)
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d scenes did not go as they should", wrong, len(all))
	}
	_, err = fmt.Fprintf(t.Out, "\n%s\n", s.p.Green(fmt.Sprintf("All %d scenes went as they should.", len(all))))
	return err
}

// build starts the sandbox and the relay with the settings of 'serve --sandbox', so
// that the demo shows what a user would get.
func (s *stage) build(ctx context.Context) (end func() error, err error) {
	bare := *s.t
	bare.Env = func(string) (string, bool) { return "", false }
	cfg, err := reach.LoadConfig(withSandboxEnv(&bare), sandboxed(""))
	if err != nil {
		return nil, err
	}
	cfg.Hostname = "relay.demo.example"
	cfg.Listeners[0].Address = "127.0.0.1:0"
	cfg.Delivery.Retry.First = 500 * time.Millisecond // so that nobody has to wait for 5 s
	withoutSpool(cfg)
	cleanUp, err := scratchQueue(cfg)
	if err != nil {
		return nil, err
	}
	if s.box, _, err = startSandbox(ctx, cfg, "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, cleanUp())
	}
	withEvents(cfg)
	daemon := app.New(app.Options{Config: cfg, Version: s.t.Version, Log: slog.New(slog.DiscardHandler)})
	if err := daemon.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, errors.Join(err, s.box.Stop(ctx), cleanUp())
	}
	s.smtp = daemon.Addrs()[0].String()
	tellEvents(s.box, daemon, cfg.Webhook, cfg.Accounts)
	return func() error {
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return errors.Join(daemon.Stop(stop), s.box.Stop(stop), cleanUp())
	}, nil
}

// play hands the mail of one scene over, prints what happened and compares it with
// what should happen.
func (s *stage) play(ctx context.Context, sc scene) error {
	s.box.Reset()
	d, err := dialogue.Converse(ctx, s.smtp, sc.mail)
	if d != nil {
		d.WithoutGreeting().Print(s.t.Out, s.p)
	}
	if err != nil {
		return err
	}
	calls, err := s.await(ctx, len(sc.calls))
	if err != nil {
		return err
	}
	for _, c := range sc.inOrder(calls) {
		s.printCall(c)
	}
	if sc.event != "" {
		if err := s.awaitEvent(ctx, sc.event); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.t.Out, "  %s\n", s.p.Dim(fmt.Sprintf("took %s", d.Took.Round(100*time.Microsecond))))
	return sc.compare(d, calls)
}

// await waits for the calls that should come. Some come after the relay has answered
// the client.
func (s *stage) await(ctx context.Context, n int) ([]provider.SandboxCall, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := s.box.WaitFor(ctx, func(st provider.SandboxStats) bool { return int(st.Calls) >= n && st.InFlight == 0 })
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	return s.box.Calls(), nil
}

// awaitEvent waits until the relay has taken an event of the sandbox.
func (s *stage) awaitEvent(ctx context.Context, kind string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.box.WaitFor(ctx, func(st provider.SandboxStats) bool { return st.Events[kind] > 0 }); err != nil {
		return fmt.Errorf("the relay did not take the event %s: %w", kind, err)
	}
	_, err := fmt.Fprintf(s.t.Out, "  a signed event %s came back, and the relay answered %s\n", kind, s.p.Green("200"))
	return err
}

func (s *stage) printCall(c provider.SandboxCall) {
	status := s.p.Green(fmt.Sprint(c.Status))
	if c.Status != http.StatusOK {
		status = s.p.Red(fmt.Sprint(c.Status))
	}
	text, err := terminal.PrettyJSON(bytes.NewReader(c.Body))
	if err != nil {
		text = string(c.Body)
	}
	const width = 100
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = terminal.Cut(line, width)
	}
	fmt.Fprintf(s.t.Out, "  API got %s\n  and answered %s\n", strings.Join(lines, "\n  "), status)
}
