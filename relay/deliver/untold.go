package deliver

import "sync"

// mostUntold bounds the mails that untold remembers. What it has no room for is
// found when all mail is looked at, which is once in graceCheck.
const mostUntold = 10_000

// untold remembers which mails may have a bounce to write, so that the loop that
// writes bounces need not look at all mail whenever something ended.
type untold struct {
	wake chan struct{} // has a value when there is something to look at

	mu     sync.Mutex
	failed map[string]bool // mails with a failure of which the sender was not told
	ended  map[string]bool // those of them to look at, because something ended
	all    bool            // look at all mail
}

func newUntold() *untold {
	return &untold{wake: make(chan struct{}, 1), failed: map[string]bool{}, ended: map[string]bool{}}
}

// gaveUp notes that a recipient of a mail failed.
func (u *untold) gaveUp(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.failed) < mostUntold {
		u.failed[id], u.ended[id] = true, true
	}
	note(u.wake)
}

// sent notes that a recipient has the mail, which may have been the last one
// that the bounce waits for.
func (u *untold) sent(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed[id] {
		u.ended[id] = true
		note(u.wake)
	}
}

// lookAtAll has all mail looked at.
func (u *untold) lookAtAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = true
	note(u.wake)
}

// take returns what to look at and begins anew.
func (u *untold) take() (mails map[string]bool, all bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	mails, all = u.ended, u.all
	u.ended, u.all = map[string]bool{}, false
	return mails, all
}

// done forgets a mail: there is no bounce to write for it any more.
func (u *untold) done(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.failed, id)
}
