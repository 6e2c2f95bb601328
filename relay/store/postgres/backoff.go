package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

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
