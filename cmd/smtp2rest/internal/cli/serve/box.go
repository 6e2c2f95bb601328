package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/endpoint"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin/web"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/spool"
	"github.com/smtp2rest/smtp2rest/smtpd/holder"
)

// serveSandboxed runs a relay and a sandbox in one process.
func serveSandboxed(ctx context.Context, t *terminal.Terminal, path string, asJSON bool) (err error) {
	boxed := withSandboxEnv(t)
	cfg, err := reach.LoadConfig(boxed, sandboxed(path))
	if err != nil {
		return err
	}
	if from := reach.Origin(cfg, "queue.data_dir"); from != "default" {
		fmt.Fprintf(t.Err, "note: %s is not used: with --sandbox the queue is in a directory of its own and thrown away at the end\n", from)
	}
	if cfg.Store.URL.IsSet() {
		fmt.Fprintf(t.Err, "note: store.url is not used: with --sandbox the queue is in a directory of its own and thrown away at the end\n")
	}
	withoutSpool(cfg)
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
		fmt.Fprintf(t.Err, "note: %v by another program, so the sandbox is at %s\n", taken, box.Addr())
	}
	withEvents(cfg)
	open := withPage(cfg)
	load := func() (*config.Config, error) {
		next, err := reach.LoadConfig(boxed, sandboxed(path))
		if err == nil {
			next.Queue.DataDir, next.Webhook = cfg.Queue.DataDir, cfg.Webhook
			next.Store = cfg.Store
			for i, a := range next.Accounts {
				if before := cfg.Account(a.Name); before != nil {
					next.Accounts[i].WebhookSecret = before.WebhookSecret
				}
			}
			withoutSpool(next)
			callSandbox(next, box)
			withPage(next)
		}
		return next, err
	}
	err = serve(ctx, t, cfg, load, scratch{true, open}, func(daemon *app.App) {
		tellEvents(box, daemon, cfg.Webhook, cfg.Accounts)
		if !asJSON {
			announce(t, daemon, cfg, box)
			return
		}
		w := whereOf(daemon, cfg)
		w.Sandbox, w.API = origin(box), box.URL()
		_ = terminal.PrintJSON(t.Out, w)
	})
	stop, cancel := context.WithTimeout(context.Background(), DrainTime)
	defer cancel()
	return errors.Join(err, box.Stop(stop))
}

// scratchQueue makes a temporary directory for the queue, so that a sandbox never
// gets the mail of a real relay.
func scratchQueue(cfg *config.Config) (cleanUp func() error, err error) {
	dir, err := os.MkdirTemp("", "smtp2rest-sandbox-")
	if err != nil {
		return nil, err
	}
	cfg.Queue.DataDir, cfg.Store = dir, config.Store{}
	return func() error { return os.RemoveAll(dir) }, nil
}

// startSandbox starts a sandbox on the address and makes cfg use it. When the address
// is taken, it says so in taken and uses a free port.
func startSandbox(ctx context.Context, cfg *config.Config, address string) (box provider.Sandbox, taken, err error) {
	o := provider.SandboxOptions{Address: address, Key: cfg.API.Key.Reveal(), Path: cfg.API.Path, Accounts: map[string]provider.SandboxOptions{}}
	for _, a := range cfg.Accounts {
		o.Accounts[a.Name] = provider.SandboxOptions{Key: a.Key.Reveal()}
	}
	box = cfg.API.Vendor.Sandbox(o)
	err = box.Start(context.WithoutCancel(ctx))
	if errors.Is(err, holder.InUse) {
		taken = fmt.Errorf("%s is taken", address)
		o.Address = "127.0.0.1:0"
		box = cfg.API.Vendor.Sandbox(o)
		err = box.Start(context.WithoutCancel(ctx))
	}
	if err != nil {
		return nil, nil, err
	}
	callSandbox(cfg, box)
	return box, taken, nil
}

// callSandbox has all accounts call the sandbox, whatever their url is: nothing may reach
// the real API.
func callSandbox(cfg *config.Config, box provider.Sandbox) {
	cfg.API.URL = box.URL()
	for i := range cfg.Accounts {
		cfg.Accounts[i].URL, cfg.Accounts[i].Path = cfg.API.URL, cfg.API.Path
	}
}

// sandboxed returns a source of settings in which nothing needs to be set.
func sandboxed(path string) config.Source {
	return config.Source{Path: path, NeedAPI: true, FallbackSender: "relay@sandbox.example"}
}

// withSandboxEnv returns t with an environment that has everything a relay needs,
// and nothing that could reach the real API.
func withSandboxEnv(t *terminal.Terminal) *terminal.Terminal {
	real, boxed := t.Env, *t
	boxed.Env = func(name string) (string, bool) {
		_, account, isKey := strings.Cut(name, "_API_KEY") // of whichever provider
		switch {
		case isKey && strings.HasSuffix(account, "_FILE"), name == "CREDENTIALS_DIRECTORY":
			return "", false
		case isKey:
			return "sandbox-key" + strings.ToLower(strings.Replace(account, "_", "-", 1)), true
		case strings.HasSuffix(name, "_API_URL"):
			return "http://127.0.0.1:8525/api", true
		}
		return real(name)
	}
	return &boxed
}

