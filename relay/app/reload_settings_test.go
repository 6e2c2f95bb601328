package app

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// onlyChecked are settings that no part of the daemon takes: the configuration
// is judged by them, and with them again at each reload.
func onlyChecked() map[string]string {
	return map[string]string{
		"api.allow_insecure":    "whether api.url may be http://",
		"webhook.register_path": "the command that registers asks there, not the daemon",
	}
}

// lines are what a setting needs in the file to be another than by default,
// where changing its number or word is not enough. F is a file that the test
// makes. What stands before "|" is there before the change as well.
func lines(setting string) string {
	const hash = "password_hash = \"$2a$10$AAAA17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\""
	const send = "attachments = \"send\"\n"
	const tls = "tls = \"starttls\"\n"
	if strings.HasSuffix(setting, "_senders") || strings.HasSuffix(setting, ".allow_from") || strings.HasSuffix(setting, ".deny_from") || strings.HasSuffix(setting, "w_recipients") || strings.HasSuffix(setting, "deny_recipients") {
		_, name, _ := strings.Cut(setting, ".")
		return name + ` = ["x@example.com"]`
	}
	return map[string]string{
		"hostname":                     `hostname = "other.example.com"`,
		"users_file":                   `users_file = "F/users"`,
		"qualify_domain":               `qualify_domain = "other.example.com"`,
		"alias_file":                   `alias_file = "F/aliases"`,
		"aliases":                      `aliases = { root = ["ops@example.com"] }`,
		"api.url":                      `url = "https://other.example.com"`,
		"api.path":                     `path = "/other"`,
		"api.key_file":                 `key_file = "F/key"`,
		"api.burst":                    `burst = 7`,
		"api.connect_timeout":          `connect_timeout = "4s"`,
		"api.ca_file":                  `ca_file = "F/cert.pem"`,
		"sender.email":                 `email = "other@sandbox.example"`,
		"sender.name":                  `name = "Other"`,
		"sender.domains":               `domains = ["sandbox.example", "other.example"]`,
		"sender.foreign":               `foreign = "refuse"`,
		"account.key_file":             `key_file = "F/token"`,
		"account.url":                  `url = "https://other.example.com"`,
		"account.path":                 `path = "/other"`,
		"account.timeout":              `timeout = "11s"`,
		"account.connect_timeout":      `connect_timeout = "4s"`,
		"account.concurrency":          `concurrency = 7`,
		"account.burst":                `burst = 7`,
		"account.email":                `email = "other@shop.example"`,
		"account.email_name":           `email_name = "Other"`,
		"account.domains":              `domains = ["shop.example", "other.example"]`,
		"account.webhook_secret_file":  `webhook_secret_file = "F/token"`,
		"account.foreign":              `foreign = "refuse"`,
		"user.account":                 `account = "default"`,
		"listener.account":             `account = "default"`,
		"mail.attachments":             `attachments = "strip"`,
		"mail.attachments_field":       send + `|attachments_field = "other"`,
		"mail.attachment_filename":     send + `|attachment_filename = "other"`,
		"mail.attachment_content":      send + `|attachment_content = "other"`,
		"mail.attachment_content_type": send + `|attachment_content_type = "other"`,
		"mail.attachment_content_id":   send + `|attachment_content_id = "other"`,
		"mail.header_field":            `header_field = "other"`,
		"bounce.postmaster":            `postmaster = "other@example.com"`,
		"listener.address":             `address = "127.0.0.1:2526"`,
		"sendmail.spool":               `spool = "/other"`,
		"listener.protocol":            `protocol = "lmtp"`,
		"listener.socket_mode":         `socket_mode = "0600"`,
		"listener.networks":            `networks = ["10.0.0.0/8"]`,
		"listener.proxy_from":          `proxy_from = ["10.0.0.1/32"]`,
		"listener.tls":                 "self_signed = true\n" + tls + `|tls = "implicit"`,
		"listener.cert_file":           tls + "key_file = \"F/key.pem\"\ncert_file = \"F/cert.pem\"|cert_file = \"F/./cert.pem\"",
		"listener.key_file":            tls + "cert_file = \"F/cert.pem\"\nkey_file = \"F/key.pem\"|key_file = \"F/./key.pem\"",
		"listener.self_signed":         tls + "cert_file = \"F/cert.pem\"\nkey_file = \"F/key.pem\"|cert_file = \"\"\nkey_file = \"\"\nself_signed = true",
		"listener.min_tls":             "self_signed = true\n" + tls + `|min_tls = "1.3"`,
		"listener.require_auth":        "auth_without_tls = true\nrequire_auth = true\n[[user]]\n" + strings.Join(strings.Split(table("user"), "\n")[1:], "\n"),
		"user.name":                    `name = "other"`,
		"user.password_hash":           hash,
		"user.senders":                 `senders = ["x@example.com"]`,
		"user.rate":                    `rate = "10/hour"`,
		"user.from":                    `from = "other@sandbox.example"`,
		"user.from_name":               "from = \"other@sandbox.example\"\n|from_name = \"Other\"",
		"warming.domain":               `domain = "other.example.com"`,
		"warming.begin":                `begin = "2026-02-02"`,
		"warming.table":                `table = [50, 100]`,
		"warming.account":              `account = "default"`,
		"warming.urgent":               `urgent = ["@sandbox.example"]`,
		"limits.rate_per_address":      `rate_per_address = "10/hour"`,
		"limits.rate_per_user":         `rate_per_user = "10/hour"`,
		"limits.rate_per_sender":       `rate_per_sender = "10/hour"`,
		"admin.address":                `address = "127.0.0.1:9191"`,
		"admin.hosts":                  `hosts = ["relay.example.com"]`,
		"admin.cert_file":              "key_file = \"F/key.pem\"\ncert_file = \"F/cert.pem\"|cert_file = \"F/./cert.pem\"",
		"admin.key_file":               "cert_file = \"F/cert.pem\"\nkey_file = \"F/key.pem\"|key_file = \"F/./key.pem\"",
		"operator.name":                `name = "other"`,
		"operator.role":                `role = "operate"`,
		"operator.token_hash":          `token_hash = "sha256:` + strings.Repeat("1", 64) + `"`,
		"admin.open":                   `open = "metrics"`,
		"admin.token_file":             `token_file = "F/token"`,
		"webhook.address":              "secret_file = \"F/key\"\n|address = \"127.0.0.1:9191\"",
		"webhook.path":                 `path = "/other"`,
		"webhook.cert_file":            "key_file = \"F/key.pem\"\ncert_file = \"F/cert.pem\"|cert_file = \"F/./cert.pem\"",
		"webhook.key_file":             "cert_file = \"F/cert.pem\"\nkey_file = \"F/key.pem\"|key_file = \"F/./key.pem\"",
		"webhook.secret_file":          `secret_file = "F/key"`,
		"webhook.previous_secret_file": "secret_file = \"F/key\"\n|previous_secret_file = \"F/key\"",
		"notify.mail":                  `mail = ["ops@example.com"]`,
		"notify.url":                   "secret_file = \"F/key\"\n|url = \"https://ops.example.com/hook\"",
		"notify.secret_file":           `secret_file = "F/key"`,
		"forward.name":                 `name = "other"`,
		"forward.url":                  `url = "https://other.example.com/"`,
		"forward.events":               `events = ["relay.failed"]`,
		"forward.headers":              `headers = ["X-Order-Id"]`,
		"forward.secret_file":          `secret_file = "F/token"`,
		"log.level":                    `level = "debug"`,
		"archive_bcc":                  `archive_bcc = "archive@example.com"`,
		"account.archive_bcc":          `archive_bcc = "archive@example.com"`,
		"redirect_all":                 `redirect_all = "dev@example.com"`,
		"listener.redirect_all":        `redirect_all = "dev@example.com"`,
		"account.redirect_all":         `redirect_all = "dev@example.com"`,
		"user.redirect_all":            `redirect_all = "dev@example.com"`,
		"mail.inline":                  `inline = "refuse"`,
		"mail.fields":                  `fields = { "X-Tag" = "tags[]" }`,
		"account.fields":               `fields = { "X-Tag" = "tags[]" }`,
		"listener.fields":              `fields = { "tags[]" = "shop" }`,
		"user.fields":                  `fields = { "tags[]" = "shop" }`,
		"log.format":                   `format = "json"`,
	}[setting]
}

