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
	c   *config.Config
	log *slog.Logger

	mu   sync.Mutex
	file watched
}

// users is nil when nobody can ever log in.
func (p *parts) users() (smtpd.Users, error) {
	c := p.opt.Config
	if len(c.Users) == 0 && c.UsersFile == "" {
		return nil, nil
	}
	checker, err := auth.New(auth.Options{Users: logins(c.Users)})
	if err != nil {
		return nil, err
	}
	u := &users{Checker: checker, c: c, log: p.opt.Log}
	if c.UsersFile != "" {
		u.file = watch(c.UsersFile)
		u.read() // it may have changed since the configuration was loaded
	}
	return u, nil
}

// Check is smtpd's.
func (u *users) Check(ctx context.Context, addr netip.Addr, said auth.Credentials) (auth.Verdict, error) {
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
		list[i] = auth.User{Name: u.Name, Hash: u.Hash, Rules: u.Policy()}
	}
	return list
}
