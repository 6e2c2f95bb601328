package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// phase is how far a daemon is in its life.
type phase int

const (
	starting phase = iota
	serving
	stopping
)

// health is whether the relay is well, for those who ask from outside.
type health struct {
	mu    sync.Mutex
	phase phase
	alive []func(context.Context) error // each nil while a part makes progress
	open  []func(context.Context) error // each nil while a part takes mail
}

// addLive adds what is asked, in this order, whether the relay makes progress.
func (h *health) addLive(checks ...func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alive = append(h.alive, checks...)
}

// addReady adds what is asked, in this order, whether mail can be handed over.
func (h *health) addReady(checks ...func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(h.open, checks...)
}

func (h *health) set(p phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = p
}

func (h *health) now() (p phase, alive, open []func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase, h.alive, h.open
}

// live is nil while the process makes progress. The end of it has a bound of
// its own.
func (h *health) live(ctx context.Context) error {
	phase, alive, _ := h.now()
	if phase == stopping {
		return nil
	}
	return firstError(ctx, alive)
}

// ready is nil when mail can be handed over and will be kept.
func (h *health) ready(ctx context.Context) error {
	switch phase, _, open := h.now(); phase {
	case starting:
		return errors.New("starting")
	case stopping:
		return errors.New("stopping")
	default:
		return firstError(ctx, open)
	}
}

func firstError(ctx context.Context, checks []func(context.Context) error) error {
	for _, check := range checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// writeTime is the longest time for one write. A disk that fails returns an error; a write
// that takes longer than this hangs.
const writeTime = time.Minute

// writes returns an error if the write that began at since takes too long. The zero Time
// means that there is none.
func writes(since time.Time) error {
	if !since.IsZero() && time.Since(since) > writeTime {
		return fmt.Errorf("the storage hangs: it is at one write since %s", since.UTC().Format(time.RFC3339))
	}
	return nil
}

// roomForOne is what a queue must have left for a mail of ordinary size.
const roomForOne = 1 << 20

// room is why new mail would be answered 452 if the API did not take it at once;
// nil when it can be queued.
func room(ctx context.Context, q store.Queue, c config.Queue) error {
	free, least, err := q.Space()
	if err == nil && free <= least {
		return fmt.Errorf("the disk of the queue has %d MiB left, and %d MiB are kept free", free>>20, least>>20)
	}
	stats, err := q.Stats(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the queue does not say how full it is: %w", err)
	case c.MaxMails > 0 && stats.Mails-stats.FailedMails >= int64(c.MaxMails):
		return fmt.Errorf("the queue is full: it holds %d of the %d waiting mails that queue.max_mails allows", stats.Mails-stats.FailedMails, c.MaxMails)
	case c.MaxBytes > 0 && stats.Bytes > max(0, c.MaxBytes-roomForOne):
		return fmt.Errorf("the queue is full: it holds %d of the %d bytes that queue.max_size allows", stats.Bytes, c.MaxBytes)
	}
	return nil
}

const (
	// markWritten is what a check of the storage writes.
	markWritten = "health/written"
	// checkedFor is how long one check is believed, so that whoever asks often
	// does not write often.
	checkedFor = 10 * time.Second
	// storagePatience is how long a check waits for the storage.
	storagePatience = 4 * time.Second
)

// storageCheck finds out whether the storage can be written: by writing to it,
// because nothing else shows it. It writes when it is asked, and never else.
type storageCheck struct {
	marks queue.Marks
	stop  context.CancelFunc
	ctx   context.Context
	wg    sync.WaitGroup

	mu      sync.Mutex
	at      time.Time     // when the latest check ended
	err     error         // what came of it
	since   time.Time     // since when it fails
	pending chan struct{} // closed when the check that is under way ends; nil: none is
}

func newStorageCheck(marks queue.Marks) *storageCheck {
	c := &storageCheck{marks: marks}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// check is nil when the storage can be written; since is when that ceased. A
// storage that does not answer keeps nobody waiting, and is asked once.
func (c *storageCheck) check(ctx context.Context) (since time.Time, err error) {
	done := c.begin()
	if done != nil {
		patience := time.NewTimer(storagePatience)
		defer patience.Stop()
		select {
		case <-done:
		case <-ctx.Done(): // the caller's, which says nothing of the storage
		case <-patience.C:
			c.fail(errors.New("the storage does not answer"))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.err
}

// begin starts a check, if there is none that is new enough, and returns what
// is closed when it ends.
func (c *storageCheck) begin() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.pending != nil:
		return c.pending
	case c.err == nil && !c.at.IsZero() && time.Since(c.at) < checkedFor, c.ctx.Err() != nil:
		return nil
	}
	done := make(chan struct{})
	c.pending = done
	c.wg.Go(func() {
		defer close(done)
		now := time.Now()
		c.ended(c.marks.SetMark(c.ctx, markWritten, now.UTC().Format(time.RFC3339)))
	})
	return done
}

func (c *storageCheck) ended(err error) {
	if err != nil {
		c.fail(fmt.Errorf("the storage cannot be written: %w", err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.pending = time.Now(), nil
	if err == nil {
		c.err, c.since = nil, time.Time{}
	}
}

func (c *storageCheck) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if c.since.IsZero() {
		c.since = time.Now()
	}
}

// end waits for a check that is under way.
func (c *storageCheck) end() {
	c.stop()
	c.wg.Wait()
}
