package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"

	"github.com/smtp2rest/smtp2rest/relay/alias"
)

// Table returns the aliases of the configuration and those in the text of alias_file.
// The error joins all problems.
func (a Addresses) Table(file string) (*alias.Table, error) {
	entries, err := alias.Parse(file)
	if err != nil {
		return nil, err
	}
	return alias.New(alias.Options{Qualify: a.QualifyDomain, Local: a.Local}, append(slices.Clone(a.Aliases), entries...))
}

// validateAliases reads the file in the same way as the daemon.
func (l *loader) validateAliases() {
	a := &l.cfg.Addresses
	if l.bad["aliases"] || l.bad["alias_file"] {
		return
	}
	if _, err := a.Table(""); err != nil {
		l.problem("aliases", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	if a.AliasFile == "" {
		return
	}
	text, err := ReadAliases(a.AliasFile, l.src.ReadFile)
	if err == nil {
		_, err = a.Table(text)
	}
	if err != nil {
		l.problem("alias_file", "%s: %s", a.AliasFile, strings.ReplaceAll(cause(err).Error(), "\n", "; "))
	}
}

// ReadAliases reads a file of aliases of at most 1 MiB. If read is nil, it reads from
// the operating system.
func ReadAliases(path string, read func(string) ([]byte, error)) (string, error) {
	if read == nil {
		read = readBounded
	}
	data, err := read(path)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("there is no such file")
	}
	return string(data), err
}

// readUsers adds the users of users_file to those of the tables.
func (l *loader) readUsers() {
	tables := len(l.cfg.Users)
	for i := range tables {
		l.validateUser(i, tables)
	}
	l.cfg.tableUsers = tables
	if mode, loose := l.looseMode(l.src.Path); loose && tables > 0 {
		l.warn("user: "+looseFile+", and it has password hashes; 0640 and a group that the relay is in are enough, or write the users into users_file", l.src.Path, mode)
	}
	name := l.cfg.UsersFile
	if name == "" {
		return
	}
	const path = "users_file"
	list, err := ReadUsers(l.cfg, l.src.ReadFile)
	if err != nil {
		l.bad[path] = true
		for _, one := range strings.Split(err.Error(), "\n") {
			l.problem(path, "%s", one)
		}
		return
	}
	l.cfg.Users = list
	l.loose(path, name)
}

// ReadUsers returns the users of the tables and those that users_file has now. If read
// is nil, it reads from the operating system. The error never shows what may be a
// password.
func ReadUsers(c *Config, read func(string) ([]byte, error)) ([]User, error) {
	if read == nil {
		read = readBounded
	}
	data, err := read(c.UsersFile)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", settings.Show(c.UsersFile), cause(err))
	}
	list := slices.Clone(c.Users[:c.tableUsers])
	var problems []error
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		user, err := parseUser(line, list)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s, line %d: %w", settings.Show(c.UsersFile), number, err))
			continue
		}
		list = append(list, user)
	}
	return list, errors.Join(problems...)
}

// parseUser parses one line. Its errors show only a valid name.
func parseUser(line string, others []User) (User, error) {
	name, hash, ok := strings.Cut(line, ":")
	if !ok || name == "" || checkUserName(name) != nil {
		return User{}, errors.New("write a name, a colon and a hash")
	}
	if err := checkHash(hash); err != nil {
		return User{}, err
	}
	if slices.ContainsFunc(others, func(u User) bool { return u.Name == name }) {
		return User{}, fmt.Errorf("the user %s is there already", settings.Show(name))
	}
	return User{Name: name, Hash: hash}, nil
}

func (l *loader) validateUser(i, n int) {
	u, prefix := l.cfg.Users[i], settings.Numbered("user", i, n)
	if u.Name == "" && !l.bad[prefix+".name"] {
		l.problem(prefix+".name", "is not set; write the name to log in with")
	}
	if u.Hash == "" && !l.bad[prefix+".password_hash"] {
		l.problem(prefix+".password_hash", "is not set; make one with 'smtp2rest hash-password'")
	}
	if u.From != "" && !l.bad["sender.domains"] && len(l.cfg.Sender.Domains) > 0 && !slices.Contains(l.cfg.Sender.Domains, domainOf(u.From)) {
		l.problem(prefix+".from", "found %s, whose domain is not among sender.domains, for which alone the API sends", settings.Show(u.From))
	}
	if u.Name != "" && slices.ContainsFunc(l.cfg.Users[:i], func(other User) bool { return other.Name == u.Name }) {
		l.problem(prefix+".name", "found %s, which another user has already", settings.Show(u.Name))
	}
}

// validateLogins warns if no listener allows logins, and of hashes with different
// costs.
func (l *loader) validateLogins() {
	if len(l.cfg.Users) > 0 && !slices.ContainsFunc(l.cfg.Listeners, canLogIn) {
		l.warn("user: nobody can log in: no listener has tls, or auth_without_tls = true")
	}
	least, most := maxHashCost, 0
	for _, u := range l.cfg.Users {
		if parts := bcryptHash.FindStringSubmatch(u.Hash); parts != nil {
			n, _ := strconv.Atoi(parts[1]) // two digits
			least, most = min(least, n), max(most, n)
		}
	}
	if least < most {
		l.warn("user: the password hashes cost from %d to %d: every wrong password takes as long as the costliest, and the cheapest is the easiest to break where it leaks; make them anew with 'smtp2rest hash-password'", least, most)
	}
}
