package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// pair is a certificate that ends at a time, and its key.
func pair(t *testing.T, end time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestListenerTLS(t *testing.T) {
	for _, tt := range []struct {
		end     time.Time
		warning string
	}{
		{time.Now().Add(time.Hour), ""},
		{time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC), "listener: the certificate in /etc/c/cert.pem ended on 2020-01-02"},
	} {
		cert, key := pair(t, tt.end)
		src := file("", env{})
		text := "[[listener]]\ntls = \"starttls\"\ncert_file = \"c/cert.pem\"\nkey_file = \"/k/key.pem\"\nmin_tls = \"1.0\"\n"
		src.Path = "/etc/smtp2rest.toml"
		src.ReadFile = func(path string) ([]byte, error) {
			return map[string][]byte{"/etc/smtp2rest.toml": []byte(text), "/etc/c/cert.pem": cert, "/k/key.pem": key}[path], nil
		}
		cfg := load(t, src)
		l := cfg.Listeners[0]
		if l.TLS != (smtpd.TLS{Mode: smtpd.StartTLS, CertFile: "/etc/c/cert.pem", KeyFile: "/k/key.pem", MinVersion: tls.VersionTLS10}) {
			t.Errorf("%+v", l)
		}
		if got := strings.Join(cfg.Warnings, "\n"); got != tt.warning {
			t.Errorf("warnings: %q, want %q", got, tt.warning)
		}
	}
}

const someHash = "$2y$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"

func TestUsers(t *testing.T) {
	src := file("", env{})
	src.ReadFile = func(path string) ([]byte, error) {
		return map[string][]byte{
			"smtp2rest.toml": []byte("users_file = \"users\"\n[[user]]\nname = \"ann\"\npassword_hash = \"" + someHash + "\"\nsenders = [\"ann@b.test\", \"@c.test\"]\n"),
			"users":          []byte("# more\r\n\r\nbob:" + someHash + "\r\nmüll@d.test:" + someHash),
		}[path], nil
	}
	cfg := load(t, src)
	if len(cfg.Users) != 3 || cfg.Users[0].Name != "ann" || len(cfg.Users[0].Senders) != 2 ||
		cfg.Users[1].Name != "bob" || cfg.Users[2].Name != "müll@d.test" || cfg.Users[2].Hash != someHash {
		t.Errorf("%+v", cfg.Users)
	}
	for _, s := range cfg.Describe() {
		if strings.Contains(s.Value+s.Default, someHash[10:]) {
			t.Errorf("a hash is shown: %+v", s)
		}
	}
	if got := described(t, cfg, "user.password_hash"); got.Value != "set" {
		t.Errorf("%+v", got)
	}
}

