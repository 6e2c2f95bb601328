package app

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// users are smtpd's: those of the configuration and those of users_file, which
// is read again when it has changed.
type users struct {
	*auth.Checker
	log *slog.Logger

	mu   sync.Mutex
	c    *config.Config
	file watched
}

// buildUsers is the same whether anybody can log in: somebody may later.
func (p *parts) buildUsers(c *config.Config) error {
	checker, err := auth.New(auth.Options{})
	if err != nil {
		return err
	}
	p.logins = &users{Checker: checker, log: p.opt.Log}
	p.logins.use(c)
	return nil
}

// usersOf is nil when a configuration lets nobody log in.
func (p *parts) usersOf(c *config.Config) smtpd.Users {
	if len(c.Users) == 0 && c.UsersFile == "" {
		return nil
	}
	return p.logins
}

// userSettings are what prepare takes.
func userSettings(c *config.Config) any {
	return struct {
		users []auth.User
		file  string
	}{logins(c.Users), c.UsersFile}
}

// prepare makes ready to go on with the users of another configuration.
func (u *users) prepare(c *config.Config) (apply func(), err error) {
	return func() { u.use(c) }, nil
}

// use goes on with the users of a configuration. Its file may have changed since
// it was loaded.
func (u *users) use(c *config.Config) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.c, u.file = c, watch(c.UsersFile)
	if err := u.Replace(logins(c.Users)); err != nil {
		u.log.Error("the users cannot be taken; those from before stay in force", "cause", err)
		return
	}
	if c.UsersFile != "" {
		u.read()
	}
}

// Check is smtpd's.
func (u *users) Check(ctx context.Context, addr netip.Addr, said auth.Credentials) (auth.Result, error) {
	u.refresh()
	return u.Checker.Check(ctx, addr, said)
}

// Current is smtpd's.
func (u *users) Current(user *auth.User) *auth.User {
	u.refresh()
	return u.Checker.Current(user)
}

func (u *users) refresh() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file.changed() {
		u.read()
	}
}

// read takes the users of the file as it is. A file that is gone or wrong is
// said once, and the users stay as they were: mail goes on.
func (u *users) read() {
	list, err := config.ReadUsers(u.c, nil)
	if err == nil {
		err = u.Replace(logins(list))
	}
	if err != nil {
		u.log.Error("the users cannot be read again; those from before stay in force", "file", u.c.UsersFile, "cause", err)
		return
	}
	u.log.Info("users read", "file", u.c.UsersFile, "users", len(list))
}

func logins(from []config.User) []auth.User {
	list := make([]auth.User, len(from))
	for i, u := range from {
		list[i] = auth.User{Name: u.Name, Hash: u.Hash, Rules: u.Policy(), Rate: u.Rate}
	}
	return list
}
