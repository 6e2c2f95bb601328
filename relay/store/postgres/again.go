package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
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
