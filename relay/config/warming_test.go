package config

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/warm"
)

func TestWarming(t *testing.T) {
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	cfg := load(t, file(`
[sender]
email = "hello@mail.example.com"
domains = ["mail.example.com", "b.example", "c.example"]

[[warming]]
domain = "Mail.example.com"
begin = "2026-12-01"
first = 40
growth = 2
until = 0
urgent = ["alerts@mail.example.com", "@b.example"]

[[warming]]
domain = "b.example"
begin = 2026-12-01
table = [50, 50, 100, 0]

[[warming]]
domain = "c.example"
begin = 2026-12-01 00:00:00
table = [50]
until = 60
`, env{}))
	want := []warm.Plan{
		{Domain: "Mail.example.com", Begin: december, First: 40, Growth: 2, Urgent: []string{"alerts@mail.example.com", "@b.example"}},
		{Domain: "b.example", Begin: december, First: 50, Growth: 1.5, Table: []int{50, 50, 100, 0}},
		{Domain: "c.example", Begin: december, First: 50, Growth: 1.5, Until: 60, Table: []int{50}},
	}
	if !reflect.DeepEqual(cfg.Warming, want) {
		t.Errorf("got  %+v\nwant %+v", cfg.Warming, want)
	}
	if len(cfg.Warnings) != 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
	if s := described(t, cfg, "warming#2.table"); s.Value != "[50, 50, 100, 0]" || s.Origin != "file" || s.Default != "[]" {
		t.Errorf("%+v", s)
	}
	if s := described(t, cfg, "warming#2.begin"); s.Value != `"2026-12-01"` {
		t.Errorf("%+v", s)
	}
}

func TestWarmingDefaults(t *testing.T) {
	if cfg := load(t, file("", env{})); len(cfg.Warming) != 0 {
		t.Errorf("%+v without a table", cfg.Warming)
	}
	if cfg := load(t, file("warming = []\n", env{})); len(cfg.Warming) != 0 {
		t.Errorf("%+v from an empty list", cfg.Warming)
	}
	cfg := load(t, file(exampleWarming, env{}))
	if len(cfg.Warnings) != 0 {
		t.Errorf("warnings where no sender is set: %q", cfg.Warnings)
	}
	one := cfg.Warming[0]
	if one.First != 50 || one.Growth != 1.5 || one.Until != 20000 {
		t.Errorf("%+v", one)
	}
}

func TestWarmingWarns(t *testing.T) {
	cfg := load(t, file(exampleWarming+"growth = 2\ntable = [10, 20]\n", env{"FROM_EMAIL": "hello@example.org"}))
	want := []string{
		"warming: mail.example.com is not among sender.domains: nothing is sent from it",
		"warming: there is a table, so that first and growth count for nothing",
	}
	if !slices.Equal(cfg.Warnings, want) {
		t.Errorf("got %q\nwant %q", cfg.Warnings, want)
	}
}
