package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// secretCase is one way to set the API key; $DIR stands for a directory.
type secretCase struct {
	files       map[string]string // in the directory
	vars        env
	toml        string
	want        string // key
	origin      string
	wantProblem string // end of the error
	wantWarning string
}

func (tc secretCase) run(t *testing.T) {
	dir := t.TempDir()
	here := strings.NewReplacer("$DIR", dir)
	for path, text := range tc.files {
		writeFile(t, filepath.Join(dir, path), text, 0o600)
	}
	vars := env{}
	for k, v := range tc.vars {
		vars[k] = here.Replace(v)
	}
	writeFile(t, filepath.Join(dir, "smtp2rest.toml"), here.Replace(tc.toml), 0o600)
	cfg, err := Load(Source{Path: filepath.Join(dir, "smtp2rest.toml"), Env: vars.lookup})
	if want := here.Replace(tc.wantProblem); want != "" {
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Fatalf("got %v, want %s", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.API.Key.Reveal(); got != tc.want {
		t.Errorf("key %q, want %q", got, tc.want)
	}
	if got, want := described(t, cfg, "api.key").Origin, here.Replace(tc.origin); got != want {
		t.Errorf("from %q, want %q", got, want)
	}
	if got := strings.Join(cfg.Warnings, "\n"); got != tc.wantWarning {
		t.Errorf("warnings %q, want %q", got, tc.wantWarning)
	}
}

// TestSecretSources tells every way to set a secret apart, with real files.
func TestSecretSources(t *testing.T) {
	for name, tc := range map[string]secretCase{
		"none":                        {},
		"environment":                 {vars: env{"NEXUSPROMAIL_API_KEY": "k-env"}, want: "k-env", origin: "environment NEXUSPROMAIL_API_KEY"},
		"environment with a line end": {vars: env{"NEXUSPROMAIL_API_KEY": "k-env\r\n"}, want: "k-env", origin: "environment NEXUSPROMAIL_API_KEY"},
		"environment, file": {files: map[string]string{"a": "k-a\n"}, vars: env{"NEXUSPROMAIL_API_KEY_FILE": "$DIR/a"},
			want: "k-a", origin: "environment NEXUSPROMAIL_API_KEY_FILE"},
		"environment, empty file name": {vars: env{"NEXUSPROMAIL_API_KEY": "k-env", "NEXUSPROMAIL_API_KEY_FILE": ""}, want: "k-env",
			origin: "environment NEXUSPROMAIL_API_KEY"},
		"file": {files: map[string]string{"a": "k-a"}, toml: "api.key_file = '$DIR/a'", want: "k-a", origin: "file $DIR/a"},
		"file, relative": {files: map[string]string{"sub/a": "k-a"}, toml: "api.key_file = './sub/a'",
			want: "k-a", origin: "file $DIR/sub/a"},
		"credential": {files: map[string]string{"cred/nexuspromail_api_key": "k-c\n"}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"},
			want: "k-c", origin: "credential nexuspromail_api_key"},
		"credential, short name": {files: map[string]string{"cred/api_key": "k-c\n"}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"},
			want: "k-c", origin: "credential api_key"},
		"credentials for others only": {files: map[string]string{"cred/x": "k"}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"}},
		"environment before file": {files: map[string]string{"a": "k-a"}, vars: env{"NEXUSPROMAIL_API_KEY": "k-env"}, toml: "api.key_file = '$DIR/a'",
			want: "k-env", origin: "environment NEXUSPROMAIL_API_KEY",
			wantWarning: "api.key_file is not used: the environment variable NEXUSPROMAIL_API_KEY comes before it"},
		"file before credential": {files: map[string]string{"a": "k-a", "cred/api_key": "k-c"}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"},
			toml: "api.key_file = '$DIR/a'", want: "k-a", origin: "file $DIR/a"},
		"two in the environment": {vars: env{"NEXUSPROMAIL_API_KEY": "k", "NEXUSPROMAIL_API_KEY_FILE": "/a"},
			wantProblem: "environment NEXUSPROMAIL_API_KEY: is set, and NEXUSPROMAIL_API_KEY_FILE too; keep one of them"},
		"an unusable one is not passed over": {files: map[string]string{"cred/api_key": "k-c"},
			vars:        env{"NEXUSPROMAIL_API_KEY": "a b", "CREDENTIALS_DIRECTORY": "$DIR/cred"},
			wantProblem: "environment NEXUSPROMAIL_API_KEY: the value has a space, a control character or a letter outside ASCII at byte 2; a secret has none"},
		"a space behind": {vars: env{"NEXUSPROMAIL_API_KEY": "k-env \n"},
			wantProblem: "environment NEXUSPROMAIL_API_KEY: the value has a space, a control character or a letter outside ASCII at byte 6; a secret has none"},
		"a credential that is empty": {files: map[string]string{"cred/nexuspromail_api_key": "", "cred/api_key": "k-c"}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"},
			wantProblem: "credential nexuspromail_api_key: the file is empty; put the secret there, or remove it"},
		"a credential that is a directory": {files: map[string]string{"cred/api_key/x": ""}, vars: env{"CREDENTIALS_DIRECTORY": "$DIR/cred"},
			wantProblem: "credential api_key: cannot be read: is a directory"},
		"a file that is missing": {vars: env{"NEXUSPROMAIL_API_KEY_FILE": "$DIR/a"},
			wantProblem: `environment NEXUSPROMAIL_API_KEY_FILE: cannot read "$DIR/a": no such file or directory`},
		"a file as large as a disk": {vars: env{"NEXUSPROMAIL_API_KEY_FILE": "/dev/zero"},
			wantProblem: `environment NEXUSPROMAIL_API_KEY_FILE: "/dev/zero" has 1048577 bytes, more than any secret; is it the right one?`},
	} {
		t.Run(name, func(t *testing.T) { tc.run(t) })
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask
		t.Fatal(err)
	}
}

func TestSecretFileMode(t *testing.T) {
	for mode, wrong := range map[os.FileMode]bool{0o400: false, 0o600: false, 0o640: false, 0o440: false, 0o444: true, 0o660: true, 0o602: true} {
		path := filepath.Join(t.TempDir(), "key")
		writeFile(t, path, "npm_hunter2", mode)
		src := Source{Env: env{"WEBHOOK_SECRET_FILE": path}.lookup, InMemory: func(string) bool { return true }}
		cfg := load(t, src)
		if cfg.Webhook.Secret.Reveal() != "npm_hunter2" {
			t.Errorf("%04o: the secret is %q", mode, cfg.Webhook.Secret.Reveal())
		}
		want := fmt.Sprintf("environment WEBHOOK_SECRET_FILE: %s has mode %04o, so that others than its owner can read or change it; 0600 or 0640 is enough", path, mode)
		if got := strings.Join(cfg.Warnings, ""); wrong && got != want || !wrong && got != "" {
			t.Errorf("%04o, in memory: warnings %q", mode, got)
		}
		src.InMemory = func(string) bool { return false }
		_, err := Load(src)
		want = fmt.Sprintf("environment WEBHOOK_SECRET_FILE: %q has mode %04o, so that others than its owner can read or change it; run 'chmod 0600 %s', or 0640 for a group that may", path, mode, path)
		if wrong && (err == nil || err.Error() != want) || !wrong && err != nil {
			t.Errorf("%04o, on a disk: %v", mode, err)
		}
	}
}

// TestSecretIsNeverShown prints a secret in every way that packages print.
func TestSecretIsNeverShown(t *testing.T) {
	type hidden struct{ s Secret }
	s := NewSecret("hunter2")
	cfg := load(t, Source{Env: env{"NEXUSPROMAIL_API_KEY": "hunter2", "WEBHOOK_SECRET": "hunter2"}.lookup})
	var out strings.Builder
	for _, v := range []any{s, &s, hidden{s}, &hidden{s}, []Secret{s}, map[string]Secret{"k": s}, cfg, *cfg, cfg.API, cfg.Describe()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		fmt.Fprintf(&out, "%s %v\n", text, err)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	if hex := fmt.Sprintf("%x", "hunter2"); strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), hex) {
		t.Errorf("shown in:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "(secret)") || s.Reveal() != "hunter2" {
		t.Error("the secret is not there at all")
	}
	if zero := (Secret{}); zero.IsSet() || zero.Reveal() != "" || zero.String() != "(not set)" || NewSecret("").IsSet() {
		t.Error("the zero Secret is set")
	}
}

// A certificate's key that everybody can read is told, and used: who renews it
// at night must not stop the mail.
func TestKeyFileMode(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, time.Now().Add(time.Hour))
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o620: true} {
		writeFile(t, filepath.Join(dir, "cert.pem"), string(cert), 0o644)
		writeFile(t, filepath.Join(dir, "key.pem"), string(key), mode)
		writeFile(t, filepath.Join(dir, "c.toml"), "[[listener]]\ntls = \"starttls\"\ncert_file = \"./cert.pem\"\nkey_file = \"./key.pem\"\n", 0o600)
		cfg := load(t, Source{Path: filepath.Join(dir, "c.toml"), Env: env{}.lookup})
		want := ""
		if warned {
			want = fmt.Sprintf("listener.key_file: %s has mode %04o, so that others than its owner can read or change it; 0600 or 0640 is enough", filepath.Join(dir, "key.pem"), mode)
		}
		if got := strings.Join(cfg.Warnings, "\n"); got != want {
			t.Errorf("%04o: warnings %q, want %q", mode, got, want)
		}
	}
}

// A command that looks at a service's configuration finds what its unit hands
// over, where the unit takes it from; the service itself never looks there.
func TestSecretsOfTheUnit(t *testing.T) {
	files := map[string]string{"/c.toml": "sender.email = 'a@example.com'\nwebhook.address = '127.0.0.1:8026'\n"}
	for _, path := range unitFiles(vendors.All()[0]) {
		files[path] = "from-" + filepath.Base(path) + "\n"
	}
	files[unitFiles(vendors.All()[0])["smtp2rest_store_url"]] = "postgres://relay:hunter2@db/mail\n"
	src := Source{Path: "/c.toml", NeedAPI: true, Service: true, Env: env{}.lookup,
		ReadFile: func(path string) ([]byte, error) {
			text, ok := files[path]
			switch {
			case text == "denied":
				return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrPermission}
			case !ok:
				return nil, os.ErrNotExist
			}
			return []byte(text), nil
		}}
	cfg := load(t, src)
	if got := cfg.API.Key.Reveal(); got != "from-nexuspromail_api_key" {
		t.Errorf("the key is %q", got)
	}
	if got := described(t, cfg, "api.key").Origin; got != "file /etc/smtp2rest/nexuspromail_api_key, the unit's" {
		t.Errorf("it is from %q", got)
	}
	for path, s := range map[string]Secret{"webhook_secret": cfg.Webhook.Secret, "webhook_secret_previous": cfg.Webhook.PreviousSecret, "admin_token": cfg.Admin.Token} {
		if s.Reveal() != "from-smtp2rest_"+path {
			t.Errorf("%s is %q", path, s.Reveal())
		}
	}
	refused := func(want string) {
		t.Helper()
		if _, err := Load(src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	files["/etc/smtp2rest/nexuspromail_api_key"] = "denied"
	refused("api.key: is not set; /etc/smtp2rest/nexuspromail_api_key, where smtp2rest.service takes it from, cannot be read: permission denied; try again with sudo")
	delete(files, "/etc/smtp2rest/nexuspromail_api_key")
	refused("or give the systemd credential nexuspromail_api_key, which smtp2rest.service takes from /etc/smtp2rest/nexuspromail_api_key: that file is looked for here as well, and is not there")
	files["/etc/smtp2rest/nexuspromail_api_key"] = "k"
	src.Service = false
	refused("api.key: is not set; set the environment variable NEXUSPROMAIL_API_KEY")
}

func TestUnitFilesAreTheUnits(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("..", "..", "systemd", "smtp2rest.service"))
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]string{}
	for line := range strings.Lines(string(unit)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "LoadCredential="); ok {
			name, from, given := strings.Cut(text, ":")
			if !given {
				from = name
			}
			if !filepath.IsAbs(from) {
				from = filepath.Join("/etc/credstore", from) // systemd.exec(5)
			}
			loaded[name] = from
		}
	}
	if !maps.Equal(loaded, unitFiles(vendors.All()[0])) {
		t.Errorf("the unit takes %v, we look in %v", loaded, unitFiles(vendors.All()[0]))
	}
}

