package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/endpoint"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

func webhookCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "webhook",
		Short: "Register the endpoint for the provider's events, and test it.",
		Long: `The provider tells by signed events what became of mail: delivered, bounced,
complained. 'register' asks it to send them and keeps the secret that they are
signed with; 'test' sends one to the running relay, as the provider would.`,
		Example: terminal.Examples("smtp2rest webhook test"),
	}
	c.Long += terminal.NoJSON("it is for the verbs")
	c.RunE = func(_ *cobra.Command, _ []string) error {
		return terminal.Usagef("name a verb: register or test")
	}
	c.AddCommand(webhookRegisterCommand(t), webhookTestCommand(t))
	return c
}

// defaultEvents are those in the provider's guides.
func defaultEvents() []string {
	return []string{"bounced.hard", "bounced.soft", "complained", "unsubscribed", "delivered", "opened", "clicked"}
}

func webhookRegisterCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "register",
		Short: "Have the provider send events to an address, and keep the secret.",
		Long: `Registers an address at the provider with the API key, and writes the secret in
its answer to the file that webhook.secret_file names, with mode 0600. A secret
that is there already goes to webhook.previous_secret_file, if one is named, so
that both count until the provider has changed. The relay reads both when it
starts and with 'smtp2rest reload'.

Without webhook.secret_file, --print shows the secret; nothing else does.`,
		Example: terminal.Examples(
			"smtp2rest webhook register --config /etc/smtp2rest/config.toml --url https://relay.example.com/webhook",
			"smtp2rest webhook register --url https://relay.example.com/webhook --events bounced.hard,complained --print",
			"smtp2rest webhook register --url https://relay.example.com/webhook --print --json",
		),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	target := fs.String("url", "", "the `address` at which the provider reaches the endpoint")
	events := fs.String("events", "", "the `types` to send, with commas; without it, those that the relay knows")
	show := fs.Bool("print", false, "print the secret where no file is configured for it")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		if u, err := url.Parse(*target); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return terminal.Usagef("--url must be the address that the provider can reach, as in https://relay.example.com/webhook")
		}
		types := terminal.SplitList(*events)
		if len(types) == 0 {
			types = defaultEvents()
		}
		cfg, err := reach.LoadForeign(t, config.Source{Path: *path, NeedKey: true, NoWebhookSecret: true})
		if err != nil {
			return err
		}
		return register(ctx, t, cfg, *path, provider.Registration{URL: *target, Events: types}, *show, asJSON)
	}
	return c
}

// registered is what came of it, for scripts.
type registered struct {
	URL    string   `json:"url"`
	Events []string `json:"events"`
	File   string   `json:"secret_file,omitempty"` // where the secret is
	Secret string   `json:"secret,omitempty"`      // only with --print, and without a file
}

func register(ctx context.Context, t *terminal.Terminal, cfg *config.Config, path string, r provider.Registration, show, asJSON bool) error {
	file := besideConfig(path, cfg.Webhook.SecretFile)
	if file == "" && !show { // what would be thrown away is not asked for
		return errors.New("there is nowhere to keep the secret: set webhook.secret_file, or say --print")
	}
	if file != "" {
		if err := endpoint.Writable(file); err != nil {
			return fmt.Errorf("webhook.secret_file: %w", err)
		}
	}
	registrar, err := app.Registrar(cfg)
	if err != nil {
		return err
	}
	secret, err := registrar.Register(ctx, r)
	if err != nil {
		return err
	}
	done := registered{URL: r.URL, Events: r.Events}
	if file == "" {
		if done.Secret = secret; asJSON {
			return terminal.PrintJSON(t.Out, done)
		}
		_, err := fmt.Fprintln(t.Out, secret)
		return err
	}
	done.File = file
	kept, err := endpoint.Keep(file, besideConfig(path, cfg.Webhook.PreviousSecretFile), secret)
	if err == nil && asJSON {
		return terminal.PrintJSON(t.Out, done)
	}
	if err != nil {
		return fmt.Errorf("the provider has registered it, and the secret cannot be kept: %w; register again when that is mended", err)
	}
	fmt.Fprintf(t.Out, "Registered %s for %s.\nThe secret is in %s.%s The relay takes it when it starts, or with 'smtp2rest reload'.\n", r.URL, strings.Join(r.Events, ", "), file, kept)
	return nil
}

// besideConfig is a path in the configuration as this process sees it.
func besideConfig(config, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(config), path)
}

func webhookTestCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "test",
		Short: "Send a signed event to the running relay.",
		Long: `Sends a signed event as the provider would to the address in the configuration,
or to --url, and tells what came back. Its type is "test", which changes nothing.
It exits 0 when the relay took it.`,
		Example: terminal.Examples("smtp2rest webhook test --config /etc/smtp2rest/config.toml", "smtp2rest webhook test --url https://relay.example.com/webhook", "smtp2rest webhook test --json"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	target := fs.String("url", "", "the `address` to send to, instead of webhook.address")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		cfg, err := reach.LoadForeign(t, config.Source{Path: *path})
		if err != nil {
			return err
		}
		secrets := cfg.Webhook.Secrets()
		switch {
		case len(secrets) == 0:
			return errors.New("there is no secret to sign with; 'smtp2rest webhook register' gets one from the provider, and of 'serve --sandbox' it is in the line that it prints for this")
		case *target == "" && cfg.Webhook.Address == "":
			return errors.New("webhook.address is not set, so that no relay listens for events; set it, or name --url")
		case *target == "":
			*target = endpoint.URL(cfg.Webhook)
		}
		return testEndpoint(ctx, t, cfg, *target, secrets[0], asJSON)
	}
	return c
}

func testEndpoint(ctx context.Context, t *terminal.Terminal, cfg *config.Config, target, secret string, asJSON bool) error {
	cas, err := app.ExtraCAs(cfg)
	if err != nil {
		return err
	}
	a, err := endpoint.SendSample(ctx, app.Events(), target, secret, cas)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s answered %s in %s", target, a.Status, a.Took.Round(time.Millisecond))
	switch {
	case a.Taken && asJSON:
		return terminal.PrintJSON(t.Out, struct {
			URL    string `json:"url"`
			Status int    `json:"status"`
			TookMS int64  `json:"took_ms"`
		}{target, a.Code, a.Took.Milliseconds()})
	case a.Taken:
		_, err := fmt.Fprintf(t.Out, "%s: the event was taken.\n", what)
		return err
	case a.Code == http.StatusUnauthorized:
		return fmt.Errorf("%s: it does not know the secret; was it reloaded since the secret changed?", what)
	}
	return fmt.Errorf("%s: that is not the relay's webhook endpoint, or it cannot keep events; its log says more", what)
}
