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
	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

func webhookCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "webhook",
		Short: "Register the endpoint for the provider's events, and test it.",
		Long: `The provider sends signed events that tell what became of mail: delivered, bounced,
complained. 'register' asks it to send them and keeps the secret that signs them;
'test' sends an event to the running relay, as the provider would.`,
		Example: terminal.Examples("smtp2rest webhook test"),
	}
	c.Long += terminal.NoJSON("register and test have it")
	c.RunE = func(*cobra.Command, []string) error {
		return terminal.Usagef("give a subcommand: register or test")
	}
	c.AddCommand(webhookRegisterCommand(t), webhookTestCommand(t))
	return c
}

// defaultEvents are the types of events in the provider's guides.
func defaultEvents() []string {
	return []string{"bounced.hard", "bounced.soft", "complained", "unsubscribed", "delivered", "opened", "clicked"}
}

func webhookRegisterCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "register",
		Short: "Have the provider send events to an address, and keep the secret.",
		Long: `Registers an address with the provider. The provider answers with a secret. It is written
to the file that webhook.secret_file names, with mode 0600. A secret that is already in
that file moves to webhook.previous_secret_file, if one is named, so that the relay
accepts both until the provider uses the new one. The relay reads both files when it
starts and at 'smtp2rest reload'.

Without webhook.secret_file, --print shows the secret.`,
		Example: terminal.Examples(
			"smtp2rest webhook register --config /etc/smtp2rest/config.toml --url https://relay.example.com/webhook",
			"smtp2rest webhook register --url https://relay.example.com/webhook --events bounced.hard,complained --print",
			"smtp2rest webhook register --url https://relay.example.com/webhook --print --json",
		),
		Args: terminal.NoArgs(""),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	target := fs.String("url", "", "the `address` at which the provider reaches the endpoint")
	account := fs.String("account", "", "register for this `account`, where there are several; its webhook_secret_file keeps the secret")
	events := fs.String("events", "", "the `types` to send, separated by commas; default: the types in the provider's guides")
	show := fs.Bool("print", false, "print the secret when no file is configured for it")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if !isWebAddress(*target) {
			return terminal.Usagef("--url must be the address that the provider can reach, as in https://relay.example.com/webhook")
		}
		types := terminal.SplitList(*events)
		if len(types) == 0 {
			types = defaultEvents()
		}
		cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: *path, NeedKey: true, NoWebhookSecret: true})
		if err != nil {
			return err
		}
		o, err := ofAccount(cfg, *path, *account)
		if err != nil {
			return err
		}
		o.registration, o.show, o.asJSON = provider.Registration{URL: *target, Events: types}, *show, *asJSON
		return o.register(cmd.Context(), t)
	}
	return c
}

// isWebAddress reports whether s is an http or https URL with a host.
func isWebAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// registered is the result of register, for --json.
type registered struct {
	URL    string   `json:"url"`
	Events []string `json:"events"`
	File   string   `json:"secret_file,omitempty"` // where the secret is
	Secret string   `json:"secret,omitempty"`      // only with --print, and without a file
}

// defaultSecretSetting names the secret's file for the account of [api].
const defaultSecretSetting = "webhook.secret_file"

// registering has what register needs.
type registering struct {
	registrar      provider.Registrar
	setting        string // names file
	file, previous string // the files of the secret and of the one before; "" if none is configured
	registration   provider.Registration
	show, asJSON   bool
}

// ofAccount returns the registering for an account; "" and "default" are the account of [api].
func ofAccount(cfg *config.Config, path, account string) (o registering, err error) {
	o.setting = defaultSecretSetting
	o.file, o.previous = relativeToConfig(path, cfg.Webhook.SecretFile), relativeToConfig(path, cfg.Webhook.PreviousSecretFile)
	if account, err = knownAccount(cfg, account); err != nil {
		return o, err
	}
	if a := cfg.Account(account); account != "" {
		o.setting, o.file, o.previous = "webhook_secret_file of the account", relativeToConfig(path, a.WebhookSecretFile), ""
	}
	o.registrar, err = app.Registrar(cfg, account)
	return o, err
}

// knownAccount returns the account that an operator names; "" is the one of [api].
func knownAccount(cfg *config.Config, name string) (string, error) {
	switch {
	case name == "" || name == relay.DefaultAccount:
		return "", nil
	case cfg.Account(name) == nil:
		return "", fmt.Errorf("there is no [[account]] named %s", settings.Show(name))
	}
	return name, nil
}

