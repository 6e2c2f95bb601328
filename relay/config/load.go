package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// Source says where a configuration comes from. Functions that are nil are those of
// the operating system.
type Source struct {
	Path string // of the TOML file; "" is no file

	// NeedAPI requires an API key and a sender.
	NeedAPI bool

	// NeedKey requires an API key.
	NeedKey bool

	// NoWebhookSecret allows a webhook without a secret, for the command that gets it.
	NoWebhookSecret bool

	// Service is for commands that read the configuration of a service. They read
	// systemd credentials from the files that our unit names.
	Service bool

	Vendors []provider.Vendor // from which api.provider chooses; nil: vendors.All()

	// FallbackSender is the sender if neither the file nor the environment has one,
	// for a sandbox and for showing what would be sent.
	FallbackSender string

	Env      func(string) (string, bool)       // os.LookupEnv
	Environ  func() []string                   // os.Environ, to find variables that nothing reads; nil: none
	ReadFile func(string) ([]byte, error)      // at most 1 MiB of a file
	Stat     func(string) (fs.FileInfo, error) // os.Stat, for the mode of files with secrets
	Hostname func() (string, error)            // os.Hostname
	InMemory func(string) bool                 // whether such a file is on a file system in memory
}

// maxFile limits the size of every file that is read.
const maxFile = 1 << 20

// Load reads and checks the file and the environment, which takes precedence. The
// error is an Errors.
func Load(src Source) (*Config, error) {
	l := newLoader(src)
	if !l.readFile() { // all that is missing then may be in it
		return nil, l.problems.sorted()
	}
	l.readEnvironment()
	l.warnOfUnknownVariables()
	l.readSecrets()
	l.derive()
	l.readUsers()
	l.validate()
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	l.cfg.settings = l.settings
	return l.cfg, nil
}

// loader is the state of one Load.
type loader struct {
	src      Source
	cfg      *Config
	vendor   provider.Vendor
	settings []setting
	lines    map[string]int  // of settings in the file, by path
	bad      map[string]bool // settings whose value was refused; they are not checked again
	problems Errors
	unread   map[string]error // credentials of the unit that could not be read
}

func newLoader(src Source) *loader {
	if src.Env == nil {
		src.Env = os.LookupEnv
	}
	if src.ReadFile == nil {
		src.ReadFile = readBounded
	}
	if src.Stat == nil {
		src.Stat = os.Stat
	}
	if src.InMemory == nil {
		src.InMemory = inMemory
	}
	if src.Hostname == nil {
		src.Hostname = os.Hostname
	}
	if src.Vendors == nil {
		src.Vendors = vendors.All()
	}
	l := &loader{src: src, vendor: src.Vendors[0], cfg: &Config{files: map[string]string{}}, lines: map[string]int{}, bad: map[string]bool{}, unread: map[string]error{}}
	l.src.ReadFile = func(path string) ([]byte, error) {
		data, err := src.ReadFile(path)
		if err == nil && path != src.Path {
			l.cfg.files[path] = digest(data)
		}
		return data, err
	}
	l.cfg.Listeners = make([]smtpd.Listener, 1)
	l.declare()
	return l
}

// declare puts the defaults into the Config. It is called again when the vendor and the
// number of repeated tables are known.
func (l *loader) declare() {
	var err error
	if l.settings, err = settingsOf(l.cfg, l.vendor, l.src.Vendors); err != nil {
		l.problems = append(l.problems, Problem{Text: "smtp2rest itself is wrong: " + err.Error()})
	}
}

// readBounded reads no more than maxFile and a byte, so that /dev/zero does not fill
// the memory.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// inMemory reports whether a file is in memory, as the secrets of a container are.
// Those that docker compose mounts in /run/secrets are on the host's disk, with the
// host's mode, and count as well.
func inMemory(path string) bool {
	return strings.HasPrefix(path, "/run/secrets/") || liesInMemory(path)
}

// makeRoom makes room for n tables of a repeated kind.
func (l *loader) makeRoom(name string, n int) {
	switch name {
	case "warming":
		l.cfg.Warming = make([]warm.Plan, n)
	case "account":
		l.cfg.Accounts = make([]Account, n)
	case "forward":
		l.cfg.Forwards = make([]Forward, n)
	case "user":
		l.cfg.Users = make([]User, n)
	case "operator":
		l.cfg.Operators = make([]Operator, n)
	case "listener":
		l.cfg.Listeners = make([]smtpd.Listener, n)
	}
}

// find returns the setting at a path, or nil. Case does not matter.
func (l *loader) find(path string) *setting {
	for i := range l.settings {
		if strings.EqualFold(l.settings[i].Path, path) {
			return &l.settings[i]
		}
	}
	return nil
}

// problem adds a problem with a setting, with the place where it was set.
func (l *loader) problem(path, format string, args ...any) {
	p := Problem{Path: path, Text: fmt.Sprintf(format, args...)}
	if line, ok := l.lines[path]; ok {
		p.File, p.Line = l.src.Path, line
	}
	if s := l.find(path); s != nil && strings.HasPrefix(s.origin, "environment ") {
		p = Problem{Path: s.origin, Text: p.Text}
	}
	l.problems = append(l.problems, p)
}

func (l *loader) warn(format string, args ...any) {
	l.cfg.Warnings = append(l.cfg.Warnings, fmt.Sprintf(format, args...))
}

