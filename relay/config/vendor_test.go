package config

import (
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider/providertest"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// A vendor brings the names of its variables, its defaults and settings of its own.
func TestAVendorIsChosen(t *testing.T) {
	choose := func(toml string, vars env) (*Config, error) {
		src := file(toml, vars)
		src.NeedAPI, src.Vendors = true, append(vendors.All(), providertest.Acme())
		return Load(src)
	}
	vars := env{"ACME_API_KEY": "acme-key", "ACME_API_KEY_SHOP": "shop-key", "NEXUSPROMAIL_API_KEY": "other-key", "FROM_EMAIL": "hello@mail.example.de"}
	cfg, err := choose("[API]\nProvider = \"acme\"\n[[account]]\nname = \"shop\"\n", vars)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"api.provider": `"acme"`, "api.url": `"https://api.acme.example"`, "api.path": `"/mails"`, "webhook.register_path": `"/hooks"`, "mail.stream": `"orders"`,
	} {
		if got := described(t, cfg, path).Value; got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if cfg.API.Vendor.Name != "acme" || cfg.API.Key.Reveal() != "acme-key" || cfg.Accounts[0].Key.Reveal() != "shop-key" || cfg.Accounts[0].URL != "https://api.acme.example" {
		t.Errorf("%s is called at %s", cfg.API.Vendor.Name, cfg.Accounts[0].URL)
	}
	if cfg, err := choose("", vars); err != nil || cfg.API.Vendor.Name != vendors.All()[0].Name || cfg.API.Key.Reveal() != "other-key" {
		t.Errorf("without a choice: %v", err)
	}

	for toml, want := range map[string]string{
		"[api]\nprovider = \"acne\"":                                "smtp2rest.toml:2: api.provider: found \"acne\"; did you mean \"acme\"?",
		"[api]\nprovider = 7":                                       "smtp2rest.toml:2: api.provider: found the number 7; write \"nexuspromail\" or \"acme\"",
		"[mail]\nstream = \"x\"":                                    "smtp2rest.toml:2: mail.stream: unknown setting",
		"[api]\nprovider=\"acme\"\n[mail]\nattachments = \"send\"":  "mail.attachments: found \"send\", and acme takes no attachments",
		"[api]\nprovider=\"acme\"\n[mail]\nheader_field = \"more\"": "mail.header_field: unknown setting",
	} {
		if _, err := choose(toml, vars); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", toml, err, want)
		}
	}
}

// The documents name every vendor, and what only one of them has. Here a second one is
// added, so that this does not depend on how many there are.
func TestDocumentsHaveEveryVendor(t *testing.T) {
	sections := reference(append(vendors.All()[:1:1], providertest.Acme()))
	for kind, text := range map[string]string{"reference": referenceText(sections), "example": exampleText(t, sections)} {
		for _, want := range []string{
			`"nexuspromail", "acme"`, "only with api.provider = acme", "only with api.provider = nexuspromail", "stream",
			`default with "acme": "https://api.acme.example"`, `environment with "acme": ACME_API_URL`,
		} {
			if !strings.Contains(strings.ReplaceAll(text, "\n# ", " "), want) {
				t.Errorf("the %s lacks %s", kind, want)
			}
		}
	}
	for _, section := range Reference() {
		for _, s := range section.Settings {
			if len(vendors.All()) == 1 && s.Note() != "" {
				t.Errorf("%s: %s, and there is one provider", s.Path, s.Note())
			}
		}
	}
}