func (o registering) register(ctx context.Context, t *terminal.Terminal) error {
	if o.file == "" && !o.show { // the secret would be lost
		return fmt.Errorf("there is nowhere to keep the secret: set %s, or pass --print", o.setting)
	}
	if o.file != "" {
		if err := endpoint.Writable(o.file); err != nil {
			return fmt.Errorf("%s: %w", o.setting, err)
		}
	}
	secret, err := o.registrar.Register(ctx, o.registration)
	if err != nil {
		return err
	}
	if o.file == "" {
		return o.printSecret(t, secret)
	}
	return o.keepSecret(t, secret)
}

func (o registering) printSecret(t *terminal.Terminal, secret string) error {
	if o.asJSON {
		return terminal.PrintJSON(t.Out, registered{URL: o.registration.URL, Events: o.registration.Events, Secret: secret})
	}
	_, err := fmt.Fprintln(t.Out, secret)
	return err
}

// keepSecret writes the secret to its file, and reports what was done.
func (o registering) keepSecret(t *terminal.Terminal, secret string) error {
	r := o.registration
	replaced, err := endpoint.Keep(o.file, o.previous, secret)
	if err != nil {
		return fmt.Errorf("the provider registered the address, but the secret could not be saved: %w; fix this and register again", err)
	}
	if o.asJSON {
		return terminal.PrintJSON(t.Out, registered{URL: r.URL, Events: r.Events, File: o.file})
	}
	_, err = fmt.Fprintf(t.Out, "Registered %s for %s.\nThe secret is in %s.%s The relay uses it after a restart or 'smtp2rest reload'.\n", r.URL, strings.Join(r.Events, ", "), o.file, o.previousNote(replaced))
	return err
}

// previousNote says what became of the secret that was in the file.
func (o registering) previousNote(replaced bool) string {
	switch {
	case !replaced:
		return ""
	case o.previous != "":
		return " The one before it is in " + o.previous + "."
	case o.setting == defaultSecretSetting:
		return " The one before it is gone: set webhook.previous_secret_file to keep it the next time."
	}
	return " The one before it is gone." // an account has no setting to keep it
}

// relativeToConfig resolves a path that is relative to the configuration file.
func relativeToConfig(config, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(config), path)
}

func webhookTestCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "test",
		Short: "Send a signed event to the running relay.",
		Long: `Sends a signed event, as the provider would, to the address in the configuration or to
--url, and prints the answer. Its type is "test", which changes nothing. It exits 0 when
the relay took it.`,
		Example: terminal.Examples("smtp2rest webhook test --config /etc/smtp2rest/config.toml", "smtp2rest webhook test --url https://relay.example.com/webhook", "smtp2rest webhook test --json"),
		Args:    terminal.NoArgs(""),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	target := fs.String("url", "", "the `address` to send to, instead of webhook.address")
	account := fs.String("account", "", "the endpoint of this `account`, where there are several, with its secret")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: *path})
		if err != nil {
			return err
		}
		name, err := knownAccount(cfg, *account)
		if err != nil {
			return err
		}
		of := app.EventSettings(cfg, name)
		switch {
		case len(of.Secrets) == 0 && name != "":
			return fmt.Errorf("account %q has no secret to sign with; 'smtp2rest webhook register --account %s' gets one from the provider", name, name)
		case len(of.Secrets) == 0:
			return errors.New("there is no secret to sign with; 'smtp2rest webhook register' gets one from the provider, and 'serve --sandbox' prints one")
		case *target == "" && cfg.Webhook.Address == "":
			return errors.New("webhook.address is not set, so no relay listens for events; set it, or pass --url")
		case *target == "":
			w := cfg.Webhook
			w.Path = of.Path
			*target = endpoint.URL(w)
		}
		return testEndpoint(cmd.Context(), t, cfg, *target, of.Secrets[0], *asJSON)
	}
	return c
}

func testEndpoint(ctx context.Context, t *terminal.Terminal, cfg *config.Config, target, secret string, asJSON bool) error {
	cas, err := app.ExtraCAs(cfg)
	if err != nil {
		return err
	}
	a, err := endpoint.SendSample(ctx, cfg.API.Vendor.Events, target, secret, cas)
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
		return fmt.Errorf("%s: the relay does not know this secret; reload it after a change", what)
	}
	return fmt.Errorf("%s: this is not the relay's webhook endpoint, or the relay cannot store events; see its log", what)
}
