package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is for how long a statement is tried again whose answer was lost, or that lost against
// another in a deadlock. It is as long as a client waits gladly, and a failover
// takes longer: then the caller is told.
const patience = 10 * time.Second

// again is do for what may be done twice without harm. It is tried again when it is
// not known what became of it, until it is.
func (d *DB) again(ctx context.Context, f func(ctx context.Context, c *pgx.Conn) error) error {
	begun := time.Now()
	asked := false // it may have been done
	for {
		err := d.do(ctx, f)
		if asked && err != nil && ctx.Err() != nil {
			err = &Error{Unknown: true, text: "no answer"}
		}
		switch {
		case err == nil, ctx.Err() != nil, time.Since(begun) > patience:
			return err
		case unknown(err):
			asked = true
		case !deadlocked(err) && !asked || !temporary(err):
			return err
		}
		wait(ctx, jitter(50*time.Millisecond))
	}
}

// deadlocked: nothing was changed, because another transaction was in the way.
func deadlocked(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == "40P01" || e.Code == "40001")
}

// temporary: the server may be there again soon.
func temporary(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == "" || deadlocked(err) || e.Code == readOnly)
}

// jitter is d, and up to half of it more or less.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// backoff spaces out attempts to connect to a server that is down. It is told of each
// by pgx. Who asks for a connection meanwhile has the latest error at once.
type backoff struct {
	log *slog.Logger

	mu    sync.Mutex
	pause time.Duration // after the next failure
	until time.Time
	since time.Time // of the first failure in a row
	err   error
}

// wait refuses while it is too early to try again.
func (b *backoff) wait() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil && time.Now().Before(b.until) {
		return fmt.Errorf("not tried again yet: %w", b.err)
	}
	return nil
}

// trouble is why there is no connection, and since when; nil when the latest
// attempt had one.
func (b *backoff) trouble() (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since, b.err
}

// TraceConnectStart implements pgx.ConnectTracer.
func (b *backoff) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (b *backoff) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	if data.Err != nil && ctx.Err() != nil {
		return // the caller gave up, which says nothing of the server
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case data.Err == nil && b.err != nil:
		b.log.Info("connected to the database again", "after", time.Since(b.since).Round(time.Millisecond))
		fallthrough
	case data.Err == nil:
		b.err, b.pause, b.since = nil, 0, time.Time{}
		return
	case b.err == nil:
		b.since = time.Now()
		b.log.Error("there is no connection to the database; it is tried again", "error", data.Err)
	}
	b.err = data.Err
	b.pause = min(max(firstPause, 2*b.pause), maxPause)
	b.until = time.Now().Add(b.pause/2 + rand.N(b.pause/2))
}

// TraceQueryStart implements pgx.QueryTracer, which pgx asks for besides.
func (b *backoff) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (b *backoff) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
