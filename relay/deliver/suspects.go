package deliver

import (
	"context"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

const (
	probesMissed = 15 // about how many others are tried before a suspect is again
	maxSuspects  = 100
)

// suspects are mails that failed while the API was taken to be down. It may be
// the mail that the API cannot take: if it were the first in its lane again at
// the next probe, and the one after that, it would keep everybody's mail waiting
// for an API that works. So it gives way; and because it mostly is the API after
// all, it is due at once when that works again. Once: a mail that then fails
// alone is tried later and later like any other.
type suspects struct {
	mu   sync.Mutex
	ids  []string        // that gave way since the API worked last
	once map[string]bool // those of before
}

// giveWay is when a mail that failed is due. down is nil if the API is not taken
// to be down; most is the longest wait.
func (s *suspects) giveWay(id string, down *pace.Busy, due, now time.Time, most time.Duration) time.Time {
	if down == nil {
		return due
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.once[id] && len(s.ids) < maxSuspects {
		s.ids = append(s.ids, id)
	}
	if later := now.Add(min(probesMissed*down.Wait, most)); later.After(due) {
		return later
	}
	return due
}

// cleared are those that are due at once when the API works again.
func (s *suspects) cleared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids
	s.ids = nil
	if s.once == nil || len(s.once) > maxSuspects {
		s.once = map[string]bool{}
	}
	for _, id := range ids {
		s.once[id] = true
	}
	return ids
}

// clear makes the suspects due. One that cannot be found was sent or dropped.
func (e *Engine) clear(ctx context.Context) {
	for _, id := range e.suspects.cleared() {
		if _, err := e.opt.Queue.Retry(ctx, queue.Filter{ID: id, States: []queue.State{queue.Waiting}}, time.Now()); err != nil {
			e.opt.Log.Warn("a mail that waited for the API is not tried at once", "id", id, "cause", err)
		}
	}
}
