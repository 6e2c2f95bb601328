package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// phase is how far a daemon is in its life.
type phase int

const (
	starting phase = iota
	serving
	stopping
)

// health is whether the daemon is well, for those who ask from outside.
type health struct {
	mu      sync.Mutex
	phase   phase
	alive   func(context.Context) error // the engine's; nil without a queue
	storage *storageCheck               // nil without a queue
	writing func() time.Time            // since when the storage is at one write; nil without a queue
	room    func(context.Context) error // why no new mail can be queued; nil without a queue
}

// watch says what is to be asked, while the daemon is built.
func (h *health) watch(alive func(context.Context) error, storage *storageCheck, writing func() time.Time, room func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alive, h.storage, h.writing, h.room = alive, storage, writing, room
}

func (h *health) set(p phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = p
}

func (h *health) now() (phase, func(context.Context) error, *storageCheck) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase, h.alive, h.storage
}

// writeTime is what one write may take. A disk that fails says so; one write that
// lasts so long is not helped by waiting.
const writeTime = time.Minute

// live is nil while the process makes progress. The end of it has a bound of
// its own.
func (h *health) live(ctx context.Context) error {
	phase, alive, _ := h.now()
	if alive == nil || phase == stopping {
		return nil
	}
	if since := h.writing(); !since.IsZero() && time.Since(since) > writeTime {
		return fmt.Errorf("the storage hangs: it is at one write since %s", since.UTC().Format(time.RFC3339))
	}
	return alive(ctx)
}

// ready is nil when mail can be handed over and will be kept.
func (h *health) ready(ctx context.Context) error {
	phase, _, storage := h.now()
	switch {
	case phase == starting:
		return errors.New("starting")
	case phase == stopping:
		return errors.New("stopping")
	case storage == nil:
		return nil
	}
	if _, err := storage.check(ctx); err != nil {
		return err
	}
	return h.room(ctx)
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
