package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// Secret is a text that no log, error or page shows. The zero Secret is not set.
type Secret struct {
	// It is a pointer because fmt ignores the methods of values in unexported fields.
	// Of a pointer it prints only the address.
	p *string
}

// NewSecret returns s as a Secret. An empty one is not set.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{p: &s}
}

// Reveal returns the secret itself, or "" if it is not set.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s.p != nil }

// String only says whether the secret is set. So do the methods below, which other
// packages use to print values.
func (s Secret) String() string {
	if s.IsSet() {
		return "(secret)"
	}
	return "(not set)"
}

// GoString returns String.
func (s Secret) GoString() string { return s.String() }

// Format prints String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// secretSource says where a secret may come from, in order of precedence.
type secretSource struct {
	path        string   // of the secret in messages
	env         string   // variable; with _FILE behind it, a file's name
	fileSetting string   // setting with a file's name
	credentials []string // names in systemd's $CREDENTIALS_DIRECTORY
}

// source is where a secret may come from; its setting says it.
func (s setting) source() secretSource {
	return secretSource{s.Path, s.Tag.Get("env"), s.Path + "_file", strings.Fields(s.Tag.Get("credential"))}
}

// source is where a secret may come from, with the name of the account or endpoint whose
// it is.
func (l *loader) source(s *setting) secretSource {
	from := s.source()
	if !strings.Contains(from.env, "<NAME>") {
		return from
	}
	name, table := "<name>", s.Path[:strings.LastIndexByte(s.Path, '.')+1]
	for i, a := range l.cfg.Accounts {
		if l.accountAt(i, "") == table && a.Name != "" {
			name = a.Name
		}
	}
	for i, f := range l.cfg.Forwards {
		if l.forwardAt(i, "") == table && f.Name != "" {
			name = f.Name
		}
	}
	from.env = strings.ReplaceAll(from.env, "<NAME>", strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
	for i, credential := range from.credentials {
		from.credentials[i] = strings.ReplaceAll(credential, "<name>", name)
	}
	return from
}

// secretAt is where the secret at a path may come from.
func (l *loader) secretAt(path string) secretSource { return l.source(l.find(path)) }

// ways says how to set the secret.
func (s secretSource) ways() string {
	return fmt.Sprintf("set the environment variable %s, or name a file that holds it in %s_FILE or %s, or give the systemd credential %s",
		s.env, s.env, s.fileSetting, s.credentials[0])
}

func (s secretSource) notHere() string {
	return "secrets are not kept in this file; " + s.ways()
}

func (s setting) secret() bool {
	_, ok := s.Value.(secret)
	return ok
}

func (l *loader) readSecrets() {
	for i := range l.settings {
		s := &l.settings[i]
		value, ok := s.Value.(secret)
		if !ok {
			continue
		}
		var file string
		if t, ok := l.find(l.source(s).fileSetting).Value.(text); ok {
			file = l.fromFile(*t.p)
		}
		found, origin := l.readSecret(l.source(s), file)
		if !found.IsSet() {
			continue
		}
		if value.check != nil {
			if err := value.check(found.Reveal()); err != nil {
				l.problem(origin, "%v", err)
				continue
			}
		}
		*value.p, s.origin = found, origin
	}
}

// readSecret reads the first source that exists. If it cannot be used, that is a
// problem. The next source is not tried, because it might silently give a wrong key.
func (l *loader) readSecret(from secretSource, file string) (Secret, string) {
	// An empty variable is not set: compose files and charts pass those.
	text, inEnv := l.src.Env(from.env)
	inEnv = inEnv && text != ""
	envFile, inEnvFile := l.src.Env(from.env + "_FILE")
	inEnvFile = inEnvFile && envFile != ""
	switch {
	case inEnv && inEnvFile:
		l.problem("environment "+from.env, "is set, and %s_FILE too; keep one of them", from.env)
	case inEnv:
		if file != "" {
			l.warn("%s is not used: the environment variable %s comes before it", from.fileSetting, from.env)
		}
		return l.secretText("environment "+from.env, "the value", text), "environment " + from.env
	case inEnvFile:
		if file != "" {
			l.warn("%s is not used: the environment variable %s_FILE comes before it", from.fileSetting, from.env)
		}
		label := "environment " + from.env + "_FILE"
		if err := checkSecretPath(envFile); err != nil {
			l.problem(label, "%v", err)
			return Secret{}, ""
		}
		return l.secretFile(label, envFile), label
	case file != "" && l.mayBeAbsent(from) && l.absent(file):
	case file != "":
		return l.secretFile(from.fileSetting, file), "file " + file
	default:
		return l.credential(from)
	}
	return Secret{}, ""
}

// credential reads a systemd credential (systemd.exec(5), LoadCredential=).
func (l *loader) credential(from secretSource) (Secret, string) {
	dir, ok := l.src.Env("CREDENTIALS_DIRECTORY")
	if !ok || dir == "" {
		return l.unitFile(from)
	}
	for _, name := range from.credentials {
		data, err := l.src.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			l.problem("credential "+name, "cannot be read: %v", cause(err))
			return Secret{}, ""
		}
		return l.secretText("credential "+name, "the file", string(data)), "credential " + name
	}
	return Secret{}, ""
}

