package history

import (
	"context"
	"time"
)

// prune removes what is too old, or too much, in steps between which others
// write. The store's room is looked at only after what is too old is gone.
func (r *Recorder) prune() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		more, err := r.pruneOnce(ctx)
		if err != nil {
			r.opt.Log.Error("the history cannot be pruned", "cause", err)
		}
		wait := r.opt.pruned
		if more {
			wait = pruneGap
		}
		if !r.rest(wait) {
			return
		}
	}
}

// pruneGap is left between two steps, so that pruning much is no load.
const pruneGap = 20 * time.Millisecond

func (r *Recorder) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.stop:
		return false
	}
}

// pruneOnce makes one step and says whether there may be more to remove.
func (r *Recorder) pruneOnce(ctx context.Context) (more bool, err error) {
	// A record of mail that still waits is kept: its story is not over.
	n, err := r.opt.Store.Prune(ctx, time.Now().Add(-r.bounds.Load().Keep), pruneStep, r.bounds.Load().Keep == 0)
	r.metrics.pruned.Add(float64(n))
	if err != nil || n == pruneStep {
		return err == nil, err
	}
	bytes, err := r.opt.Store.Bytes(ctx)
	if err != nil {
		return false, err
	}
	r.metrics.bytes.Set(float64(bytes))
	if r.bounds.Load().MaxSize == 0 || bytes <= r.bounds.Load().MaxSize {
		return false, nil
	}
	// The disk comes first: when the room is spent, even what waits may go.
	n, err = r.opt.Store.Prune(ctx, time.Now(), pruneStep, true)
	r.metrics.pruned.Add(float64(n))
	return n > 0, err
}
