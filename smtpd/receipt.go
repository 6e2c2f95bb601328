package smtpd

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

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

// watch notices when the client hangs up while its message is dealt with. What
// the client sends meanwhile stays where the next command is read. Until stop
// returns nothing else may read.
func (w *wire) watch(r *receipt) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := w.in.Peek(1); isGone(err) {
			r.lost()
		}
	}()
	return func() {
		w.setWatched(false)
		<-done
		w.setWatched(true)
	}
}

// setWatched wakes the reader of watch and keeps it from reading again, or
// allows reading.
func (w *wire) setWatched(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwatched = !on
	if !on {
		_ = w.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// isGone tells a client that left from one that is silent. An end of file in
// the middle of a message's handling is a client that does not wait.
func isGone(err error) bool {
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errStopping)
}

// confirm is called with what came after the reply to a message. Any command,
// and an orderly end of the connection, show that the client had it; a reset
// shows that it was gone before.
func (w *wire) confirm(err error) {
	r := w.pending
	w.pending = nil
	if r != nil && isGone(err) && !errors.Is(err, io.EOF) {
		r.lost()
	}
}
