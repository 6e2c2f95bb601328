package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// markLogins is the mark in which those who have logged in, and from where,
// outlive a restart: nobody's guesses shut them out there.
const markLogins = "auth/logins"

// loginsTime is how often they are written down, if they have changed.
const loginsTime = time.Minute

// loginKeeper writes down who has logged in from where.
type loginKeeper struct {
	users *auth.Checker
	log   *slog.Logger
	marks interface {
		Mark(ctx context.Context, name string) (string, error)
		SetMark(ctx context.Context, name, value string) error
	}

	written string // what the mark holds
	failed  bool   // the last time; it is said once
	done    chan struct{}
	wg      sync.WaitGroup
}

// keepLogins goes on with the logins of the process before this one. Without a
// queue there is nothing to keep them in.
func (p *parts) keepLogins(ctx context.Context) error {
	if p.marks == nil {
		return nil
	}
	k := &loginKeeper{users: p.logins.Checker, marks: p.marks, log: p.opt.Log, done: make(chan struct{})}
	if err := k.restore(ctx); err != nil {
		return err
	}
	k.start()
	p.onStop(func(context.Context) error { k.stop(); return nil })
	return nil
}

func (k *loginKeeper) restore(ctx context.Context) (err error) {
	if k.written, err = k.marks.Mark(ctx, markLogins); err != nil {
		return err
	}
	var logins []auth.Login
	_ = json.Unmarshal([]byte(k.written), &logins) // what cannot be read is as good as none
	k.users.Remember(logins)
	return nil
}

func (k *loginKeeper) start() {
	k.wg.Go(func() {
		tick := time.NewTicker(loginsTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				k.write()
			case <-k.done:
				k.write()
				return
			}
		}
	})
}

// stop writes what was not written yet.
func (k *loginKeeper) stop() {
	close(k.done)
	k.wg.Wait()
}

func (k *loginKeeper) write() {
	logins := k.users.Logins()
	text, err := json.Marshal(logins)
	if len(logins) == 0 {
		text = nil // removes the mark
	}
	if err == nil && string(text) == k.written {
		return
	}
	if err == nil {
		err = k.marks.SetMark(context.Background(), markLogins, string(text))
	}
	switch {
	case err == nil:
		k.written = string(text)
	case !k.failed:
		k.log.Warn("who has logged in from where cannot be written down; after a restart others' wrong passwords can shut them out", "cause", err)
	}
	k.failed = err != nil
}
