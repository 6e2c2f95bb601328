package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	hashOne = "$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"
	hashTwo = "$2a$10$AAAA17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"
)

// What changed is told by name, whatever its number in the file; secrets,
// hashes and the content of files only as that they changed.
func TestChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(text, key string) *Config {
		t.Helper()
		write("c.toml", text)
		e := env{"FROM_EMAIL": "hello@mail.example.com", "NEXUSPROMAIL_API_KEY": key}
		c, err := Load(Source{Path: filepath.Join(dir, "c.toml"), NeedAPI: true, Env: e.lookup})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	user := func(name, hash string) string {
		return fmt.Sprintf("[[user]]\nname = %q\npassword_hash = %q\n", name, hash)
	}
	write("aliases", "root: ops@example.com\n")
	base := "alias_file = \"aliases\"\n"
	for _, tt := range []struct {
		name, before, after, want string
		key                       string // after
		aliases                   string // after
	}{
		{name: "nothing", before: base, after: base},
		{name: "in other words", before: base + "[api]\ntimeout = \"60s\"", after: base + "[api]\ntimeout = \"1m\""},
		{name: "a default", before: base, after: base + "[api]\nrate = 10", want: "api.rate: 0 → 10"},
		{name: "the key", before: base, after: base, key: "npm_tother", want: "api.key: set, not shown → set, not shown"},
		{name: "a file behind it", before: base, after: base, aliases: "root: dev@example.com\n", want: "file " + dir + "/aliases: as it was → other content"},
		{name: "a listener that comes first", before: "[[listener]]\naddress = \"127.0.0.1:1\"", after: "[[listener]]\naddress = \"127.0.0.1:2\"\n[[listener]]\naddress = \"127.0.0.1:1\"\nprotocol = \"lmtp\"",
			want: `listener "127.0.0.1:1".protocol: "smtp" → "lmtp"` + "\n" + `listener "127.0.0.1:2".address:  → "127.0.0.1:2"`},
		{name: "a listener that goes, and was never written", before: base, after: "[[listener]]\naddress = \"127.0.0.1:2\"",
			want: `listener "127.0.0.1:2".address:  → "127.0.0.1:2"` + "\n" + `listener "127.0.0.1:2525".address: "127.0.0.1:2525" → `},
		{name: "a user's password", before: user("ann", hashOne), after: user("bob", hashOne) + user("ann", hashTwo),
			want: `user "ann".password_hash: set, not shown → set, not shown` + "\n" + `user "bob".name:  → "bob"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write("aliases", "root: ops@example.com\n")
			before := read(tt.before, "npm_test")
			if tt.aliases != "" {
				write("aliases", tt.aliases)
			}
			after := read(tt.after, max(tt.key, "npm_test"))
			list, err := before.WithoutRestart(after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range list {
				got = append(got, fmt.Sprintf("%s: %s → %s", c.Path, c.Old, c.New))
			}
			all := strings.Join(got, "\n")
			if tt.want == "" && len(got) > 0 {
				t.Errorf("changed: %s", all)
			}
			for _, want := range strings.Split(tt.want, "\n") {
				if !strings.Contains(all, want) {
					t.Errorf("there is no %s in\n%s", want, all)
				}
			}
			if strings.Contains(all, ".max_connections") || strings.Contains(all, ".proxy_from") {
				t.Errorf("defaults of a listener that came or went are told:\n%s", all)
			}
			if strings.Contains(all, "npm_") || strings.Contains(all, "$2a$") {
				t.Errorf("a secret is shown:\n%s", all)
			}
		})
	}
}

// What takes a restart is refused with the reason and both ways out.
func TestChangesThatTakeARestart(t *testing.T) {
	e := env{"FROM_EMAIL": "hello@mail.example.com", "NEXUSPROMAIL_API_KEY": "npm_test"}
	before := load(t, file("[queue]\ndata_dir = \"/a\"\n", e))
	after := load(t, file("[queue]\ndata_dir = \"/b\"\nmode = \"none\"\n[api]\nrate = 5\n", e))
	_, err := before.WithoutRestart(after)
	const want = `queue.mode: found "none" where "disk" is in force, which takes a restart: where mail is kept is decided at the start; restart smtp2rest, or write "disk" again` + "\n" +
		`queue.data_dir: found "/b" where "/a" is in force, which takes a restart: the queue in it is open; restart smtp2rest, or write "/a" again`
	var problems Errors
	if !errors.As(err, &problems) || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
