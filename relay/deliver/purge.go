package deliver

import (
	"context"
	"time"
)

const (
	purgeEvery = 10 * time.Minute
	purgeStep  = 1000 // recipients
)

// purge removes sent mail that has been listed for long enough.
func (e *Engine) purge(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := e.opt.Queue.Purge(ctx, e.opt.Now().Add(-e.set.Load().KeepSent), purgeStep)
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Error("sent mail cannot be removed from the queue", "cause", err)
		}
		if err != nil || n == 0 {
			pause(ctx, purgeEvery)
		}
	}
}