var number = regexp.MustCompile(`^"?([0-9]+)(\.[0-9]+)?([A-Za-z]*)"?$`)

// another is a value near the default.
func another(s config.Setting) string {
	m := number.FindStringSubmatch(s.Default)
	switch {
	case s.Default == "true":
		return "false"
	case s.Default == "false" || strings.HasPrefix(s.Default, "true on"):
		return map[bool]string{true: "false", false: "true"}[strings.HasPrefix(s.Default, "true")]
	case m == nil:
		return ""
	}
	n, _ := strconv.Atoi(m[1])
	return strings.Replace(s.Default, m[1], strconv.Itoa(n+1), 1)
}

// table is the file's beginning of a setting's table, with what must be set.
func table(section string) string {
	switch section {
	case "":
		return ""
	case "listener":
		return "[[listener]]\naddress = \"127.0.0.1:2525\"\n"
	case "user":
		return "[[user]]\nname = \"ann\"\npassword_hash = \"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\"\n"
	case "operator":
		return "[[operator]]\nname = \"ann\"\ntoken_hash = \"sha256:" + strings.Repeat("0", 64) + "\"\n"
	case "account":
		return "[[account]]\nname = \"shop\"\nkey_file = \"F/key\"\nemail = \"hello@shop.example\"\n"
	case "forward":
		return "[[forward]]\nname = \"crm\"\nurl = \"https://crm.example.com/\"\nsecret_file = \"F/key\"\n"
	case "warming":
		return "[[warming]]\ndomain = \"sandbox.example\"\nbegin = \"2026-01-01\"\n"
	default:
		return "[" + section + "]\n"
	}
}

