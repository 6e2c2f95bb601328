package smtpd

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// ConnectionBytes is what a connection costs while it does nothing: measured
// by BenchmarkIdle, plus what TLS keeps, plus something for its goroutine.
const ConnectionBytes = 32 << 10

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

// hold reserves n bytes in all for the message under way.
func (w *wire) hold(ctx context.Context, kind budget.Kind, n int64) *reply.Reply {
	return w.waitForMemory(ctx, func(ctx context.Context) error { return w.share.Hold(ctx, kind, n) })
}

// admit reserves for the beginning of a message of so many bytes, 0 for nobody
// knows, when there is room for all of it.
func (w *wire) admit(size int64) *reply.Reply {
	return w.waitForMemory(w.session.ctx, func(ctx context.Context) error {
		if err := w.share.Announce(ctx, size); err != nil {
			return err
		}
		return w.share.Hold(ctx, budget.Reading, firstHeld(size))
	})
}

func (w *wire) waitForMemory(ctx context.Context, hold func(context.Context) error) *reply.Reply {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, w.limits.MemoryWait)
	defer cancel()
	err := hold(ctx)
	w.mu.Lock()
	w.clock.excuse(time.Since(began))
	w.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, budget.ErrTooLarge):
		w.metrics.hit(limitSize)
		return reply.TooLarge()
	}
	w.metrics.hit(limitMemory)
	return reply.MemorySpent()
}

// reserveContent is hold for content that comes.
func (w *wire) reserveContent(kind budget.Kind, n int64) *reply.Reply {
	return w.hold(w.session.ctx, kind, n)
}

// giveWay stops keeping the message under way, whose client is slow while
// others wait for memory. The client hears it at the end of the message.
func (w *wire) giveWay() {
	w.metrics.hit(limitMemory)
	if w.coming != nil {
		w.coming.refuse("", reply.MemorySpent())
	}
	w.share.Release()
}

// press wakes the owner of the wire, which reads or, between chunks, writes, to
// give way.
func (w *wire) press() {
	_ = w.socket.SetReadDeadline(time.Unix(1, 0))
	_ = w.socket.SetWriteDeadline(time.Now().Add(lingerTime))
}