// Hashes that cost unlike amounts of time are warned of, wherever they are.
func TestUnlikeHashes(t *testing.T) {
	cheap := strings.Replace(someHash, "$10$", "$05$", 1)
	for users, want := range map[string]string{
		"bob:" + someHash: "",
		"bob:" + cheap:    "user: the password hashes cost from 5 to 10: every wrong password takes as long as the costliest, and the cheapest is the easiest to break where it leaks; make them anew with 'smtp2rest hash-password'",
	} {
		src := file("", env{})
		src.ReadFile = func(path string) ([]byte, error) {
			return map[string][]byte{
				"smtp2rest.toml": []byte("users_file = \"users\"\n[[user]]\nname = \"ann\"\npassword_hash = \"" + someHash + "\"\n"),
				"users":          []byte(users),
			}[path], nil
		}
		if got := strings.Join(load(t, src).Warnings, "\n"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whoever can read the hashes can guess at them for as long as they like.
func TestHashesInAFileThatAllCanRead(t *testing.T) {
	table := "[[user]]\nname = \"ann\"\npassword_hash = \"" + someHash + "\"\n[[listener]]\nauth_without_tls = true\naddress = \"127.0.0.1:2525\"\n"
	for _, tt := range []struct {
		text  string
		mode  os.FileMode
		warns bool
	}{
		{table, 0o644, true}, {table, 0o660, true}, {table, 0o640, false}, {table, 0o600, false}, {"", 0o644, false},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := errors.Join(os.WriteFile(path, []byte(tt.text), 0o600), os.Chmod(path, tt.mode)); err != nil {
			t.Fatal(err)
		}
		want := ""
		if tt.warns {
			want = fmt.Sprintf("user: %s has mode %04o, so that others than its owner can read or change it, and it has password hashes; 0640 and a group that the relay is in are enough, or write the users into users_file", path, tt.mode)
		}
		if got := strings.Join(load(t, Source{Path: path, Env: env{}.lookup}).Warnings, "\n"); got != want {
			t.Errorf("mode %04o: got %q, want %q", tt.mode, got, want)
		}
	}
}

// Rules reach the Config as smtpd/policy has them, each in its place.
func TestRules(t *testing.T) {
	cfg := load(t, file(`[rules]
allow_senders = ["1@x.test"]
deny_senders = ["2@x.test"]
allow_from = ["3@x.test"]
deny_from = ["4@x.test"]
allow_recipients = ["5@x.test"]
deny_recipients = ["6@x.test"]
[[listener]]
deny_from = ["7@x.test", "<>"]
[[user]]
name = "ann"
password_hash = "`+someHash+`"
senders = ["8@x.test"]
deny_senders = ["9@x.test"]
allow_recipients = ["10@x.test"]
deny_recipients = ["11@x.test"]
`, env{}))
	lists := func(r policy.Rules) string {
		var b strings.Builder
		for _, l := range []policy.List{r.AllowSenders, r.DenySenders, r.AllowFrom, r.DenyFrom, r.AllowRecipients, r.DenyRecipients} {
			for n := range 12 {
				if l.Has(strconv.Itoa(n) + "@x.test") {
					fmt.Fprint(&b, n)
				}
			}
			b.WriteByte(' ')
		}
		return b.String()
	}
	for got, want := range map[string]string{
		lists(cfg.Rules):              "1 2 3 4 5 6 ",
		lists(cfg.Listeners[0].Rules): "   7   ",
		lists(cfg.Users[0].Policy()):  "8 9 8 9 10 11 ",
	} {
		if got != want {
			t.Errorf("the lists are %q, want %q", got, want)
		}
	}
	if got := described(t, cfg, "listener.deny_from").Value; got != `["7@x.test", "<>"]` {
		t.Errorf("check shows %s", got)
	}
}

// Passwords travel in the clear on this machine, and elsewhere only where it
// is said; a listener on which everybody logs in is no open relay.
func TestListenerAuth(t *testing.T) {
	user := "[[user]]\nname = \"ann\"\npassword_hash = \"" + someHash + "\"\n[[listener]]\n"
	for _, tt := range []struct {
		text          string
		clear, warned bool
	}{
		{"", true, false},
		{"auth_without_tls = false\n", false, true},
		{"auth_without_tls = false\ntls = \"starttls\"\nself_signed = true\n", false, false},
		{"address = \"[::1]:25\"\n", true, false},
		{"address = \":25\"\nnetworks = [\"10.0.0.0/8\"]\n", false, true},
		{"address = \":25\"\nauth_without_tls = true\n", true, false},
		{"address = \"unix:/run/smtp\"\n", true, false},
		{"proxy_from = [\"127.0.0.1\"]\nnetworks = [\"10.0.0.0/8\"]\n", false, true},
		{"address = \"systemd:smtp\"\n", false, true},
		{"address = \":25\"\ntls = \"implicit\"\nself_signed = true\n", false, false},
		{"address = \":25\"\ntls = \"implicit\"\nself_signed = true\nrequire_auth = true\nnetworks = [\"0.0.0.0/0\"]\n", false, false},
	} {
		cfg := load(t, file(user+tt.text, env{}))
		if got := cfg.Listeners[0].AuthWithoutTLS; got != tt.clear || len(cfg.Warnings) > 0 != tt.warned {
			t.Errorf("%q: %v, warnings %q", tt.text, got, cfg.Warnings)
		}
	}
}
