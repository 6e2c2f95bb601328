package smtpd

import (
	"context"
	"sync"
)

// Author reports whether the rules let somebody be the author that the mail
// itself names.
func (e *Envelope) Author(address string) bool {
	if e.author == nil { // no server made it
		return e.Rules.From(address)
	}
	return e.author(address)
}

// Reserve makes sure that there is memory for dealing with the message, beyond
// that of its data: n bytes in all, which a later call changes. It waits a
// short time for more, and the error is then the reply to the message. It is
// given back when Message returns. Of an Envelope that no server made there is
// nothing to reserve.
func (e *Envelope) Reserve(ctx context.Context, n int64) error {
	if e.reserve == nil {
		return nil
	}
	if r := e.reserve(ctx, n); r != nil {
		return r
	}
	return nil
}

// A receipt knows whether a client got the reply to its message. A client that
// hung up before it did will send the message again, and the Backend may want
// to know it then.
type receipt struct {
	mu     sync.Mutex
	isLost bool
	tell   func()
}

// OnLost has f called, once and on any goroutine, when it turns out that the
// client did not get the reply to this message: at once if that is known
// already, during Message, or shortly after it. Where nothing is known, as for
// an Envelope that no server made, f is never called.
func (e *Envelope) OnLost(f func()) {
	if e.receipt == nil {
		return
	}
	e.receipt.mu.Lock()
	known := e.receipt.isLost
	e.receipt.tell = f
	e.receipt.mu.Unlock()
	if known {
		f()
	}
}

func (r *receipt) lost() {
	r.mu.Lock()
	first := !r.isLost
	r.isLost = true
	tell := r.tell
	r.mu.Unlock()
	if first && tell != nil {
		tell()
	}
}
