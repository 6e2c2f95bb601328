package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Source is where a configuration comes from. A nil function is the operating
// system's own.
type Source struct {
	Path string // of the TOML file; "" is no file

	// NeedAPI makes a missing API key or sender an error. Serving needs them,
	// checking and explaining do not.
	NeedAPI bool

	// NeedKey makes a missing API key alone one.
	NeedKey bool

	// NoWebhookSecret lets a webhook's secret be missing, for the command that
	// asks for one.
	NoWebhookSecret bool

	// Service is for a command that looks at the configuration of a service from
	// outside: what systemd hands over as a credential is read from where our
	// unit takes it.
	Service bool

	// FallbackSender is the sender when neither file nor environment has one:
	// for a sandbox, and for showing what would be sent.
	FallbackSender string

	Env      func(string) (string, bool)       // os.LookupEnv
	ReadFile func(string) ([]byte, error)      // at most 1 MiB of a file
	Stat     func(string) (fs.FileInfo, error) // os.Stat; asked for the mode of files that hold secrets
	Hostname func() (string, error)            // os.Hostname
	InMemory func(string) bool                 // whether a file's file system is in memory; asked for those as well
}

// maxFile bounds what is read of any file: what is larger is none of ours.
const maxFile = mib

// Load reads the file, then the environment, which comes before it, and checks
// all of it. The error is an Errors that holds every problem found.
func Load(src Source) (*Config, error) {
	l := newLoader(src)
	l.readFile()
	l.readEnvironment()
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

// loader carries one Load.
type loader struct {
	src      Source
	cfg      *Config
	settings []setting
	lines    map[string]int  // of settings in the file, by path
	bad      map[string]bool // settings whose value was refused: not to be judged again
	problems Errors
	unread   map[string]error // credentials of the unit that this user may not read
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
	l := &loader{src: src, cfg: &Config{files: map[string]string{}}, lines: map[string]int{}, bad: map[string]bool{}, unread: map[string]error{}}
	l.src.ReadFile = func(path string) ([]byte, error) {
		data, err := src.ReadFile(path)
		if err == nil && path != src.Path {
			l.cfg.files[path] = digest(data)
		}
		return data, err
	}
	l.add(settingsOf(l.cfg))
	l.makeRoom("listener", 1)
	return l
}

// readBounded keeps a path like /dev/zero from filling the memory.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// inMemory tells what a container's secrets lie on. Where docker compose mounts
// them they lie on the host's disk, with the host's mode.
func inMemory(path string) bool {
	return strings.HasPrefix(path, "/run/secrets/") || liesInMemory(path)
}

// add puts settings into the table and their defaults into the Config.
func (l *loader) add(settings []setting) {
	for i := range settings {
		s := &settings[i]
		if s.secret() {
			continue
		}
		s.origin = "default"
		if s.def == nil {
			continue
		}
		if err := s.value.set(s.def); err != nil {
			l.problem(s.path, "the default is not valid: %v", err)
		}
	}
	l.settings = append(l.settings, settings...)
}

// makeRoom makes room for n tables of those that are repeated, each with the
// defaults.
func (l *loader) makeRoom(name string, n int) {
	l.settings = keep(l.settings, func(s setting) bool {
		table, _ := splitPath(s.path)
		table, _, _ = strings.Cut(table, "#")
		return table != name
	})
	switch name {
	case "warming":
		l.cfg.Warming = make([]Warming, n)
		for i := range l.cfg.Warming {
			l.add(warmingSettings(&l.cfg.Warming[i], prefixOf(name, i, n)))
		}
	case "user":
		l.cfg.Users = make([]User, n)
		for i := range l.cfg.Users {
			l.add(userSettings(&l.cfg.Users[i], prefixOf(name, i, n)))
		}
	case "listener":
		l.cfg.Listeners = make([]Listener, n)
		for i := range l.cfg.Listeners {
			l.add(listenerSettings(&l.cfg.Listeners[i], prefixOf(name, i, n)))
		}
	}
}

// prefixOf is how the settings of the i-th of n tables are called.
func prefixOf(name string, i, n int) string {
	if n == 1 {
		return name
	}
	return fmt.Sprintf("%s#%d", name, i+1)
}

func keep(list []setting, want func(setting) bool) []setting {
	var kept []setting
	for _, s := range list {
		if want(s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// find is the setting at a path; case does not count, as it does not for the
// TOML library.
func (l *loader) find(path string) *setting {
	for i := range l.settings {
		if strings.EqualFold(l.settings[i].path, path) {
			return &l.settings[i]
		}
	}
	return nil
}

// problem notes what is wrong with a setting, and where it was set.
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

// readEnvironment takes the variables that are no secrets. An empty one counts
// as not set: compose files and charts like to pass those.
func (l *loader) readEnvironment() {
	for i := range l.settings {
		s := &l.settings[i]
		if s.env == "" || s.secret() {
			continue
		}
		text, ok := l.src.Env(s.env)
		if !ok || text == "" {
			continue
		}
		s.origin = "environment " + s.env
		delete(l.bad, s.path)
		if err := s.value.set(text); err != nil {
			l.bad[s.path] = true
			l.problem(s.path, "%v", err)
		}
	}
}

// derive fills in the defaults that depend on something else.
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
	c.Admin.RuntimeDir = l.runtimeDir()
	l.deriveAddresses()
	l.deriveWarming()
	c.API.CAFile = l.fromFile(c.API.CAFile)
	c.UsersFile = l.fromFile(c.UsersFile)
	l.deriveListeners()
	l.deriveWebhook()
	c.API.URL = strings.TrimRight(c.API.URL, "/")
}

// stateDir is where a program of this user keeps what must outlive it.
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

// fromFile is a path in the file as the process sees it.
func (l *loader) fromFile(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(l.src.Path), path)
}
