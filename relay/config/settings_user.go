package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

func userSettings(u *User, prefix string) []setting {
	return []setting{
		{path: prefix + ".name", value: textValue{&u.Name, checkUserName}, example: `"app"`,
			doc: "The name to log in with. It must be set."},
		{path: prefix + ".password_hash", value: hashValue{&u.Hash}, example: `"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"`,
			doc: "The password's bcrypt hash, as 'smtp2rest hash-password' makes it. It must be set."},
		{path: prefix + ".senders", value: patternsValue{&u.Senders}, def: []any{},
			doc: "Whom the user may send as, in MAIL FROM and in From: a list as in [rules]. None is\nanybody."},
		{path: prefix + ".deny_senders", value: patternsValue{&u.DenySenders}, def: []any{},
			doc: "Whom the user may not send as, in either."},
		{path: prefix + ".allow_recipients", value: patternsValue{&u.AllowRecipients}, def: []any{},
			doc: "The only ones the user may send to. None is anybody."},
		{path: prefix + ".deny_recipients", value: patternsValue{&u.DenyRecipients}, def: []any{},
			doc: "Whom the user may not send to."},
		{path: prefix + ".from", value: textValue{&u.From, checkEmail}, def: "",
			doc: "The sender of the user's mail where its own From is in no verified domain. \"\" is\nsender.email, with its name."},
		{path: prefix + ".from_name", value: textValue{&u.FromName, checkText}, def: "",
			doc: "The name that goes with it."},
		{path: prefix + ".rate", value: numberPerTimeValue{&u.Rate}, def: "",
			doc: "The most recipients of the user, as in \"600/hour\". \"\" is limits.rate_per_user."},
	}
}

// User is someone who may log in on the listeners.
type User struct {
	Name string // never empty
	Hash string // bcrypt's

	Senders, DenySenders            Patterns // of MAIL FROM and of From
	AllowRecipients, DenyRecipients Patterns

	From, FromName string // instead of Sender's; "" is Sender's
	Rate           Rate   // instead of Limits.RatePerUser; zero is that
}

// checkUserName takes what a line of users_file can hold.
func checkUserName(s string) error {
	if strings.Contains(s, ":") || strings.TrimSpace(s) != s || strings.HasPrefix(s, "#") {
		return fmt.Errorf("found %s; a user's name has no colon in it, no space around it and no # before it", show(s))
	}
	return checkText(s)
}

// maxHashCost is what can be checked in about a second: bcrypt doubles the time
// with each step, and one login must not hold up all others.
const maxHashCost = 14

var bcryptHash = regexp.MustCompile(`^\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// checkHash never shows what it found: it may be a password.
func checkHash(s string) error {
	parts := bcryptHash.FindStringSubmatch(s)
	if parts == nil {
		return errors.New("found something that is no bcrypt hash, which begins with $2; make one with 'smtp2rest hash-password', and keep no password here")
	}
	if n, err := strconv.Atoi(parts[1]); err != nil || n < 4 || n > maxHashCost {
		return fmt.Errorf("found a hash with a cost of %s; allowed is from 4 to %d", parts[1], maxHashCost)
	}
	return nil
}

// hashValue is a hash, which nobody is shown either.
type hashValue struct{ p *string }

func (h hashValue) set(v any) error {
	s, ok := v.(string)
	if !ok {
		return errors.New("write a bcrypt hash in quotes; 'smtp2rest hash-password' makes one")
	}
	if err := checkHash(s); err != nil {
		return err
	}
	*h.p = s
	return nil
}

func (h hashValue) text() string {
	if *h.p == "" {
		return "not set"
	}
	return "set"
}

// readUsers adds the users of the file to those of the tables.
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

// ReadUsers is the users of the tables and those that users_file has now. A nil
// read is the operating system's. The error never shows what may be a password.
func ReadUsers(c *Config, read func(string) ([]byte, error)) ([]User, error) {
	if read == nil {
		read = readBounded
	}
	data, err := read(c.UsersFile)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", show(c.UsersFile), cause(err))
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
			problems = append(problems, fmt.Errorf("%s, line %d: %w", show(c.UsersFile), number, err))
			continue
		}
		list = append(list, user)
	}
	return list, errors.Join(problems...)
}

// parseUser takes one line. Its errors show no more than a good name.
func parseUser(line string, others []User) (User, error) {
	name, hash, ok := strings.Cut(line, ":")
	if !ok || name == "" || checkUserName(name) != nil {
		return User{}, errors.New("write a name, a colon and a hash")
	}
	if err := checkHash(hash); err != nil {
		return User{}, err
	}
	if slices.ContainsFunc(others, func(u User) bool { return u.Name == name }) {
		return User{}, fmt.Errorf("the user %s is there already", show(name))
	}
	return User{Name: name, Hash: hash}, nil
}

// Policy is the user's rules in the words of smtpd.
func (u User) Policy() policy.Rules {
	sender := policy.Rule{Allow: u.Senders.List, Deny: u.DenySenders.List}
	return policy.Rules{
		Sender: sender, From: sender,
		Recipient: policy.Rule{Allow: u.AllowRecipients.List, Deny: u.DenyRecipients.List},
	}
}

func (l *loader) validateUser(i, n int) {
	u, prefix := l.cfg.Users[i], prefixOf("user", i, n)
	if u.Name == "" && !l.bad[prefix+".name"] {
		l.problem(prefix+".name", "is not set; write the name to log in with")
	}
	if u.Hash == "" && !l.bad[prefix+".password_hash"] {
		l.problem(prefix+".password_hash", "is not set; make one with 'smtp2rest hash-password'")
	}
	if u.From != "" && !l.bad["sender.domains"] && len(l.cfg.Sender.Domains) > 0 && !slices.Contains(l.cfg.Sender.Domains, domainOf(u.From)) {
		l.problem(prefix+".from", "found %s, whose domain is not among sender.domains, for which alone the API sends", show(u.From))
	}
	if u.Name != "" && slices.ContainsFunc(l.cfg.Users[:i], func(other User) bool { return other.Name == u.Name }) {
		l.problem(prefix+".name", "found %s, which another user has already", show(u.Name))
	}
}

// validateLogins tells of users whom no listener lets in, and of hashes that are
// not alike.
func (l *loader) validateLogins() {
	if len(l.cfg.Users) > 0 && !slices.ContainsFunc(l.cfg.Listeners, Listener.canLogIn) {
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