// mayBeAbsent reports whether the file of a secret need not exist: that of the
// previous secret does not before the first change, and that of the webhook's secret
// does not before the command that gets it has run.
func (l *loader) mayBeAbsent(from secretSource) bool {
	return from.path == "webhook.previous_secret" || (from.path == "webhook.secret" || strings.HasSuffix(from.path, ".webhook_secret")) && l.src.NoWebhookSecret
}

func (l *loader) absent(path string) bool {
	_, err := l.src.ReadFile(path)
	return errors.Is(err, fs.ErrNotExist)
}

// secretFile reads a file that contains only a secret.
func (l *loader) secretFile(label, path string) Secret {
	data, err := l.src.ReadFile(path)
	if err != nil {
		l.problem(label, "cannot read %s: %v", settings.Show(path), cause(err))
		return Secret{}
	}
	l.secretMode(label, path)
	return l.secretText(label, settings.Show(path), string(data))
}

// looseMode returns the mode of a file and true if everybody on the machine can read
// it, or others than its owner can change it.
func (l *loader) looseMode(path string) (fs.FileMode, bool) {
	if runtime.GOOS == "windows" {
		return 0, false // access lists decide there, and Go makes a mode up
	}
	info, err := l.src.Stat(path)
	if err != nil || info.Mode().Perm()&0o026 == 0 {
		return 0, false
	}
	return info.Mode().Perm(), true
}

const looseFile = "%s has mode %04o, so that others than its owner can read or change it"

// loose only warns of such a file. It is for files that other programs write, such as
// certificates that are renewed at night: mail must not stop then.
func (l *loader) loose(label, path string) {
	if mode, loose := l.looseMode(path); loose {
		l.warn("%s: "+looseFile+"; 0600 or 0640 is enough", label, path, mode)
	}
}

// secretMode refuses such a file if it contains one of our secrets. It only warns if
// the file is in memory, because containers mount secrets there with mode 0444.
func (l *loader) secretMode(label, path string) {
	mode, loose := l.looseMode(path)
	switch {
	case loose && l.src.InMemory(path):
		l.loose(label, path)
	case loose:
		l.problem(label, looseFile+"; run 'chmod 0600 %s', or 0640 for a group that may", settings.Show(path), mode, path)
	}
}

// maxSecret is longer than any provider's key.
const maxSecret = 4096

// secretText checks a secret, which is sent in an HTTP header, and never shows it. It
// removes line ends after it, which editors and echo write. Label is the path of
// problems, and what names the source.
func (l *loader) secretText(label, what, text string) Secret {
	text = strings.TrimRight(text, "\r\n")
	outside := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	switch {
	case text == "":
		l.problem(label, "%s is empty; put the secret there, or remove it", what)
	case len(text) > maxSecret:
		l.problem(label, "%s has %d bytes, more than any secret; is it the right one?", what, len(text))
	case outside >= 0:
		l.problem(label, "%s has a space, a control character or a letter outside ASCII at byte %d; a secret has none", what, outside+1)
	case len(text) > 1 && strings.ContainsRune(`"'`, rune(text[0])) && text[0] == text[len(text)-1]:
		l.problem(label, "%s begins and ends with a quote, which would be part of the secret; leave the quotes out", what)
	default:
		return NewSecret(text)
	}
	return Secret{}
}

// Credentials returns the names of the systemd credentials for secrets.
func Credentials() []string {
	var names []string
	for _, s := range everySetting() {
		if s.secret() && !strings.Contains(s.Tag.Get("env"), "<NAME>") {
			names = append(names, s.source().credentials[0])
		}
	}
	slices.Sort(names)
	return names
}

// unitFiles are the files from which our unit loads its credentials (LoadCredential=),
// by their names.
func unitFiles(v provider.Vendor) map[string]string {
	key := v.Credential()
	return map[string]string{
		key:                       "/etc/smtp2rest/" + key,
		"webhook_secret":          "/etc/credstore/smtp2rest_webhook_secret",
		"webhook_secret_previous": "/etc/credstore/smtp2rest_webhook_secret_previous",
		"smtp2rest_admin_token":   "/etc/credstore/smtp2rest_admin_token",
		"smtp2rest_store_url":     "/etc/credstore/smtp2rest_store_url",
		"smtp2rest_notify_secret": "/etc/credstore/smtp2rest_notify_secret",
	}
}

// unitFile reads a credential from the file of our unit.
func (l *loader) unitFile(from secretSource) (Secret, string) {
	if !l.src.Service {
		return Secret{}, ""
	}
	name := from.credentials[0]
	path, known := unitFiles(l.vendor)[name]
	if !known { // of an account
		return Secret{}, ""
	}
	data, err := l.src.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Secret{}, ""
	}
	if err != nil { // a problem only if the secret is needed
		l.unread[name] = err
		return Secret{}, ""
	}
	l.loose("credential "+name, path)
	return l.secretText("credential "+name, settings.Show(path), string(data)), "file " + path + ", the unit's"
}

// ways says how to set a secret that is not set.
func (l *loader) ways(from secretSource) string {
	name := from.credentials[0]
	switch path := unitFiles(l.vendor)[name]; {
	case !l.src.Service:
		return from.ways()
	case l.unread[name] != nil:
		return fmt.Sprintf("%s, where smtp2rest.service takes it from, cannot be read: %v; try again with sudo", path, cause(l.unread[name]))
	default:
		return from.ways() + fmt.Sprintf(", which smtp2rest.service takes from %s: that file is looked for here as well, and is not there", path)
	}
}
