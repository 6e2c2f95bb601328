package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

func webhookCommand() *command {
	return &command{
		name:    "webhook",
		summary: "Register the endpoint for the provider's events, and test it.",
		about: `The provider tells by signed events what became of mail: delivered, bounced,
complained. 'register' asks it to send them and keeps the secret that they are
signed with; 'test' sends one to the running relay, as the provider would.`,
		examples: []string{"smtp2rest webhook test"},
		noJSON:   "it is for the verbs",
		setup: func(*flag.FlagSet) action {
			return func(context.Context, *terminal, []string) error { return usagef("name a verb: register or test") }
		},
		verbs: []*command{webhookRegisterCommand(), webhookTestCommand()},
	}
}

// defaultEvents are those in the provider's guides.
func defaultEvents() []string {
	return []string{"bounced.hard", "bounced.soft", "complained", "unsubscribed", "delivered", "opened", "clicked"}
}

// callTime bounds the calls of the verbs.
const callTime = 15 * time.Second

func webhookRegisterCommand() *command {
	return &command{
		name:    "webhook register",
		summary: "Have the provider send events to an address, and keep the secret.",
		about: `Registers an address at the provider with the API key, and writes the secret in
its answer to the file that webhook.secret_file names, with mode 0600. A secret
that is there already goes to webhook.previous_secret_file, if one is named, so
that both count until the provider has changed. The relay reads both when it
starts and with 'smtp2rest reload'.

Without webhook.secret_file, --print shows the secret; nothing else does.`,
		examples: []string{
			"smtp2rest webhook register --config /etc/smtp2rest/config.toml --url https://relay.example.com/webhook",
			"smtp2rest webhook register --url https://relay.example.com/webhook --events bounced.hard,complained --print",
			"smtp2rest webhook register --url https://relay.example.com/webhook --print --json",
		},
		setup: func(fs *flag.FlagSet) action {
			path := fs.String("config", "", "TOML `file` with settings")
			target := fs.String("url", "", "the `address` at which the provider reaches the endpoint")
			events := fs.String("events", "", "the `types` to send, with commas; without it, those that the relay knows")
			show := fs.Bool("print", false, "print the secret where no file is configured for it")
			var asJSON bool
			declareJSON(fs, &asJSON)
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q", args[0])
				}
				if u, err := url.Parse(*target); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
					return usagef("--url must be the address that the provider can reach, as in https://relay.example.com/webhook")
				}
				types := splitList(*events)
				if len(types) == 0 {
					types = defaultEvents()
				}
				cfg, err := loadForeign(t, config.Source{Path: *path, NeedKey: true, NoWebhookSecret: true})
				if err != nil {
					return err
				}
				return register(ctx, t, cfg, *path, registration{URL: *target, Events: types}, *show, asJSON)
			}
		},
	}
}

// registration is what the provider is asked.
type registration struct {
	URL    string   `json:"url"`
	Events []string `json:"events"`
}

// registered is what came of it, for scripts.
type registered struct {
	registration
	File   string `json:"secret_file,omitempty"` // where the secret is
	Secret string `json:"secret,omitempty"`      // only with --print, and without a file
}

func register(ctx context.Context, t *terminal, cfg *config.Config, path string, r registration, show, asJSON bool) error {
	file := besideConfig(path, cfg.Webhook.SecretFile)
	if file == "" && !show { // what would be thrown away is not asked for
		return errors.New("there is nowhere to keep the secret: set webhook.secret_file, or say --print")
	}
	if file != "" {
		if err := writable(file); err != nil {
			return fmt.Errorf("webhook.secret_file: %w", err)
		}
	}
	secret, err := askForSecret(ctx, cfg, r)
	if err != nil {
		return err
	}
	done := registered{registration: r}
	if file == "" {
		if done.Secret = secret; asJSON {
			return printJSON(t.out, done)
		}
		_, err := fmt.Fprintln(t.out, secret)
		return err
	}
	done.File = file
	kept, err := keepSecret(file, besideConfig(path, cfg.Webhook.PreviousSecretFile), secret)
	if err == nil && asJSON {
		return printJSON(t.out, done)
	}
	if err != nil {
		return fmt.Errorf("the provider has registered it, and the secret cannot be kept: %w; register again when that is mended", err)
	}
	fmt.Fprintf(t.out, "Registered %s for %s.\nThe secret is in %s.%s The relay takes it when it starts, or with 'smtp2rest reload'.\n", r.URL, strings.Join(r.Events, ", "), file, kept)
	return nil
}

// besideConfig is a path in the configuration as this process sees it.
func besideConfig(config, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(config), path)
}

