package serve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

func SandboxCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run the provider's API as a stand-in that sends nothing.",
		Long: `Serves the API as the provider documents it, strictly: a wrong key is answered
401, an unknown or missing field 422 with the field's name. It remembers what it
was sent:

  GET    /sandbox/calls    what it got, as JSON; ?to= ?status= ?limit= select
  GET    /sandbox/stats    counters
  PUT    /sandbox/faults   change faults while it runs
  DELETE /sandbox/calls    forget

With --webhook-url, or once 'smtp2rest webhook register' has named an address, it
tells by signed events what became of the mail it took: sent, delivered, bounced.

--json prints one line once it listens, with the address and the key.

Recipients at any domain that force an outcome:

` + magicTable(),
		Example: terminal.Examples(
			"smtp2rest sandbox",
			"smtp2rest sandbox --listen 127.0.0.1:0 --json",
			"smtp2rest sandbox --rate 10 --fail-500 0.05 --latency 200ms",
			"smtp2rest sandbox --webhook-url http://127.0.0.1:8526/webhook --webhook-repeats 1 --webhook-reorder",
			"curl http://127.0.0.1:8525/sandbox/calls",
		),
	}
	fs := c.Flags()
	var o sandbox.Options
	fs.StringVar(&o.Address, "listen", "127.0.0.1:8525", "`address` to listen on")
	fs.StringVar(&o.Key, "key", "sandbox-key", "the API `key` that is right")
	fs.StringVar(&o.Path, "path", "/v1/transactional/send", "`path` of the sending call below /api")
	fs.Float64Var(&o.Rate, "rate", 0, "calls a second the account allows; 0 is any `number`")
	fs.IntVar(&o.Burst, "burst", 0, "calls it allows at once after a rest, a `number`")
	fs.BoolVar(&o.RetryAfterDate, "retry-after-date", false, "write Retry-After as a date instead of seconds")
	fs.Float64Var(&o.Fail429, "fail-429", 0, "`fraction` of calls answered 429")
	fs.Float64Var(&o.Fail500, "fail-500", 0, "`fraction` of calls answered 500")
	fs.Uint64Var(&o.Seed, "seed", 1, "`number` that makes the fractions repeat")
	fs.DurationVar(&o.Latency, "latency", 0, "`time` each call takes")
	fs.BoolVar(&o.Idempotent, "idempotent", false, "honour Idempotency-Key, which the API is not documented to do")
	fs.StringVar(&o.Webhook.URL, "webhook-url", "", "the `address` to send events to, until another is registered")
	fs.StringVar(&o.Webhook.Secret, "webhook-secret", "whsec_sandbox", "the `secret` to sign them with")
	fs.DurationVar(&o.Webhook.Delay, "webhook-delay", 0, "`time` between a mail and its events")
	fs.IntVar(&o.Webhook.Repeats, "webhook-repeats", 0, "send each event so many times more, a `number`")
	fs.BoolVar(&o.Webhook.Reorder, "webhook-reorder", false, "send the events of a mail the last one first")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		return runSandbox(ctx, t, o, asJSON)
	}
	return c
}

func runSandbox(ctx context.Context, t *terminal.Terminal, o sandbox.Options, asJSON bool) error {
	box := sandbox.New(o)
	if err := box.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if err := announceSandbox(t, box, o.Key, asJSON); err != nil {
		return errors.Join(err, box.Stop(ctx))
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return box.Stop(stop)
}

func announceSandbox(t *terminal.Terminal, box *sandbox.Server, key string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			API     string `json:"api"`
			Key     string `json:"key"`
			Sandbox string `json:"sandbox"`
		}{box.URL(), key, origin(box)})
	}
	_, err := fmt.Fprintf(t.Out, "The sandbox listens; point a relay at it with\n\n  NEXUSPROMAIL_API_URL=%s NEXUSPROMAIL_API_KEY=%s FROM_EMAIL=relay@sandbox.example smtp2rest serve\n\n", box.URL(), quoted(key))
	return err
}

func magicTable() string {
	var b strings.Builder
	for _, m := range sandbox.MagicRecipients() {
		fmt.Fprintf(&b, "  %-28s %s\n", m.LocalPart+"@", m.What)
	}
	return b.String()
}
