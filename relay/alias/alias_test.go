package alias

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func options() Options {
	return Options{Qualify: "mail.example.com", Local: []string{"localhost", "web1"}}
}

func table(t *testing.T, text string) *Table {
	t.Helper()
	entries, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	table, err := New(options(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestExpand(t *testing.T) {
	const text = `# people
root: ops@example.net, "zoe@example.net"
postmaster: root
MAILER-DAEMON: postmaster
both: root,
	zoe@example.net, eve@example.net
www: www, eve@example.net
git: \git, \www, root
boss@example.org: eve@example.net
@old.example: archive@old.example, root
backup: unknown
@pool.example: pool
pool: \eve@pool.example, zoe@example.net
"quoted": bob@example.net
`
	const all = "ops@example.net zoe@example.net"
	for address, want := range map[string]string{
		"root@mail.example.com":          all,
		"Root@Mail.Example.COM":          all,
		"root@localhost":                 all,
		"root@web1":                      all,
		"root":                           all,
		"root@elsewhere.example":         "",
		"mailer-daemon@mail.example.com": all,
		"both@mail.example.com":          all + " eve@example.net",
		"www@mail.example.com":           "www@mail.example.com eve@example.net",
		"git@mail.example.com":           "git@mail.example.com www@mail.example.com " + all,
		"boss@example.org":               "eve@example.net",
		"other@example.org":              "",
		"x@old.example":                  "archive@old.example " + all,
		"archive@old.example":            "archive@old.example " + all,
		"bob@pool.example":               "eve@pool.example zoe@example.net",
		"backup@web1":                    "unknown@mail.example.com",
		"quoted@web1":                    "bob@example.net",
		"customer@example.net":           "",
		"nobody@mail.example.com":        "",
	} {
		got, ok := table(t, text).Expand(address)
		if strings.Join(got, " ") != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// The alias "*" is for local names only. A customer's mail goes to the customer.
func TestCatchAll(t *testing.T) {
	tab := table(t, "*: ops\nroot: zoe@example.net\n")
	for address, want := range map[string]string{
		"anyone@mail.example.com": "ops@mail.example.com", "cron@localhost": "ops@mail.example.com",
		"root@localhost": "zoe@example.net", "ops@web1": "ops@mail.example.com", "customer@example.net": "",
	} {
		if got, _ := tab.Expand(address); strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := ""
	for i := range MaxDepth + 1 {
		deep += fmt.Sprintf("a%d: a%d\n", i, i+1)
	}
	for text, want := range map[string]string{
		"root: |/usr/bin/procmail":         `line 1: root: "|/usr/bin/procmail" is a program`,
		`root: "|/usr/bin/procmail -a, b"`: `line 1: root: "|/usr/bin/procmail -a, b" is a program`,
		`root: \|cmd`:                      `is a program`,
		"# x\nroot: /dev/null":             `line 2: root: "/dev/null" is a file`,
		"root: :include:/etc/list":         `is a list in another file`,
		"root: :INCLUDE:/etc/list":         `is a list in another file`,
		"root ops@example.net":             "line 1: write name: address, address",
		"root:":                            "line 1: root leads to nobody",
		"root: a b":                        `"a b" is not an address`,
		"root: a@b@c":                      `is not an address`,
		"root: a@x\r\rRCPT":                `is not an address`,
		"a b: c":                           "cannot be the name of an alias",
		"@: c":                             "cannot be the name of an alias",
		"root: a@b\nROOT: c@d":             `line 2: "root" is there twice (first at line 1); keep one`,
		"a: b\nb: c\nc: a":                 "a leads back to itself: a -> b -> c -> a",
		"@x: a\na: b@x":                    "a leads back to itself: a -> @x -> a; a \\ before an address ends it there",
		"a: b@x\nb@x: a":                   "leads back to itself",
		deep:                               "leads through more than 50 aliases",
		"all: " + strings.Join(many(MaxTargets+1), ","): "all leads to more than 1000 addresses",
		"  : x": "write name: address",
	} {
		entries, err := Parse(text)
		if err == nil {
			_, err = New(options(), entries)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

// Two equal entries are no contradiction. For example, /etc/aliases and the settings
// often agree about postmaster.
func TestTheSameTwice(t *testing.T) {
	entries, err := Parse("root: a@b.example\npostmaster: root\nPostmaster: root\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(options(), entries); err != nil {
		t.Error(err)
	}
}

func many(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("u%d@example.net", i)
	}
	return list
}

// Each alias is expanded once. Two ways at each of 40 crossings would be 2^40 paths.
func TestCrossingsCostNothing(t *testing.T) {
	text := ""
	for i := range 40 {
		text += fmt.Sprintf("a%d: a%d, b%d\nb%d: a%d, b%d\n", i, i+1, i+1, i, i+1, i+1)
	}
	if got, _ := table(t, text).Expand("a0@web1"); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// The error names everything that is wrong.
func TestEveryProblemIsNamed(t *testing.T) {
	entries, _ := Parse("root: |x\nok: a@b\nbad: /y\n")
	if _, err := New(options(), entries); err == nil || !strings.Contains(err.Error(), "line 1") || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("%v", err)
	}
}

func TestNoAliasesChangeNothing(t *testing.T) {
	if got, ok := table(t, "").Expand("root@mail.example.com"); ok || got != nil {
		t.Errorf("%q", got)
	}
}

// For every table, expansion ends, is bounded, returns somebody, nobody twice, and
// only complete addresses.
func TestExpansionIsBounded(t *testing.T) {
	names := []string{"a", "b", "c", "d", "@x", "*", "a@x", "b@x", "c@y"}
	rapid.Check(t, func(t *rapid.T) {
		var entries []Entry
		for _, name := range names {
			if targets := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", `\a`, "a@x", "b@x", "c@y", "e@z"}), 0, 4).Draw(t, name); len(targets) > 0 {
				entries = append(entries, Entry{Name: name, Targets: targets})
			}
		}
		tab, err := New(Options{Qualify: "x"}, entries)
		if err != nil {
			return // a circle
		}
		for _, address := range []string{"a@x", "b@x", "c@x", "c@y", "q@x", "q@q"} {
			got, ok := tab.Expand(address)
			sorted := slices.Sorted(slices.Values(got))
			if ok != (len(got) > 0) || len(slices.Compact(sorted)) != len(got) || len(got) > MaxTargets {
				t.Fatalf("%v: %s gives %q", entries, address, got)
			}
			for _, a := range got {
				if !strings.Contains(a, "@") {
					t.Fatalf("%v: %s gives %q", entries, address, got)
				}
			}
		}
	})
}

// FuzzParse checks that, whatever the file, no address from it can end an SMTP
// command, and that none is a program or a file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: b, c@d\n e\n", "\"a\": \"b,c\", \\d", "a:|x", "@x: y@x", "*: a\nb: b", "a: \"\\\"", ":", "a::include:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := Parse(text)
		if err != nil {
			return
		}
		tab, err := New(options(), entries)
		if err != nil {
			return
		}
		for _, e := range entries {
			got, ok := tab.Expand(e.Name)
			for _, a := range got {
				if !ok || strings.ContainsAny(a, "\r\n\x00<>: \t\",") || strings.HasPrefix(a, "/") || strings.HasPrefix(a, "|") || strings.Count(a, "@") != 1 {
					t.Fatalf("%q gives %q", text, a)
				}
			}
		}
	})
}
