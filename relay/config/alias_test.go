package config

import (
	"slices"
	"strings"
	"testing"
)

func TestAliases(t *testing.T) {
	cfg := load(t, file("[aliases]\nroot = [\"ops@example.net\", \"zoe@example.net\"]\n\"@old.example\" = \"root\"\n\"*\" = [\"root\"]\n", env{"FROM_EMAIL": "hello@Mail.example.com"}))
	if cfg.Addresses.QualifyDomain != "mail.example.com" {
		t.Errorf("qualify_domain is %q", cfg.Addresses.QualifyDomain)
	}
	table, err := cfg.Addresses.Table("postmaster: eve@example.net\n")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"root@localhost": "ops@example.net zoe@example.net", "x@old.example": "ops@example.net zoe@example.net",
		"cron@mail.example.com": "ops@example.net zoe@example.net", "postmaster@" + cfg.Hostname: "eve@example.net", "customer@example.net": "",
	} {
		if got, _ := table.Expand(address); strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if _, err := cfg.Addresses.Table("root: eve@example.net\n"); err == nil || !strings.Contains(err.Error(), `"root" is there twice`) {
		t.Errorf("%v", err)
	}
	i := slices.IndexFunc(cfg.Describe(), func(s Setting) bool { return s.Path == "aliases" })
	if got := cfg.Describe()[i].Value; got != `{ "*" = ["root"], "@old.example" = ["root"], "root" = ["ops@example.net", "zoe@example.net"] }` {
		t.Errorf("check shows %s", got)
	}
	if got := load(t, file("qualify_domain = \"web1.example.com\"\n", env{})).Addresses.QualifyDomain; got != "web1.example.com" {
		t.Errorf("qualify_domain is %q", got)
	}
}
