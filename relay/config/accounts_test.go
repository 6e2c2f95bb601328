package config

import (
	"maps"
	"strings"
	"testing"
	"time"
)

const twoAccounts = `
[api]
url = "https://api.example.net/v2/"
timeout = "7s"
[sender]
email = "hello@mail.example.de"
name = "Hello"
foreign = "refuse"
[[account]]
name = "shop"
domains = ["shop.example.de", "Shop.Example.COM"]
email = "hello@shop.example.de"
rate = 50
foreign = "rewrite"
[[account]]
name = "my-news"
timeout = "20s"
[[user]]
name = "ann"
password_hash = "` + hashOne + `"
account = "shop"
[[listener]]
account = "default"
`

func TestAccountsInherit(t *testing.T) {
	src := file(twoAccounts, env{"NEXUSPROMAIL_API_KEY": "npm_1", "NEXUSPROMAIL_API_KEY_SHOP": "npm_2", "NEXUSPROMAIL_API_KEY_MY_NEWS": "npm_3"})
	src.NeedAPI = true
	c := load(t, src)
	shop, news := c.Account("shop"), c.Account("my-news")
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"key", shop.Key.Reveal(), "npm_2"},
		{"url", shop.URL, "https://api.example.net/v2"},
		{"timeout", shop.Timeout, 7 * time.Second},
		{"concurrency", shop.Concurrency, c.API.Concurrency},
		{"rate", shop.Rate, 50.0},
		{"burst", shop.Burst, 5},
		{"foreign", string(shop.Foreign), "rewrite"},
		{"name of its sender", shop.EmailName, ""},
		{"key of the other", news.Key.Reveal(), "npm_3"},
		{"timeout of the other", news.Timeout, 20 * time.Second},
		{"rate of the other", news.Rate, 0.0},
		{"sender of the other", news.Email + " " + news.EmailName, "hello@mail.example.de Hello"},
		{"foreign of the other", string(news.Foreign), "refuse"},
		{"none", c.Account("default"), (*Account)(nil)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	want := map[string]string{"shop.example.de": "shop", "shop.example.com": "shop"}
	if got := c.AccountDomains(); !maps.Equal(got, want) {
		t.Errorf("domains are %v, want %v", got, want)
	}
}

// Two accounts with one key are one to the provider. The warning does not show the key.
func TestAccountsWithTheSameKey(t *testing.T) {
	c := load(t, file("[[account]]\nname = \"shop\"\n[[account]]\nname = \"news\"\n[[account]]\nname = \"old\"\n", env{
		"FROM_EMAIL": "hello@mail.example.de", "NEXUSPROMAIL_API_KEY": "npm_one", "NEXUSPROMAIL_API_KEY_SHOP": "npm_two", "NEXUSPROMAIL_API_KEY_NEWS": "npm_two", "NEXUSPROMAIL_API_KEY_OLD": "npm_one",
	}))
	all := strings.Join(c.Warnings, "\n")
	for _, want := range []string{`account "news": its API key is that of account "shop" as well`, `account "old": its API key is that of [api] as well`} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q:\n%s", want, all)
		}
	}
	if strings.Contains(all, "npm_") || len(c.Warnings) != 2 {
		t.Errorf("warnings:\n%s", all)
	}
}
