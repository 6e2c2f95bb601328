package config

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// file makes text the configuration, and the only file there is.
func file(text string, vars env) Source {
	return Source{
		Path: "smtp2rest.toml",
		Env:  vars.lookup,
		ReadFile: func(path string) ([]byte, error) {
			if path != "smtp2rest.toml" {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		},
		Hostname: func() (string, error) { return "box", nil },
	}
}

func load(t *testing.T, src Source) *Config {
	t.Helper()
	cfg, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func described(t *testing.T, cfg *Config, path string) Setting {
	t.Helper()
	list := cfg.Describe()
	i := slices.IndexFunc(list, func(s Setting) bool { return s.Path == path })
	if i < 0 {
		t.Fatalf("no setting %s", path)
	}
	return list[i]
}

func TestDefaults(t *testing.T) {
	cfg := load(t, Source{Env: env{}.lookup, Hostname: func() (string, error) { return "box", nil }})
	if cfg.API.URL != "https://app.nexuspromail.com/api" || cfg.API.Path != "/v1/transactional/send" {
		t.Errorf("API at %s%s", cfg.API.URL, cfg.API.Path)
	}
	if cfg.API.Timeout != 10*time.Second || cfg.API.Burst != 1 || cfg.Limits.MessageBytes != 25<<20 {
		t.Errorf("timeout %v, burst %d, message size %d", cfg.API.Timeout, cfg.API.Burst, cfg.Limits.MessageBytes)
	}
	if len(cfg.Listeners) != 1 || cfg.Listeners[0].Address != "127.0.0.1:2525" || len(cfg.Listeners[0].Networks) != 2 {
		t.Errorf("listeners %v", cfg.Listeners)
	}
	if cfg.Hostname != "box" || cfg.API.Key.IsSet() || len(cfg.Warnings) != 0 {
		t.Errorf("hostname %q, key %v, warnings %q", cfg.Hostname, cfg.API.Key, cfg.Warnings)
	}
}

// TestVendorVariablesAlone is the sidecar: no file at all.
func TestVendorVariablesAlone(t *testing.T) {
	cfg := load(t, Source{NeedAPI: true, Env: env{
		"NEXUSPROMAIL_API_KEY": "npm_test",
		"NEXUSPROMAIL_API_URL": "http://localhost:8025/api/",
		"FROM_EMAIL":           "hello@Mail.Example.com",
		"FROM_NAME":            "Your App",
		"WEBHOOK_SECRET":       "whsec_test",
	}.lookup})
	if cfg.API.URL != "http://localhost:8025/api" || cfg.API.Key.Reveal() != "npm_test" || cfg.Webhook.Secret.Reveal() != "whsec_test" {
		t.Errorf("url %s, key %q, webhook secret %q", cfg.API.URL, cfg.API.Key.Reveal(), cfg.Webhook.Secret.Reveal())
	}
	if cfg.Sender.Email != "hello@Mail.Example.com" || cfg.Sender.Name != "Your App" || !slices.Equal(cfg.Sender.Domains, []string{"mail.example.com"}) {
		t.Errorf("sender %+v", cfg.Sender)
	}
	for path, origin := range map[string]string{
		"api.url": "environment NEXUSPROMAIL_API_URL", "sender.email": "environment FROM_EMAIL",
		"sender.domains": "default", "api.key": "environment NEXUSPROMAIL_API_KEY",
	} {
		if got := described(t, cfg, path).Origin; got != origin {
			t.Errorf("%s comes from %q, want %q", path, got, origin)
		}
	}
}

func TestEnvironmentComesBeforeFile(t *testing.T) {
	text := "[api]\nurl = \"https://file.example/\"\n[sender]\nemail = \"file@example.com\"\nname = \"File\"\n"
	cfg := load(t, file(text, env{"FROM_EMAIL": "env@example.org", "FROM_NAME": ""}))
	if cfg.Sender.Email != "env@example.org" || cfg.Sender.Name != "File" || cfg.API.URL != "https://file.example" {
		t.Errorf("sender %+v at %s", cfg.Sender, cfg.API.URL)
	}
	if got := described(t, cfg, "sender.name").Origin; got != "file" {
		t.Errorf("name comes from %q", got)
	}
}

func TestFileInEveryShape(t *testing.T) {
	text := `
HOSTNAME = "relay.example.com"
api.rate = 12.5
api.allow_insecure = true
api.url = "http://sandbox:8025"
sender = { email = "a@example.com", domains = ["Example.com", "example.org"], foreign = "refuse" }
listener = [ { address = ":25", networks = ["10.1.2.3", "fd00::/8"] }, {} ]
[Delivery]
WAIT = 0
[limits]
message_size = 1048576
idle_time = "1d"
[log]
level = "debug"
[mail]
attachments = "send"
header_field = "headers"
`
	cfg := load(t, file(text, env{}))
	if cfg.Hostname != "relay.example.com" || cfg.API.Rate != 12.5 || cfg.API.Burst != 1 || cfg.Delivery.Wait != 0 {
		t.Errorf("%+v", cfg)
	}
	if !slices.Equal(cfg.Sender.Domains, []string{"example.com", "example.org"}) || cfg.Sender.Foreign != mail.Refuse {
		t.Errorf("sender %+v", cfg.Sender)
	}
	if cfg.Limits.MessageBytes != 1<<20 || cfg.Limits.IdleTime != 24*time.Hour || cfg.Log.Level.String() != "DEBUG" {
		t.Errorf("%+v %+v", cfg.Limits, cfg.Log)
	}
	if len(cfg.Listeners) != 2 || cfg.Listeners[0].Networks[0].String() != "10.1.2.3/32" || cfg.Listeners[1].Address != "127.0.0.1:2525" {
		t.Errorf("listeners %v", cfg.Listeners)
	}
	if got := described(t, cfg, "listener#2.address"); got.Origin != "default" {
		t.Errorf("%+v", got)
	}
	if cfg.Mail.Attachments != mail.SendAttachments || described(t, cfg, "mail.header_field").Value != `"headers"` || described(t, cfg, "mail.attachments_field").Value != `"attachments"` {
		t.Errorf("mail %+v", cfg.Mail)
	}
}

func TestNeedAPI(t *testing.T) {
	src := Source{Env: env{}.lookup}
	load(t, src)
	src.NeedAPI = true
	_, err := Load(src)
	var list Errors
	if !errors.As(err, &list) || len(list) != 2 || list[0].Path != "sender.email" || list[1].Path != "api.key" {
		t.Fatalf("got %v", err)
	}
	for _, way := range []string{"NEXUSPROMAIL_API_KEY", "NEXUSPROMAIL_API_KEY_FILE", "api.key_file", "systemd credential"} {
		if !strings.Contains(list[1].Text, way) {
			t.Errorf("%s is not named: %s", way, list[1].Text)
		}
	}
}

func TestConfigurationThatCannotBeRead(t *testing.T) {
	for name, tc := range map[string]struct {
		read func(string) ([]byte, error)
		want string
	}{
		"missing": {func(string) ([]byte, error) { return nil, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist} },
			"x.toml: cannot read the configuration: file does not exist"},
		"huge": {func(string) ([]byte, error) { return make([]byte, maxFile+1), nil },
			"x.toml: cannot read the configuration: it is larger than 1 MiB"},
		"UTF-16": {func(string) ([]byte, error) { return []byte("a\x00=\x001\x00"), nil },
			"x.toml:1: this is not TOML: files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8"},
	} {
		_, err := Load(Source{Path: "x.toml", Env: env{}.lookup, ReadFile: tc.read})
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
}

func TestListenerNobodyCanUse(t *testing.T) {
	cfg := load(t, file("[[listener]]\naddress = \":25\"\n", env{}))
	want := `listener: nobody else can send through :25: listener.networks has only this machine`
	if len(cfg.Warnings) != 1 || cfg.Warnings[0] != want {
		t.Errorf("got %q, want %q", cfg.Warnings, want)
	}
	// On loopback any networks do: nobody else reaches it.
	cfg = load(t, file("[[listener]]\naddress = \"localhost:25\"\nnetworks = [\"0.0.0.0/0\"]\n", env{}))
	if len(cfg.Warnings) != 0 {
		t.Errorf("warnings %q", cfg.Warnings)
	}
}

func TestConnectTimeoutFollowsAShorterTimeout(t *testing.T) {
	cfg := load(t, file("[api]\ntimeout = \"2s\"\n", env{}))
	if cfg.API.ConnectTimeout != 2*time.Second {
		t.Errorf("got %v", cfg.API.ConnectTimeout)
	}
}

func TestHostnameOfTheMachine(t *testing.T) {
	for raw, want := range map[string]string{
		"box": "box", "Box.Example.COM": "box.example.com", "my box_1": "my-box-1", "-": "localhost",
		"": "localhost", "a..b": "localhost", strings.Repeat("a", 64): "localhost", "müll": "m-ll", "box.local.": "box.local",
	} {
		if got := safeHostname(func() (string, error) { return raw, nil }); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
	if got := safeHostname(func() (string, error) { return "box", errors.New("no") }); got != "localhost" {
		t.Errorf("an error became %q", got)
	}
}

func TestDescribe(t *testing.T) {
	cfg := load(t, file("[api]\nrate = 55\n", env{"NEXUSPROMAIL_API_KEY": "npm_hunter2"}))
	order := []string{"hostname", "api.url", "api.key", "sender.email", "mail.attachments", "delivery.wait", "listener.address", "limits.message_size", "log.level", "webhook.secret"}
	at := -1
	for _, path := range order {
		i := slices.IndexFunc(cfg.Describe(), func(s Setting) bool { return s.Path == path })
		if i <= at {
			t.Errorf("%s is at %d, after %d", path, i, at)
		}
		at = i
	}
	for _, s := range cfg.Describe() {
		if s.Doc == "" || s.Value == "" || strings.Contains(s.Value+s.Default+s.Doc, "hunter2") {
			t.Errorf("%+v", s)
		}
	}
	if s := described(t, cfg, "api.key"); s.Value != "set (from environment NEXUSPROMAIL_API_KEY)" || !s.Secret {
		t.Errorf("%+v", s)
	}
	if s := described(t, cfg, "webhook.secret"); s.Value != "not set" || s.Origin != "" {
		t.Errorf("%+v", s)
	}
	if s := described(t, cfg, "api.burst"); s.Value != "5" || s.Origin != "default" || s.Default != "0" {
		t.Errorf("%+v", s)
	}
}

// TestTagsAreWhole finds what the compiler does not: a setting that is there twice,
// that nobody explained or could guess a value of, or that has a tag nobody reads.
func TestTagsAreWhole(t *testing.T) {
	known := strings.Fields("toml default usual range words check env credential restart example doc")
	key := regexp.MustCompile(`(?:^| )(\w+):"(?:[^"\\]|\\.)*"`)
	seen := map[string]bool{}
	all := vendors.All()
	list, err := settingsOf(oneOfEach(), all[0], all)
	if err != nil {
		t.Error(err)
	}
	for _, table := range settings.Tables(&Config{}) {
		if !slices.ContainsFunc(list, func(s setting) bool { name, _ := splitPath(s.Path); return name == table.Name }) {
			t.Errorf("[%s] has no settings: oneOfEach lacks it", table.Name)
		}
	}
	for _, s := range list {
		if v, ok := s.Value.(text); ok {
			if err := v.check("x"); err != nil && strings.Contains(err.Error(), "no check named") {
				t.Errorf("%s: %v", s.Path, err)
			}
		}
		if seen[s.Path] || s.Tag.Get("doc") == "" {
			t.Errorf("%s is there twice, or not explained", s.Path)
		}
		seen[s.Path] = true
		if s.Default == "" && s.Tag.Get("example") == "" && !s.secret() {
			t.Errorf("%s has neither default nor example", s.Path)
		}
		var keys []string
		for _, m := range key.FindAllStringSubmatch(string(s.Tag), -1) {
			keys = append(keys, m[1])
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: nobody reads the tag %s", s.Path, m[1])
			}
		}
		if !slices.Contains(keys, "toml") || !slices.Contains(keys, "doc") {
			t.Errorf("%s: read %v of the tags %s", s.Path, keys, s.Tag)
		}
	}
}

// What clients are told that they may send fits into memory with all that is
// made of it, whatever else is set; and the defaults fit each other.
func TestMessageSizeFits(t *testing.T) {
	for more, want := range map[string]int64{
		"":                                    25 << 20,
		"memory = \"1GiB\"":                   25 << 20,
		"memory = \"64MiB\"":                  0,
		"memory = \"16MiB\"":                  0,
		"memory = \"16MiB\"\nconnections=256": 0,
		"connections = 3000":                  0,
	} {
		c := load(t, file("[limits]\n"+more+"\n", nil))
		size := c.Limits.MessageBytes
		takes := size + mail.MostCost(size) + int64(c.Limits.Connections)*smtpd.ConnectionBytes
		switch {
		case takes > c.Limits.Memory, size > c.Limits.Memory/2:
			t.Errorf("%q: %d octets take %d of %d", more, size, takes, c.Limits.Memory)
		case want != 0 && size != want, size < 64<<10:
			t.Errorf("%q: message_size is %d, want %d", more, size, want)
		}
	}
}