// askForSecret registers at the provider.
func askForSecret(ctx context.Context, cfg *config.Config, r registration) (string, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.API.URL+cfg.Webhook.RegisterPath, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+cfg.API.Key.Reveal())
	req.Header.Set("Content-Type", "application/json")
	resp, text, err := exchange(req, cfg.API.CAFile)
	if err != nil {
		return "", fmt.Errorf("the API cannot be reached: %w", err)
	}
	var answer struct{ Secret, Error, Message string }
	jerr := json.Unmarshal(text, &answer)
	switch {
	case resp.StatusCode/100 != 2:
		why := cmp.Or(answer.Message, answer.Error, http.StatusText(resp.StatusCode))
		return "", fmt.Errorf("the API refuses to register it: %d %s", resp.StatusCode, printable(cut(why, 200)))
	case jerr != nil || answer.Secret == "":
		return "", errors.New("the API's answer has no secret in it; is webhook.register_path right?")
	case strings.IndexFunc(answer.Secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 || len(answer.Secret) > 4096:
		return "", errors.New("the API's answer has a secret that cannot be one")
	}
	return answer.Secret, nil
}

// writable makes sure that the secret can be kept before it is asked for.
func writable(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".webhook-secret-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// keepSecret writes the secret, and the one before it where that is to go.
func keepSecret(file, previous, secret string) (said string, err error) {
	old, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(old)) > 0 {
		if previous == "" {
			said = " The one before it is gone: name webhook.previous_secret_file to keep it the next time."
		} else {
			if err := replaceFile(previous, file, string(old)); err != nil {
				return "", err
			}
			said = " The one before it is in " + previous + "."
		}
	}
	return said, replaceFile(file, file, secret+"\n")
}

// replaceFile writes a file in one step, so that nobody reads a half of it, and
// it outlives a power cut. Its group and mode are those of like, so that who
// was let read the secret before may read the next; 0600 where like is not there.
func replaceFile(name, like, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".webhook-secret-*") // with mode 0600
	if err != nil {
		return err
	}
	err = errors.Join(asBefore(f, like), writeAll(f, content), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func webhookTestCommand() *command {
	return &command{
		name:    "webhook test",
		summary: "Send a signed event to the running relay.",
		about: `Sends a signed event as the provider would to the address in the configuration,
or to --url, and tells what came back. Its type is "test", which changes nothing.
It exits 0 when the relay took it.`,
		examples: []string{"smtp2rest webhook test --config /etc/smtp2rest/config.toml", "smtp2rest webhook test --url https://relay.example.com/webhook", "smtp2rest webhook test --json"},
		setup: func(fs *flag.FlagSet) action {
			path := fs.String("config", "", "TOML `file` with settings")
			target := fs.String("url", "", "the `address` to send to, instead of webhook.address")
			var asJSON bool
			declareJSON(fs, &asJSON)
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q", args[0])
				}
				cfg, err := loadForeign(t, config.Source{Path: *path})
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
					*target = endpoint(cfg.Webhook)
				}
				return sendSample(ctx, t, cfg, *target, secrets[0], asJSON)
			}
		},
	}
}

// endpoint is the configured endpoint as this machine reaches it.
func endpoint(w config.Webhook) string {
	host, port, _ := net.SplitHostPort(w.Address) // config has checked it
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	scheme := "http"
	if w.CertFile != "" {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: w.Path}).String()
}

func sendSample(ctx context.Context, t *terminal, cfg *config.Config, target, secret string, asJSON bool) error {
	now := time.Now().UTC()
	body := fmt.Appendf(nil, `{"id":"evt_test_%d","type":"test","created_at":%q,"data":{"email":"nobody@example.com","timestamp":%[2]q}}`, now.UnixNano(), now.Format(time.RFC3339))
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, body))
	start := time.Now()
	resp, text, err := exchange(req, cfg.API.CAFile)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	took := time.Since(start)
	what := fmt.Sprintf("%s answered %s in %s", target, resp.Status, took.Round(time.Millisecond))
	switch {
	case resp.StatusCode == http.StatusOK && len(text) == 0 && asJSON:
		return printJSON(t.out, struct {
			URL    string `json:"url"`
			Status int    `json:"status"`
			TookMS int64  `json:"took_ms"`
		}{target, resp.StatusCode, took.Milliseconds()})
	case resp.StatusCode == http.StatusOK && len(text) == 0:
		_, err := fmt.Fprintf(t.out, "%s: the event was taken.\n", what)
		return err
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%s: it does not know the secret; was it restarted since the secret changed?", what)
	}
	return fmt.Errorf("%s: that is not the relay's webhook endpoint, or it cannot keep events; its log says more", what)
}

// exchange makes one request and reads what comes back, of which nothing real
// is long.
func exchange(req *http.Request, caFile string) (*http.Response, []byte, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	if err := trust(transport, caFile); err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it says POST and the address once more
			err = e.Err
		}
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp, text, err
}
