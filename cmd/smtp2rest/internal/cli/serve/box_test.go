package serve

import (
	"context"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// Whatever the address and the key of an account are, none of its mail leaves the sandbox.
func TestTheSandboxPlaysEveryAccount(t *testing.T) {
	real := func(name string) (string, bool) {
		return "npm_real", strings.HasPrefix(name, "NEXUSPROMAIL_API_KEY")
	}
	boxed := withSandboxEnv(&terminal.Terminal{Env: real})
	for _, name := range []string{"NEXUSPROMAIL_API_KEY", "NEXUSPROMAIL_API_KEY_FILE", "NEXUSPROMAIL_API_KEY_SHOP", "NEXUSPROMAIL_API_KEY_SHOP_FILE"} {
		if v, _ := boxed.Env(name); v == "npm_real" {
			t.Errorf("%s is the real one", name)
		}
	}
	cfg := &config.Config{Accounts: []config.Account{{Name: "shop", URL: "https://app.nexuspromail.com/api", Path: "/other", Key: config.NewSecret("shop-key")}}}
	cfg.API.Vendor = vendors.All()[0]
	cfg.API.Key, cfg.API.Path = config.NewSecret("sandbox-key"), "/v1/transactional/send"
	box, _, err := startSandbox(t.Context(), cfg, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = box.Stop(context.Background()) }()
	if a := cfg.Accounts[0]; a.URL != box.URL() || a.Path != cfg.API.Path || box.(*sandbox.Server).Account("shop") == nil {
		t.Errorf("the account's mail goes to %s%s", a.URL, a.Path)
	}
}