// merge puts lines into a table; of a name that is there twice the last counts.
func merge(text string) string {
	var names []string
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, there := lines[name]; !there {
			names = append(names, name)
		}
		lines[name] = strings.TrimRight(line, "\n")
	}
	for i, name := range names {
		names[i] = lines[name]
	}
	return strings.Join(names, "\n") + "\n"
}

// Every setting is taken by some part of the daemon at a reload, or its tag says why
// it takes a restart, or it is only checked. Whoever adds a setting and forgets the
// reload learns it here.
func TestEverySettingReloads(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir)
	a, _ := start(t, load(t, "https://api.example.com/api", toml(t, strings.ReplaceAll(table("account"), "F/", dir+"/"))))
	hooks := a.running.reloads
	for _, section := range config.Reference() {
		for _, s := range section.Settings {
			if s.Restart != "" || s.Secret || onlyChecked()[s.Path] != "" {
				continue
			}
			t.Run(s.Path, func(t *testing.T) {
				_, name, _ := strings.Cut("."+s.Path, ".")
				if section.Name != "" {
					_, name, _ = strings.Cut(s.Path, ".")
				}
				text := lines(s.Path)
				if text == "" && another(s) != "" {
					text = name + " = " + another(s)
				}
				if text == "" {
					t.Fatalf("what is another value than %s? Say it in lines", s.Default)
				}
				before, after, found := strings.Cut(strings.ReplaceAll(text, "F/", dir+"/"), "|")
				if !found {
					before, after = "", before
				}
				head := strings.ReplaceAll(table(section.Name), "F/", dir+"/")
				old := load(t, "https://api.example.com/api", merge(head+before))
				next := loadKeyless(t, dir, s.Path, merge(head+before+"\n"+after))
				var takers []string
				for _, h := range hooks {
					if !reflect.DeepEqual(h.settings(old), h.settings(next)) {
						takers = append(takers, h.name)
					}
				}
				if len(takers) == 0 {
					t.Error("no part of the daemon takes it over at a reload")
				}
				if changes, err := old.WithoutRestart(next); err != nil || len(changes) == 0 {
					t.Errorf("the changes are %v, %v", changes, err)
				}
			})
		}
	}
}

// loadKeyless loads without a key in the environment where it is to come from
// elsewhere.
func loadKeyless(t *testing.T, dir, path, toml string) *config.Config {
	t.Helper()
	if path != "api.key_file" && path != "api.url" && path != "sender.email" {
		return load(t, "https://api.example.com/api", toml)
	}
	env := map[string]string{"NEXUSPROMAIL_API_KEY": "planted-key"}
	if path == "api.key_file" {
		env = map[string]string{"FROM_EMAIL": "relay@sandbox.example"}
	}
	if path == "api.url" {
		env["FROM_EMAIL"] = "relay@sandbox.example"
	}
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{Path: file, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeFiles(t *testing.T, dir string) {
	t.Helper()
	cert, key := certificate(t, "one.example.com")
	for name, text := range map[string]string{
		"users":   "bob:$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\n",
		"aliases": "root: ops@example.com\n", "key": "another-key\n", "token": "0123456789abcdef\n", "cert.pem": cert, "key.pem": key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", name, err))
		}
	}
}