// readEnvironment reads the variables, except secrets. An empty variable is not set,
// because compose files and charts pass those.
func (l *loader) readEnvironment() {
	for i := range l.settings {
		s := &l.settings[i]
		env := s.Tag.Get("env")
		if env == "" || s.secret() {
			continue
		}
		text, ok := l.src.Env(env)
		if !ok || text == "" {
			continue
		}
		s.origin = "environment " + env
		delete(l.bad, s.Path)
		if err := s.Value.Set(text); err != nil {
			l.bad[s.Path] = true
			l.problem(s.Path, "%v", err)
		}
	}
}

// warnOfUnknownVariables finds variables with our prefix that no setting has. They are no
// error, because the environment of a process is not only its own: Kubernetes adds
// variables for each service, also for one that is called smtp2rest.
func (l *loader) warnOfUnknownVariables() {
	if l.src.Environ == nil {
		return
	}
	const prefix = "SMTP2REST_"
	known := []string{prefix + "SMTP"} // of the commands that hand mail to a relay
	for i := range l.settings {
		s := &l.settings[i]
		env := s.Tag.Get("env")
		if s.secret() {
			env = l.source(s).env // with the name of the account or endpoint
		}
		if known = append(known, env); s.secret() {
			known = append(known, env+"_FILE")
		}
	}
	for _, entry := range l.src.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		foreign := slices.ContainsFunc([]string{"TEST", "SERVICE_", "PORT"}, func(p string) bool { return strings.HasPrefix(name, prefix+p) })
		if !strings.HasPrefix(name, prefix) || foreign || slices.Contains(known, name) {
			continue
		}
		text := "environment " + strings.Trim(settings.Show(name), `"`) + ": nothing reads this variable"
		if near := settings.Nearest(name, known); near != "" {
			text += "; did you mean " + near + "?"
		}
		l.warn("%s", text)
	}
}

// derive works out the defaults that depend on other settings or on the machine.
func (l *loader) derive() {
	c := l.cfg
	if c.API.Burst == 0 {
		c.API.Burst = max(1, int(c.API.Rate/10))
	}
	if c.Sender.Email == "" && l.src.FallbackSender != "" {
		c.Sender.Email = l.src.FallbackSender
		if len(c.Sender.Domains) > 0 {
			c.Sender.Email = "sender@" + c.Sender.Domains[0]
		}
	}
	if len(c.Sender.Domains) == 0 && c.Sender.Email != "" {
		c.Sender.Domains = []string{domainOf(c.Sender.Email)}
	}
	if c.Bounce.Postmaster == "" && c.Sender.Email != "" {
		c.Bounce.Postmaster = "postmaster@" + domainOf(c.Sender.Email)
	}
	if c.Hostname == "" {
		c.Hostname = safeHostname(l.src.Hostname)
	}
	if c.Queue.DataDir == "" {
		c.Queue.DataDir = l.stateDir()
	}
	c.Queue.ForgetSent = c.Queue.KeepSent == 0
	c.Admin.RuntimeDir = l.runtimeDir()
	l.deriveAddresses()
	l.deriveWarming()
	l.deriveListeners()
	for _, s := range l.settings {
		if file, ok := s.Value.(text); ok && s.Tag.Get("check") == "file" {
			*file.p = l.fromFile(*file.p)
		}
	}
	c.API.URL = strings.TrimRight(c.API.URL, "/")
	l.deriveAccounts()
}

// stateDir is the directory for data that this user's programs keep.
func (l *loader) stateDir() string {
	env := func(name string) string { v, _ := l.src.Env(name); return v }
	if dir, _, _ := strings.Cut(env("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if dir := env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "smtp2rest")
	}
	switch home := env("HOME"); home {
	case "", "/", "/root", "/nonexistent":
		return "/var/lib/smtp2rest"
	default:
		return filepath.Join(home, ".local", "state", "smtp2rest")
	}
}

// fromFile resolves a path that may be relative to the directory of the file.
func (l *loader) fromFile(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(l.src.Path), path)
}

// runtimeDir is the directory for sockets of this user's programs.
func (l *loader) runtimeDir() string {
	env := func(name string) string { v, _ := l.src.Env(name); return v }
	if dir, _, _ := strings.Cut(env("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir
	}
	if dir := env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "smtp2rest")
	}
	return "/run/smtp2rest"
}

// deriveAddresses needs the sender and the host name.
func (l *loader) deriveAddresses() {
	a, c := &l.cfg.Addresses, l.cfg
	if a.QualifyDomain == "" && c.Sender.Email != "" {
		a.QualifyDomain = domainOf(c.Sender.Email)
	}
	a.Local = []string{"localhost", "localhost.localdomain", c.Hostname}
	if name, err := l.src.Hostname(); err == nil {
		a.Local = append(a.Local, name)
	}
}

// deriveWarming lets a table without until never end.
func (l *loader) deriveWarming() {
	all := l.cfg.Warming
	for i := range all {
		if s := l.find(settings.Numbered("warming", i, len(all)) + ".until"); len(all[i].Table) > 0 && s.origin == "default" {
			all[i].Until = 0
		}
	}
}

// deriveListeners allows logins without TLS where only this machine can connect.
func (l *loader) deriveListeners() {
	all := l.cfg.Listeners
	for i := range all {
		one := &all[i]
		if s := l.find(settings.Numbered("listener", i, len(all)) + ".auth_without_tls"); s.origin == "default" {
			one.AuthWithoutTLS = private(*one)
		}
	}
}
