package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/queue"
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
func (d *daemon) buildUsers(ctx context.Context, k kept) (*users, error) {
	u, err := newUsers(d.config(), d.opt.Log)
	if err != nil {
		return nil, err
	}
	d.reloads = append(d.reloads, hook{"users", userSettings, func(_ context.Context, c *config.Config) (change, error) {
		return change{apply: func() { u.use(c) }}, nil
	}})
	if k.queue == nil {
		return u, nil // there is nothing to keep logins in
	}
	saved := newSavedLogins(u.Checker, k.queue, d.opt.Log)
	if err := saved.restore(ctx); err != nil {
		return nil, err
	}
	saved.start()
	d.onStop(func(context.Context) error { saved.stop(); return nil })
	return u, nil
}

func newUsers(c *config.Config, log *slog.Logger) (*users, error) {
	checker, err := auth.New(auth.Options{})
	if err != nil {
		return nil, err
	}
	u := &users{Checker: checker, log: log}
	u.use(c)
	return u, nil
}

// of is nil when a configuration lets nobody log in.
func (u *users) of(c *config.Config) smtpd.Users {
	if len(c.Users) == 0 && c.UsersFile == "" {
		return nil
	}
	return u
}

// userSettings are what use takes.
func userSettings(c *config.Config) any {
	return struct {
		users []auth.User
		file  string
	}{logins(c.Users), c.UsersFile}
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

// markLogins is the mark in which those who have logged in, and from where,
// outlive a restart: nobody's guesses shut them out there.
const markLogins = "auth/logins"

// loginsTime is how often they are written down, if they have changed.
const loginsTime = time.Minute

// savedLogins writes down who has logged in from where.
type savedLogins struct {
	users *auth.Checker
	log   *slog.Logger
	marks queue.Marks

	written string // what the mark holds
	failed  bool   // the last time; it is said once
	done    chan struct{}
	wg      sync.WaitGroup
}

func newSavedLogins(u *auth.Checker, marks queue.Marks, log *slog.Logger) *savedLogins {
	return &savedLogins{users: u, marks: marks, log: log, done: make(chan struct{})}
}

// restore goes on with the logins of the process before this one.
func (s *savedLogins) restore(ctx context.Context) (err error) {
	if s.written, err = s.marks.Mark(ctx, markLogins); err != nil {
		return err
	}
	var logins []auth.Login
	_ = json.Unmarshal([]byte(s.written), &logins) // what cannot be read is as good as none
	s.users.Remember(logins)
	return nil
}

func (s *savedLogins) start() {
	s.wg.Go(func() {
		tick := time.NewTicker(loginsTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.write()
			case <-s.done:
				s.write()
				return
			}
		}
	})
}

// stop writes what was not written yet.
func (s *savedLogins) stop() {
	close(s.done)
	s.wg.Wait()
}

func (s *savedLogins) write() {
	logins := s.users.Logins()
	text, err := json.Marshal(logins)
	if len(logins) == 0 {
		text = nil // removes the mark
	}
	if err == nil && string(text) == s.written {
		return
	}
	if err == nil {
		err = s.marks.SetMark(context.Background(), markLogins, string(text))
	}
	switch {
	case err == nil:
		s.written = string(text)
	case !s.failed:
		s.log.Warn("who has logged in from where cannot be written down; after a restart others' wrong passwords can shut them out", "cause", err)
	}
	s.failed = err != nil
}