// withoutSpool leaves the mail that sendmail keeps on this machine to a real relay.
func withoutSpool(cfg *config.Config) {
	if cfg.Sendmail.Spool == spool.DefaultDir {
		cfg.Sendmail.Spool = spool.Off
	}
}

// withEvents adds an endpoint for the sandbox's events, unless the configuration has
// one, and the secrets that it needs.
func withEvents(cfg *config.Config) {
	if cfg.Webhook.Address == "" {
		cfg.Webhook.Address, cfg.Webhook.CertFile = "127.0.0.1:0", ""
	}
	if !cfg.Webhook.Secret.IsSet() {
		cfg.Webhook.Secret = config.NewSecret("whsec_" + rand.Text())
	}
	for i := range cfg.Accounts {
		if a := &cfg.Accounts[i]; !a.WebhookSecret.IsSet() {
			a.WebhookSecret = config.NewSecret("whsec_" + rand.Text())
		}
	}
}

// withPage adds an address for the page, unless the configuration has one. At ours
// nobody has to log in. It returns the name under which they act.
func withPage(cfg *config.Config) (open string) {
	if cfg.Admin.Address != "" {
		return ""
	}
	cfg.Admin.Address = "127.0.0.1:0"
	return "sandbox"
}

// tellEvents makes the sandbox send its events to the relay, as the provider does
// after 'webhook register'.
func tellEvents(box provider.Sandbox, daemon *app.App, w config.Webhook, accounts []config.Account) {
	w.Address = daemon.WebhookAddr().String()
	box.SetWebhook(provider.SandboxWebhook{URL: endpoint.URL(w), Secret: w.Secret.Reveal()})
	for _, a := range accounts {
		box.SetAccountWebhook(a.Name, provider.SandboxWebhook{URL: endpoint.URL(w) + "/" + a.Name, Secret: a.WebhookSecret.Reveal()})
	}
}

// where has the addresses of a relay, for --json.
type where struct {
	SMTP    []string `json:"smtp"`
	Webhook string   `json:"webhook,omitempty"`
	DataDir string   `json:"data_dir,omitempty"`
	Page    string   `json:"page,omitempty"`
	Sandbox string   `json:"sandbox,omitempty"` // its root; /sandbox/calls has the calls
	API     string   `json:"api"`
}

func whereOf(daemon *app.App, cfg *config.Config) where {
	w := where{SMTP: []string{}, DataDir: cfg.Queue.DataDir, API: cfg.API.URL}
	for _, a := range daemon.Addrs() {
		w.SMTP = append(w.SMTP, a.String())
	}
	w.Page = pageURL(daemon, cfg)
	if a := daemon.WebhookAddr(); a != nil {
		hook := cfg.Webhook
		hook.Address = a.String()
		w.Webhook = endpoint.URL(hook)
	}
	return w
}

// pageURL is the address of the page; "" where there is none.
func pageURL(daemon *app.App, cfg *config.Config) string {
	a := daemon.AdminAddr()
	if a == nil {
		return ""
	}
	scheme := "http"
	if cfg.Admin.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + a.String() + web.Path
}

func announce(t *terminal.Terminal, daemon *app.App, cfg *config.Config, box provider.Sandbox) {
	smtp, dataDir, secret := daemon.Addrs()[0].String(), cfg.Queue.DataDir, cfg.Webhook.Secret.Reveal()
	fmt.Fprintf(t.Out, `
  SMTP     %s
  page     %[8]s   (for a browser)
  sandbox  %[2]s   (no mail leaves this machine)
  events   %[3]s   (the sandbox sends its events here)

Try, in another terminal:

  export SMTP2REST_DATA_DIR=%[4]s
  %[5]s send --server %[1]s --to bob@example.net
  %[5]s send --server %[1]s --to suppressed@example.net
  %[5]s send --server %[1]s --to hardbounce@example.net
  %[5]s trace bob@example.net
  %[5]s suppressions
  %[5]s status
  curl %[6]s/sandbox/calls
  WEBHOOK_SECRET=%[7]s %[5]s webhook test --url %[3]s

'%[5]s help sandbox' lists the recipients that force an outcome. Stop with Ctrl-C.

`, smtp, box.URL(), box.Webhook().URL, quoted(dataDir), quoted(t.Name), origin(box), secret, pageURL(daemon, cfg))
}

// quoted makes s one word of a shell.
func quoted(s string) string {
	if regexp.MustCompile(`^[\w./+,:@%-]+$`).MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// origin is the URL of the sandbox without the path of the API.
func origin(box provider.Sandbox) string { return "http://" + box.Addr() }
