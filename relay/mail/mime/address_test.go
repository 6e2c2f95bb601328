package mime

import (
	"reflect"
	"testing"
)

func TestParseAddresses(t *testing.T) {
	for _, c := range []struct {
		field string
		want  []Address
	}{
		{"ann@example.com", []Address{{"", "ann@example.com"}}},
		{"Ann <ann@example.com>", []Address{{"Ann", "ann@example.com"}}},
		{`"Ann, B." <ann@example.com>, joe@example.com`, []Address{{"Ann, B.", "ann@example.com"}, {"", "joe@example.com"}}},
		{"Doe, John <john@example.com>", []Address{{"Doe, John", "john@example.com"}}},
		{"a@example.com, Doe, John <john@example.com>", []Address{{"", "a@example.com"}, {"Doe, John", "john@example.com"}}},
		{"a@example.com; b@example.com;", []Address{{"", "a@example.com"}, {"", "b@example.com"}}},
		{"Team: a@example.com, B <b@example.com>;, c@example.com", []Address{{"", "a@example.com"}, {"B", "b@example.com"}, {"", "c@example.com"}}},
		{"undisclosed-recipients:;", nil},
		{"", nil},
		{" , ; ", nil},
		{"<>", nil},
		{"Nobody <>", []Address{{"Nobody", ""}}},
		{"ann@example.com <ann@example.com>", []Address{{"", "ann@example.com"}}},
		{`"ann@example.com" <other@example.com>`, []Address{{"ann@example.com", "other@example.com"}}},
		{"[x] J. Doe <j@example.com>", []Address{{"[x] J. Doe", "j@example.com"}}},
		{"ann@example.com (Ann B.)", []Address{{"Ann B.", "ann@example.com"}}},
		{"root (Cron Daemon)", []Address{{"Cron Daemon", "root"}}},
		{"<root>", []Address{{"", "root"}}},
		{"The Printer", []Address{{"The Printer", ""}}},
		{"=?utf-8?Q?Doe=2C_J=C3=BCrgen?= <j@example.com>", []Address{{"Doe, Jürgen", "j@example.com"}}},
		{`"=?utf-8?Q?J=C3=BCrgen?=" <j@example.com>`, []Address{{"Jürgen", "j@example.com"}}},
		{"=?utf-8?Q?x=40example.com?=", []Address{{"x@example.com", ""}}},
		{"=?utf-8?Q?x=40evil.example?=@example.com", []Address{{"x@evil.example@example.com", ""}}},
		{"J\xfcrgen <j@example.com>", []Address{{"Jürgen", "j@example.com"}}},
		{"<@a.example,@b.example:john@example.com>", []Address{{"", "john@example.com"}}},
		{"John <john@example.com", []Address{{"John", "john@example.com"}}},
		{"<<john@example.com>>", []Address{{"", "john@example.com"}}},
		{"<ann@example.com address here>", []Address{{"address here", "ann@example.com"}}},
		{"mailto:john@example.com", []Address{{"", "john@example.com"}}},
		{`"john doe"@example.com`, []Address{{"", `"john doe"@example.com`}}},
		{"Pete(a \\) chap) <pete(his)@example.com(host)>", []Address{{"Pete", "pete@example.com"}}},
		{"Who? <one@y . test>", []Address{{"Who?", "one@y.test"}}},
		{"a@b@example.com", []Address{{"a@b@example.com", ""}}},
		{"ann@", []Address{{"ann@", ""}}},
		{"ann@example..com", []Address{{"ann@example..com", ""}}},
		{"ann@[192.0.2.1]", []Address{{"", "ann@[192.0.2.1]"}}},
		{"'Ann' <ann@example.com>", []Address{{"Ann", "ann@example.com"}}},
		{"Ann\r\n <ann@example.com>", []Address{{"Ann", "ann@example.com"}}},
		{"ann@example.com\x00", []Address{{"ann@example.com", ""}}},
	} {
		if got := new(Decoder).Addresses([]byte(c.field), ""); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.field, got, c.want)
		}
	}
}

func TestAddressesAreBounded(t *testing.T) {
	field := make([]byte, 0, 1<<20)
	for range 1 << 15 {
		field = append(field, "a@example.com,"...)
	}
	if n := len(new(Decoder).Addresses(field, "")); n > maxAddresses {
		t.Errorf("%d addresses", n)
	}
}