// The URL of a store may stand in the file as long as it has no password, and is no
// less hidden then.
func TestTheURLOfTheStore(t *testing.T) {
	const open, secret = "postgres://relay@db.example.com/mail", "postgres://relay:hunter2@db.example.com/mail"
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "url"), secret+"\n", 0o600)
	for name, tc := range map[string]secretCase{
		"none":                           {},
		"file":                           {toml: "store.url = '" + open + "'", want: open, origin: "file"},
		"empty":                          {toml: "store.url = ''", origin: "file"},
		"environment":                    {vars: env{"SMTP2REST_STORE_URL": secret}, want: secret, origin: "environment SMTP2REST_STORE_URL"},
		"environment before the file":    {vars: env{"SMTP2REST_STORE_URL": secret}, toml: "store.url = '" + open + "'", want: secret, origin: "environment SMTP2REST_STORE_URL"},
		"a file":                         {toml: "store.url_file = '" + dir + "/url'", want: secret, origin: "file " + dir + "/url"},
		"a file before the URL":          {toml: "store.url_file = '" + dir + "/url'\nstore.url = '" + open + "'", want: secret, origin: "file " + dir + "/url"},
		"a password in the environment":  {vars: env{"SMTP2REST_STORE_URL": "hunter2"}, wantProblem: `environment SMTP2REST_STORE_URL: found something that is not the URL of a database; write one as in "postgres://relay@db.example.com/mail"`},
		"a password behind the database": {toml: "store.url = 'postgres://db/mail?user=relay&Password=hunter2'", wantProblem: "or give the systemd credential smtp2rest_store_url"},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, filepath.Join(dir, "c.toml"), tc.toml, 0o600)
			cfg, err := Load(Source{Path: filepath.Join(dir, "c.toml"), Env: tc.vars.lookup})
			if err != nil || tc.wantProblem != "" {
				if err == nil || tc.wantProblem == "" || !strings.HasSuffix(err.Error(), tc.wantProblem) || strings.Contains(err.Error(), "hunter2") {
					t.Fatalf("got %v, want %q", err, tc.wantProblem)
				}
				return
			}
			s := described(t, cfg, "store.url")
			if got := cfg.Store.URL.Reveal(); got != tc.want || s.Origin != tc.origin || strings.Contains(s.Value, "postgres") {
				t.Errorf("got %q from %q, shown as %q", got, s.Origin, s.Value)
			}
		})
	}
}
