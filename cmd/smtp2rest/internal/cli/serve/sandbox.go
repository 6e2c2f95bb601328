package serve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// SandboxCommand returns 'smtp2rest sandbox'.
func SandboxCommand(t *terminal.Terminal) *cobra.Command {
	all := vendors.All()
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a stand-in for the provider's API that sends nothing.",
		Long: `Serves the API strictly as the provider documents it: the answer to a wrong key is
401, and to an unknown or missing field 422 with the name of the field. It remembers
the calls that it gets:

  GET    /sandbox/calls    the calls, as JSON; ?to= ?status= ?limit= select
  GET    /sandbox/stats    counters
  PUT    /sandbox/faults   change the faults while it runs
  DELETE /sandbox/calls    forget the calls

With --webhook-url, or when 'smtp2rest webhook register' has named an address, it sends
signed events that tell what became of the mail it took: sent, delivered, bounced.

--json prints one line when it listens, with the address and the key.

These recipients, at any domain, force an outcome:

` + magicTable(all),
		Example: terminal.Examples(
			"smtp2rest sandbox",
			"smtp2rest sandbox --listen 127.0.0.1:0 --json",
			"smtp2rest sandbox --rate 10 --fail-500 0.05 --latency 200ms",
			"smtp2rest sandbox --fields attachments",
			"smtp2rest sandbox --webhook-url http://127.0.0.1:8526/webhook --webhook-repeats 1 --webhook-reorder",
			"curl http://127.0.0.1:8525/sandbox/calls",
		),
		Args: terminal.NoArgs(""),
	}
	fs := c.Flags()
	var o provider.SandboxOptions
	fs.StringVar(&o.Address, "listen", "127.0.0.1:8525", "`address` to listen on")
	fs.StringVar(&o.Key, "key", "sandbox-key", "the API `key` that it accepts")
	fs.StringVar(&o.Path, "path", "", "`path` of the sending call below /api; the provider's own by default")
	name := fs.String("provider", all[0].Name, "the `name` of the provider that it plays, as in api.provider")
	fs.Float64Var(&o.Rate, "rate", 0, "the `number` of calls that the account allows in a second; 0 is unlimited")
	fs.IntVar(&o.Burst, "burst", 0, "the `number` of calls that it allows at once after a pause")
	fs.BoolVar(&o.RetryAfterDate, "retry-after-date", false, "write Retry-After as a date instead of seconds")
	fs.Float64Var(&o.Fail429, "fail-429", 0, "`fraction` of calls answered 429")
	fs.Float64Var(&o.Fail500, "fail-500", 0, "`fraction` of calls answered 500")
	fs.Uint64Var(&o.Seed, "seed", 1, "the `number` that chooses which calls fail; the same number, the same calls")
	fs.DurationVar(&o.Latency, "latency", 0, "`time` each call takes")
	fs.StringSliceVar(&o.Fields, "fields", nil, "`names` of further fields that the account takes, such as attachments,headers")
	fs.BoolVar(&o.Idempotent, "idempotent", false, "honour Idempotency-Key, which the API is not documented to do")
	fs.StringVar(&o.Webhook.URL, "webhook-url", "", "the `address` to send events to, until another is registered")
	fs.StringVar(&o.Webhook.Secret, "webhook-secret", "whsec_sandbox", "the `secret` to sign them with")
	fs.DurationVar(&o.Webhook.Delay, "webhook-delay", 0, "`time` between a mail and its events")
	fs.IntVar(&o.Webhook.Repeats, "webhook-repeats", 0, "how often each event is sent again, a `number`")
	fs.BoolVar(&o.Webhook.Reorder, "webhook-reorder", false, "send the last event of a mail first")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		vendor, err := vendorNamed(all, *name)
		if err != nil {
			return err
		}
		if o.Path == "" {
			o.Path = vendor.Path
		}
		return runSandbox(cmd.Context(), t, vendor, o, *asJSON)
	}
	return c
}

func vendorNamed(all []provider.Vendor, name string) (provider.Vendor, error) {
	var names []string
	for _, v := range all {
		if v.Name == name {
			return v, nil
		}
		names = append(names, v.Name)
	}
	return provider.Vendor{}, terminal.Usagef("there is no provider %q%s", name, terminal.NoSuch(name, names))
}

func runSandbox(ctx context.Context, t *terminal.Terminal, vendor provider.Vendor, o provider.SandboxOptions, asJSON bool) error {
	box := vendor.Sandbox(o)
	if err := box.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if err := announceSandbox(t, vendor, box, o.Key, asJSON); err != nil {
		return errors.Join(err, box.Stop(ctx))
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return box.Stop(stop)
}

func announceSandbox(t *terminal.Terminal, vendor provider.Vendor, box provider.Sandbox, key string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			API     string `json:"api"`
			Key     string `json:"key"`
			Sandbox string `json:"sandbox"`
		}{box.URL(), key, origin(box)})
	}
	_, err := fmt.Fprintf(t.Out, "The sandbox listens; point a relay at it with\n\n  %s=%s %s=%s FROM_EMAIL=relay@sandbox.example smtp2rest serve\n\n", vendor.Variable("api_url"), box.URL(), vendor.Variable("api_key"), quoted(key))
	return err
}

// magicTable lists the recipients of each vendor's sandbox.
func magicTable(all []provider.Vendor) string {
	var b strings.Builder
	for _, vendor := range all {
		if len(all) > 1 {
			fmt.Fprintf(&b, "With --provider %s:\n\n", vendor.Name)
		}
		for _, m := range vendor.Sandbox(provider.SandboxOptions{Keep: -1}).MagicRecipients() {
			fmt.Fprintf(&b, "  %-28s %s\n", m.LocalPart+"@", m.What)
		}
	}
	return b.String()
}
