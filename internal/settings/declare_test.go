package settings

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

type example struct {
	Name   string `toml:"name" usual:"the name of this machine" example:"\"a\"" doc:"A."`
	Bare   bare
	Limits limits  `toml:"limits" doc:"B."`
	Lists  []entry `toml:"list" doc:"C."`
	Note   string  // no setting
}

type bare struct {
	Wait time.Duration `toml:"wait" default:"10s" range:"1s..1m" doc:"D."`
}

type limits struct {
	embedded
	Size  int64         `toml:"size" default:"1MiB" range:"1KiB..1GiB" doc:"E."`
	Grace time.Duration `default:"5s"`
}

type embedded struct {
	Most int `toml:"most" default:"7" range:"1..10" doc:"F."`
}

type entry struct {
	Mode string `toml:"mode" default:"on" words:"on off" doc:"G."`
	Must string `toml:"must" example:"\"x\"" doc:"H."`
}

func TestDeclare(t *testing.T) {
	e := example{Lists: make([]entry, 2)}
	list, err := Declare(&e, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, fmt.Sprintf("%s = %s (%s)", s.Path, s.Value.Text(), s.Default))
	}
	want := []string{
		`name = "" (the name of this machine)`, `wait = "10s" ("10s")`, `limits.most = 7 (7)`, `limits.size = "1MiB" ("1MiB")`,
		`list#1.mode = "on" ("on")`, `list#1.must = "" ()`, `list#2.mode = "on" ("on")`, `list#2.must = "" ()`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e.Bare.Wait != 10*time.Second || e.Limits.Size != 1<<20 || e.Limits.Grace != 5*time.Second || e.Lists[1].Mode != "on" {
		t.Errorf("the defaults are %+v", e)
	}
	if err := list[1].Value.Set("2m"); err == nil || err.Error() != `found "2m"; allowed is from "1s" to "1m"` {
		t.Errorf("beyond the range: %v", err)
	}
	if err := list[1].Value.Set("20s"); err != nil || e.Bare.Wait != 20*time.Second {
		t.Errorf("%v, %v", e.Bare.Wait, err)
	}
}

func TestTables(t *testing.T) {
	want := []Table{{}, {"limits", "B.", false}, {"list", "C.", true}}
	if got := Tables(&example{}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Tags that are wrong are an error that names the setting.
func TestDeclareRefuses(t *testing.T) {
	for want, wrong := range map[string]any{
		"a: found 11; allowed is from 1 to 10": &struct {
			A int `toml:"a" default:"11" range:"1..10"`
		}{},
		`a: found "ten", which is not a size`: &struct {
			A int `toml:"a" range:"1..ten"`
		}{},
		"a: nothing reads a setting of type chan int": &struct {
			A chan int `toml:"a"`
		}{},
		`t.a: found "third"; allowed is "first" or "second"`: &struct {
			T struct {
				A string `toml:"a" default:"third" words:"first second"`
			} `toml:"t"`
		}{},
	} {
		if _, err := Declare(wrong, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
