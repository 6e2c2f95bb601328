package config

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWebhook(t *testing.T) {
	text := "[webhook]\naddress = \"127.0.0.1:8025\"\nsecret_file = \"./new\"\nprevious_secret_file = \"./old\"\n[suppression]\nexpire = \"7d\"\n"
	src := file("", env{})
	src.Path = "/etc/smtp2rest.toml"
	src.ReadFile = func(path string) ([]byte, error) {
		data, ok := map[string]string{"/etc/smtp2rest.toml": text, "/etc/new": "whsec_new\n", "/etc/old": "whsec_old"}[path]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(data), nil
	}
	cfg := load(t, src)
	w := cfg.Webhook
	if w.Address != "127.0.0.1:8025" || w.Path != "/webhook" || !slices.Equal(w.Secrets(), []string{"whsec_new", "whsec_old"}) ||
		w.SuppressUnsubscribed || w.RegisterPath != "/v1/api/webhooks" || cfg.Suppression.Expire != 7*24*time.Hour {
		t.Errorf("%+v, %v", w, w.Secrets())
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
	text = strings.Replace(text, "./old", "./none", 1) // until the first change there is none
	if cfg := load(t, src); cfg.Webhook.PreviousSecret.IsSet() {
		t.Error("a secret of no file")
	}
}

func TestNoWebhookByDefault(t *testing.T) {
	cfg := load(t, file("", env{}))
	if cfg.Webhook.Address != "" || cfg.Suppression.Expire != 30*24*time.Hour {
		t.Errorf("%+v", cfg)
	}
}

func TestWebhookWarnings(t *testing.T) {
	secret := env{"WEBHOOK_SECRET": "whsec_test"}
	for text, want := range map[string]string{
		"[webhook]\naddress = \"127.0.0.1:8025\"\n":                           "",
		"[webhook]\naddress = \"localhost:8025\"\n":                           "",
		"[webhook]\naddress = \":8025\"\n":                                    "can be read on the way",
		"[webhook]\naddress = \"192.0.2.1:8025\"\n":                           "can be read on the way",
		"[queue]\nmode = \"none\"\n[webhook]\naddress = \"127.0.0.1:8025\"\n": "forgotten when the relay is restarted",
	} {
		got := strings.Join(load(t, file(text, secret)).Warnings, "\n")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestASecretThatIsToCome: whoever goes to get it has none.
func TestASecretThatIsToCome(t *testing.T) {
	src := file("[webhook]\naddress = \"127.0.0.1:8025\"\nsecret_file = \"./nothing\"\n", env{})
	read := src.ReadFile
	src.ReadFile = func(path string) ([]byte, error) {
		if strings.HasSuffix(path, "nothing") {
			return nil, os.ErrNotExist
		}
		return read(path)
	}
	if _, err := Load(src); err == nil {
		t.Error("loaded without a secret")
	}
	src.NoWebhookSecret = true
	if cfg := load(t, src); cfg.Webhook.Secret.IsSet() || cfg.Webhook.SecretFile != "./nothing" {
		t.Errorf("%+v", cfg.Webhook)
	}
}
